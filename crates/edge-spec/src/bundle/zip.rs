//! The one zip file that holds given files: [`Layout`] says every byte of it but the files' own.
//!
//! Format: [APPNOTE.TXT 6.3.10](https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), sections 4.3 and 4.5.
//! Files are stored, in the order of their names, each at a border that suits mapping, with the date 1980-01-01 and the
//! rights `rw-r--r--` (`rwxr-xr-x` for programs). Nothing stands before, between or behind. So names, sizes and checksums
//! determine the rest, and a reader that writes it again and compares has checked it whole.

/// What is known of a file before its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) crc32: u32,
}

/// Where everything is.
pub(super) struct Layout {
    /// Each file, in order.
    pub(super) places: Vec<Place>,
    /// The directory and all that follows it.
    pub(super) end: Vec<u8>,
    /// Where the directory starts.
    pub(super) directory: u64,
    /// How much of `end` the directory is.
    pub(super) directory_size: usize,
}

/// Where a file is: its header, then its content.
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) header: Vec<u8>,
}

impl Place {
    /// Where the content starts.
    pub(super) fn content(&self) -> u64 {
        self.offset + self.header.len() as u64
    }
}

pub(super) const LOCAL: u32 = 0x0403_4b50;
pub(super) const CENTRAL: u32 = 0x0201_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
pub(super) const END: u32 = 0x0605_4b50;
/// Bytes of the records without what varies in length.
pub(super) const CENTRAL_SIZE: usize = 46;
pub(super) const END_SIZE: usize = 22;
pub(super) const END_64_SIZE: usize = 56;
pub(super) const LOCATOR_64_SIZE: usize = 20;

/// A size or offset from this one on stands in the zip64 fields.
pub(super) const LIMIT_32: u64 = 0xffff_ffff;
/// The extra field of zip64 sizes.
pub(super) const EXTRA_64: u16 = 1;
/// The extra field that moves the content to a border, as Android's zipalign writes it.
const EXTRA_ALIGN: u16 = 0xd935;
/// 1980-01-01, as zip counts days. The time is 0.
const DATE: u16 = 0x0021;
/// Made by Unix, as version 4.5 of the specification says.
const MADE_BY: u16 = 0x0300 + 45;

/// Files of this size and more start at [`PAGE`], smaller ones at [`WORD`].
const LARGE: u64 = 1 << 16;
/// The largest page of an Android device.
const PAGE: u64 = 1 << 14;
/// A cache line.
const WORD: u64 = 64;

/// Unix file modes: regular files.
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

impl Layout {
    /// The layout of these files, which are sorted by name.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let mut places = Vec::new();
        let mut end = Vec::new();
        let mut offset = 0;
        for entry in entries {
            let header = local(entry, offset);
            let place = Place { offset, header };
            central(entry, offset, &mut end);
            offset = place.content() + entry.size;
            places.push(place);
        }
        let directory_size = end.len();
        finish(entries.len() as u64, offset, &mut end);
        Self { places, end, directory: offset, directory_size }
    }

    /// Bytes of the whole file.
    pub(super) fn size(&self) -> u64 {
        self.directory + self.end.len() as u64
    }
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// The value, or the mark that it stands in the zip64 fields.
fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Lengths of names and extra fields, which are short.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The fields that both headers of a file have, from `version needed` to `name length`.
fn common(entry: &Entry, large: bool, out: &mut Vec<u8>) {
    put16(out, if large { 45 } else { 20 });
    put16(out, 0); // No flags: not encrypted, sizes first, a name in ASCII.
    put16(out, 0); // Stored.
    put16(out, 0);
    put16(out, DATE);
    put32(out, entry.crc32);
    put32(out, short(entry.size));
    put32(out, short(entry.size));
    put16(out, length(entry.name.len()));
}

fn local(entry: &Entry, offset: u64) -> Vec<u8> {
    let large = entry.size >= LIMIT_32;
    let mut extra = Vec::new();
    if large {
        put16(&mut extra, EXTRA_64);
        put16(&mut extra, 16);
        put64(&mut extra, entry.size);
        put64(&mut extra, entry.size);
    }
    let border = if entry.size >= LARGE { PAGE } else { WORD };
    let start = offset + 30 + entry.name.len() as u64 + extra.len() as u64;
    let mut gap = start.next_multiple_of(border) - start;
    if gap > 0 {
        // The field's own head and the border's size take six bytes.
        gap = if gap < 6 { gap + border } else { gap };
        put16(&mut extra, EXTRA_ALIGN);
        put16(&mut extra, u16::try_from(gap - 4).unwrap_or(u16::MAX));
        put16(&mut extra, u16::try_from(border).unwrap_or(u16::MAX));
        extra.extend((6..gap).map(|_| 0));
    }
    let mut header = Vec::new();
    put32(&mut header, LOCAL);
    common(entry, large, &mut header);
    put16(&mut header, length(extra.len()));
    header.extend_from_slice(entry.name.as_bytes());
    header.extend(extra);
    header
}

fn central(entry: &Entry, offset: u64, out: &mut Vec<u8>) {
    let numbers: Vec<u64> = [entry.size, entry.size, offset].into_iter().filter(|n| *n >= LIMIT_32).collect();
    put32(out, CENTRAL);
    put16(out, MADE_BY);
    common(entry, !numbers.is_empty(), out);
    put16(out, if numbers.is_empty() { 0 } else { length(4 + 8 * numbers.len()) });
    put16(out, 0); // No comment.
    put16(out, 0); // The first disk.
    put16(out, 0); // No internal attributes.
    put32(out, mode(&entry.name) << 16);
    put32(out, short(offset));
    out.extend_from_slice(entry.name.as_bytes());
    if !numbers.is_empty() {
        put16(out, EXTRA_64);
        put16(out, length(8 * numbers.len()));
        for number in numbers {
            put64(out, number);
        }
    }
}

/// The records behind the directory, whose entries `out` holds.
fn finish(count: u64, directory: u64, out: &mut Vec<u8>) {
    let size = out.len() as u64;
    let entries = u16::try_from(count).unwrap_or(u16::MAX);
    if directory >= LIMIT_32 {
        let place = directory + size;
        put32(out, END_64);
        put64(out, END_64_SIZE as u64 - 12);
        put16(out, MADE_BY);
        put16(out, 45);
        put32(out, 0);
        put32(out, 0);
        put64(out, count);
        put64(out, count);
        put64(out, size);
        put64(out, directory);
        put32(out, LOCATOR_64);
        put32(out, 0);
        put64(out, place);
        put32(out, 1);
    }
    put32(out, END);
    put16(out, 0);
    put16(out, 0);
    put16(out, entries);
    put16(out, entries);
    put32(out, short(size));
    put32(out, short(directory));
    put16(out, 0);
}

/// The Unix mode of a file: scripts and the runner are programs.
pub(super) fn mode(name: &str) -> u32 {
    let script = std::path::Path::new(name).extension().is_some_and(|e| e == "sh");
    if script || name.starts_with("runner/") { PROGRAM } else { FILE }
}
