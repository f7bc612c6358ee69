//! Reading a bundle, without trust: its structure is written again from names, sizes and checksums, and compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::write::{Sums, chunks};
use super::zip::{
    CENTRAL, CENTRAL_SIZE, END, END_64_SIZE, END_SIZE, EXTRA_64, Entry, LIMIT_32, LOCATOR_64_SIZE, Layout, mode,
};
use super::{BUNDLE_MANIFEST, BUNDLE_SCHEMA, BundleManifest, ENTRIES, Measure, SIGNATURE, name};
use crate::SpecError;

/// The largest directory that is read into memory: [`ENTRIES`] entries of the longest names.
const DIRECTORY: u64 = ENTRIES as u64 * 300;
/// The largest manifest or signature that is read into memory.
const TEXT: u64 = 16 << 20;
/// Bits of a Unix file mode that say what kind of file it is, and two kinds.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;

/// An opened bundle. Its structure and its manifest are sound; the files' contents are checked as they are read.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    entries: BTreeMap<String, Stored>,
    text: Vec<u8>,
    manifest: BundleManifest,
}

#[derive(Debug)]
struct Stored {
    offset: u64,
    size: u64,
    crc32: u32,
}

/// A file that is not what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its name in the bundle.
    pub name: String,
    /// What was expected and what was found.
    pub reason: String,
}

impl Bundle {
    /// Opens a bundle and checks everything but the contents of the files that the manifest lists.
    ///
    /// # Errors
    /// If it cannot be read, or anything is not as `docs/bundle.md` says; the place is named.
    pub fn open(path: &Path) -> Result<Self, SpecError> {
        let failed = |source| SpecError::Io { path: path.to_owned(), source };
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "bundle", reason };
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let end = tail(&mut file, size).map_err(failed)?.map_err(invalid)?;
        let entries = directory(&end).map_err(invalid)?;
        let layout = Layout::new(&entries);
        compare_end(&layout, &entries, &end, size).map_err(invalid)?;
        let mut stored = BTreeMap::new();
        for (entry, place) in entries.iter().zip(&layout.places) {
            if read_at(&mut file, place.offset, place.header.len()).map_err(failed)? != place.header {
                return Err(invalid(format!("the header of `{}` is not what the directory says", entry.name)));
            }
            let found = Stored { offset: place.content(), size: entry.size, crc32: entry.crc32 };
            stored.insert(entry.name.clone(), found);
        }
        let place = stored.get(BUNDLE_MANIFEST).ok_or_else(|| invalid(format!("it has no `{BUNDLE_MANIFEST}`")))?;
        let text = small(&mut file, place, BUNDLE_MANIFEST).map_err(failed)?.map_err(invalid)?;
        let manifest = parse(&text).map_err(|reason| invalid(format!("`{BUNDLE_MANIFEST}`: {reason}")))?;
        compare_list(&manifest, &stored).map_err(invalid)?;
        Ok(Self { path: path.to_owned(), entries: stored, text, manifest })
    }

    /// The manifest.
    pub fn manifest(&self) -> &BundleManifest {
        &self.manifest
    }

    /// The manifest's bytes, which a signature is of.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The manifest's signature, if the bundle has one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn signature(&self) -> Result<Option<String>, SpecError> {
        let Some(place) = self.entries.get(SIGNATURE) else { return Ok(None) };
        let failed = |source| SpecError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        let bytes = small(&mut file, place, SIGNATURE).map_err(failed)?.map_err(|reason| self.invalid(reason))?;
        let text = String::from_utf8(bytes).map_err(|e| self.invalid(format!("`{SIGNATURE}`: {e}")))?;
        Ok(Some(text))
    }

    /// Reads every file and compares it with the manifest and its checksum. What is damaged comes back.
    ///
    /// # Errors
    /// If the bundle cannot be read.
    pub fn check(&self) -> Result<Vec<Damage>, SpecError> {
        let mut damaged = Vec::new();
        for name in self.names() {
            damaged.extend(self.stream(name, &mut |_| Ok(()))?);
        }
        Ok(damaged)
    }

    /// Writes every file whose name `takes` accepts below `folder`, which exists and is empty, and is the caller's to
    /// remove if this fails.
    ///
    /// # Errors
    /// If the disk refuses, or a file is not what the manifest says.
    pub fn extract(&self, folder: &Path, takes: &dyn Fn(&str) -> bool) -> Result<(), SpecError> {
        for name in self.entries.keys().filter(|name| takes(name)) {
            let path = folder.join(name);
            let failed = |source| SpecError::Write { path: path.clone(), source };
            std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
            let mut out = File::create_new(&path).map_err(failed)?;
            let damage = self.stream(name, &mut |chunk| out.write_all(chunk).map_err(failed))?;
            if let Some(Damage { name, reason }) = damage {
                return Err(self.invalid(format!("`{name}` {reason}")));
            }
            let rights = std::fs::Permissions::from_mode(mode(name) & 0o777);
            out.set_permissions(rights).map_err(failed)?;
        }
        Ok(())
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Reads one file; its damage comes back, if there is some.
    fn stream(
        &self,
        name: &str,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), SpecError>,
    ) -> Result<Option<Damage>, SpecError> {
        let Some(place) = self.entries.get(name) else { return Ok(None) };
        let failed = |source| SpecError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
        let mut sums = Sums::default();
        chunks(file.take(place.size), &failed, &mut |chunk| {
            sums.add(chunk);
            sink(chunk)
        })?;
        let found = sums.finish();
        let listed = self.manifest.files.iter().find(|f| f.path == name);
        let sha256 = listed.map_or(&found.sha256, |f| &f.sha256);
        let expected = Measure { size: place.size, sha256: sha256.clone(), crc32: place.crc32 };
        Ok(difference(&expected, &found).map(|reason| Damage { name: name.to_owned(), reason }))
    }

    fn invalid(&self, reason: String) -> SpecError {
        SpecError::Invalid { path: self.path.clone(), what: "bundle", reason }
    }
}

