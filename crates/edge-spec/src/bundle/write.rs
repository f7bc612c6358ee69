//! Writing a bundle: files are measured, listed in the manifest, and copied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::zip::{Entry, Layout};
use super::{BUNDLE_MANIFEST, BundleFile, BundleManifest, ENTRIES, SIGNATURE, name};
use crate::SpecError;
use crate::manifest::hex;

/// Where a file's content is.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file on disk.
    File(PathBuf),
    /// In memory.
    Bytes(Vec<u8>),
}

/// What a file in a bundle will be: size, SHA-256 and zip's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// CRC-32.
    pub crc32: u32,
}

impl Content {
    /// Reads it once.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn measure(&self) -> Result<Measure, SpecError> {
        let mut sums = Sums::default();
        self.stream(&mut |chunk| {
            sums.add(chunk);
            Ok(())
        })?;
        Ok(sums.finish())
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), SpecError>) -> Result<(), SpecError> {
        let path = match self {
            Self::Bytes(bytes) => return sink(bytes),
            Self::File(path) => path,
        };
        let failed = |source| SpecError::Io { path: path.clone(), source };
        chunks(File::open(path).map_err(failed)?, &failed, sink)
    }
}

/// Hands on what a reader gives, in pieces.
pub(super) fn chunks(
    mut reader: impl Read,
    failed: &dyn Fn(std::io::Error) -> SpecError,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), SpecError>,
) -> Result<(), SpecError> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            size => sink(&buffer[..size])?,
        }
    }
}

/// Both sums of the same bytes.
#[derive(Default)]
pub(super) struct Sums {
    size: u64,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
}

impl Sums {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        self.crc32.update(bytes);
    }

    pub(super) fn finish(self) -> Measure {
        Measure { size: self.size, sha256: hex(&self.sha256.finalize()), crc32: self.crc32.finalize() }
    }
}

/// Files by their names in the bundle.
pub type Contents = BTreeMap<String, Content>;

/// Lists the files in the manifest. Those of `known`, by name, need not be read for that.
///
/// # Errors
/// If a name cannot be in a bundle, or a file cannot be read.
pub fn list(
    manifest: &mut BundleManifest,
    contents: &Contents,
    known: &BTreeMap<String, Measure>,
) -> Result<BTreeMap<String, Measure>, SpecError> {
    if let Some((name, why)) = contents.keys().find_map(|name| Some((name, name::fault(name)?))) {
        return Err(SpecError::Name { name: name.clone(), reason: why });
    }
    let names: Vec<&str> = contents.keys().map(String::as_str).chain([BUNDLE_MANIFEST, SIGNATURE]).collect();
    if let Some(why) = name::clash(&names) {
        return Err(SpecError::Names { reason: why });
    }
    if contents.len() + 2 > ENTRIES {
        let reason = format!("there are {} files, at most {}", contents.len(), ENTRIES - 2);
        return Err(SpecError::Names { reason });
    }
    let mut measures = BTreeMap::new();
    for (name, content) in contents {
        let measure = known.get(name).cloned().map_or_else(|| content.measure(), Ok)?;
        measures.insert(name.clone(), measure);
    }
    let file =
        |(path, m): (&String, &Measure)| BundleFile { path: path.clone(), size: m.size, sha256: m.sha256.clone() };
    manifest.files = measures.iter().map(file).collect();
    Ok(measures)
}

/// Writes the files that [`list`] has measured, and the manifest with its signature, to `path`. The same arguments give the
/// same bytes.
///
/// # Errors
/// If the disk refuses, or a file is no longer what was measured.
pub fn write(
    path: &Path,
    manifest: &BundleManifest,
    signature: Option<&str>,
    contents: &Contents,
    measures: &BTreeMap<String, Measure>,
) -> Result<(), SpecError> {
    let mut contents = contents.clone();
    let mut measures = measures.clone();
    let texts = [(BUNDLE_MANIFEST, Some(manifest.text())), (SIGNATURE, signature.map(str::to_owned))];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        let content = Content::Bytes(text.into_bytes());
        measures.insert(name.to_owned(), content.measure()?);
        contents.insert(name.to_owned(), content);
    }
    let entry = |(name, m): (&String, &Measure)| Entry { name: name.clone(), size: m.size, crc32: m.crc32 };
    let layout = Layout::new(&measures.iter().map(entry).collect::<Vec<_>>());
    let failed = |source| SpecError::Write { path: path.to_owned(), source };
    let mut out = BufWriter::with_capacity(1 << 18, File::create(path).map_err(failed)?);
    for ((name, content), place) in contents.iter().zip(&layout.places) {
        out.write_all(&place.header).map_err(failed)?;
        let mut sums = Sums::default();
        content.stream(&mut |chunk| {
            sums.add(chunk);
            out.write_all(chunk).map_err(failed)
        })?;
        if measures.get(name) != Some(&sums.finish()) {
            return Err(SpecError::Changed { name: name.clone() });
        }
    }
    out.write_all(&layout.end).map_err(failed)?;
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    // A renamed file must be whole even after a power cut.
    file.sync_all().map_err(failed)
}
