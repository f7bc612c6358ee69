//! A file that is mapped for random access and read through its handle for streaming.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::Error;

/// A read-only file on disk whose ranges are weights.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
}

impl MappedFile {
    /// Opens and maps the file, following links; [`MappedFile::path`] is where the bytes really are.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let path = path.canonicalize().map_err(Error::io("open", path))?;
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        #[expect(unsafe_code, reason = "mapping is the point; a file that shrinks while in use ends the process")]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", &path))?;
        Ok(Arc::new(Self { path, file, map }))
    }

    /// The file's canonical path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// A range that [`super::Data::mapped`] has checked; empty if it is out of the file.
    pub(super) fn slice(&self, offset: u64, len: u64) -> &[u8] {
        let range = || Some(usize::try_from(offset).ok()?..usize::try_from(offset + len).ok()?);
        range().and_then(|r| self.map.get(r)).unwrap_or_default()
    }

    /// Hands a range on in chunks, read through the handle: the pages stay out of this process's memory.
    pub(super) fn stream(
        &self,
        offset: u64,
        len: u64,
        chunk: usize,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut buffer = vec![0; chunk.min(usize::try_from(len).unwrap_or(chunk))];
        let mut done = 0;
        while done < len {
            let size = buffer.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
            let part = &mut buffer[..size];
            self.file.read_exact_at(part, offset + done).map_err(Error::io("read", &self.path))?;
            sink(part)?;
            done += size as u64;
        }
        Ok(())
    }
}