fn difference(expected: &Measure, found: &Measure) -> Option<String> {
    if found.sha256 != expected.sha256 {
        return Some(format!("has the SHA-256 {}, expected {}", found.sha256, expected.sha256));
    }
    let (found, expected) = (found.crc32, expected.crc32);
    (found != expected).then(|| format!("has the CRC-32 {found:08x}, expected {expected:08x}"))
}

fn read_at(file: &mut File, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that is read into memory whole.
fn small(file: &mut File, place: &Stored, name: &str) -> std::io::Result<Result<Vec<u8>, String>> {
    if place.size > TEXT {
        return Ok(Err(format!("`{name}` has {} bytes, at most {TEXT}", place.size)));
    }
    let len = usize::try_from(place.size).unwrap_or(usize::MAX);
    let bytes = read_at(file, place.offset, len)?;
    let (found, expected) = (crc32fast::hash(&bytes), place.crc32);
    Ok(if found == expected {
        Ok(bytes)
    } else {
        Err(format!("`{name}` has the CRC-32 {found:08x}, expected {expected:08x}"))
    })
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// The directory and all that follows it, if the end of the file says where it starts.
fn tail(file: &mut File, size: u64) -> std::io::Result<Result<Vec<u8>, String>> {
    let known = (END_SIZE + LOCATOR_64_SIZE + END_64_SIZE).min(usize::try_from(size).unwrap_or(usize::MAX));
    let last = read_at(file, size - known as u64, known)?;
    let no_zip = || "it does not end as a zip file without a comment does: cut off, or something else".to_owned();
    let Some(at) = last.len().checked_sub(END_SIZE).filter(|at| number(&last, *at, 4) == u64::from(END)) else {
        return Ok(Err(no_zip()));
    };
    // Where the zip64 record has to be if there is one, its own field says where the directory is.
    let start = match number(&last, at + 16, 4) {
        LIMIT_32 if last.len() == END_SIZE + LOCATOR_64_SIZE + END_64_SIZE => number(&last, 48, 8),
        start => start,
    };
    let Some(len) = size.checked_sub(start).filter(|len| *len >= END_SIZE as u64) else {
        return Ok(Err(format!("its directory is to start at byte {start}, and it has {size}")));
    };
    if len > DIRECTORY {
        return Ok(Err(format!("its directory has {len} bytes, at most {DIRECTORY}")));
    }
    Ok(Ok(read_at(file, start, usize::try_from(len).unwrap_or(usize::MAX))?))
}

/// The entries of the directory that `end` begins with.
fn directory(end: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while number(end, at, 4) == u64::from(CENTRAL) {
        let [name_len, extra, comment] = [28, 30, 32].map(|field| number(end, at + field, 2));
        let start = at + CENTRAL_SIZE;
        let bytes = usize::try_from(name_len).ok().and_then(|len| end.get(start..start + len));
        let bytes = bytes.ok_or_else(|| format!("the directory is cut off after {} files", entries.len()))?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some(why) = name::fault(&text) {
            return Err(format!("the name `{}` {why}", text.escape_debug()));
        }
        refuse_kind(&text, end, at)?;
        let size = match number(end, at + 24, 4) {
            LIMIT_32 if number(end, start + bytes.len(), 2) == u64::from(EXTRA_64) => {
                number(end, start + bytes.len() + 4, 8)
            }
            size => size,
        };
        let crc32 = u32::try_from(number(end, at + 16, 4)).unwrap_or_default();
        entries.push(Entry { name: text, size, crc32 });
        if entries.len() > ENTRIES {
            return Err(format!("it has more than {ENTRIES} files"));
        }
        at = start + usize::try_from(name_len + extra + comment).unwrap_or(usize::MAX - start);
    }
    let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    if let Some(why) = name::clash(&names) {
        return Err(why);
    }
    match names.windows(2).find(|pair| pair[0] > pair[1]) {
        Some(pair) => Err(format!("`{}` stands after `{}`, expected names in order", pair[1], pair[0])),
        None => Ok(entries),
    }
}

/// What an entry must not be, said by name; the comparison of all bytes finds the rest.
fn refuse_kind(name: &str, end: &[u8], at: usize) -> Result<(), String> {
    let flags = number(end, at + 8, 2);
    let method = number(end, at + 10, 2);
    let unix = u32::try_from(number(end, at + 40, 2)).unwrap_or_default();
    let [packed, size] = [20, 24].map(|field| number(end, at + field, 4));
    if flags & 1 != 0 {
        return Err(format!("`{name}` is encrypted"));
    }
    if method != 0 {
        return Err(format!("`{name}` is compressed by method {method}, expected stored files alone"));
    }
    if unix & KIND == LINK {
        return Err(format!("`{name}` is a link, expected files alone"));
    }
    if unix & KIND != REGULAR {
        return Err(format!("`{name}` has the Unix mode {unix:o}, expected a file's"));
    }
    if packed != size {
        return Err(format!("`{name}` has {packed} bytes that are to become {size}, expected the same"));
    }
    Ok(())
}

fn compare_end(layout: &Layout, entries: &[Entry], end: &[u8], size: u64) -> Result<(), String> {
    if layout.size() != size {
        let sizes = format!("its files and their headers would make it {} bytes, and it has {size}", layout.size());
        return Err(format!("sizes do not add up: {sizes}"));
    }
    let Some(at) = layout.end.iter().zip(end).position(|(a, b)| a != b) else {
        return if layout.end.len() == end.len() {
            Ok(())
        } else {
            Err("its directory is not where it must be".into())
        };
    };
    if at >= layout.directory_size {
        return Err(format!("byte {} of the records at its end is wrong", at - layout.directory_size));
    }
    let mut start = 0;
    for entry in entries {
        let zip64 = number(&layout.end, start + 30, 2);
        start += CENTRAL_SIZE + entry.name.len() + usize::try_from(zip64).unwrap_or_default();
        if at < start {
            return Err(format!("the directory's entry of `{}` is not as a bundle has it", entry.name));
        }
    }
    Err("its directory is not as a bundle has it".into())
}

fn parse(text: &[u8]) -> Result<BundleManifest, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(BUNDLE_SCHEMA) => serde_json::from_slice(text).map_err(|e| e.to_string()),
        Some(other) => Err(format!("field `schema` is `{other}`, supported: {BUNDLE_SCHEMA}")),
        None => Err(format!("it has no field `schema`, expected `{BUNDLE_SCHEMA}`")),
    }
}

/// The manifest lists what is there.
fn compare_list(manifest: &BundleManifest, stored: &BTreeMap<String, Stored>) -> Result<(), String> {
    let own = [BUNDLE_MANIFEST, SIGNATURE];
    let listed: BTreeMap<&str, u64> = manifest.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    if listed.len() != manifest.files.len() || !manifest.files.is_sorted_by(|a, b| a.path < b.path) {
        return Err(format!("`{BUNDLE_MANIFEST}` does not list its files in order, each once"));
    }
    if let Some(name) = listed.keys().find(|name| own.contains(name) || !stored.contains_key(**name)) {
        return Err(format!("`{BUNDLE_MANIFEST}` lists `{name}`, which is not there"));
    }
    for (name, place) in stored.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        match listed.get(name.as_str()) {
            None => return Err(format!("`{name}` is there, and `{BUNDLE_MANIFEST}` does not list it")),
            Some(size) if *size != place.size => {
                return Err(format!("`{name}` has {} bytes, `{BUNDLE_MANIFEST}` says {size}", place.size));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
