//! Views that pick, reorder or scale the elements of another view while it streams.

use std::ops::Range;
use std::sync::Arc;

use super::{CHUNK, Data, Source};
use crate::Error;

/// `count` blocks of `len` bytes, `step` bytes apart, the first at `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) step: u64,
    pub(super) count: u64,
}

/// A matrix whose rows become columns; an element has `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) size: usize,
}

/// A factor for each index of one axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gains {
    pub(super) factors: Arc<[f32]>,
    /// Elements that have an index in a row.
    pub(super) inner: usize,
}

impl Data {
    /// The indices `range` along `axis` of a tensor of this shape, whose elements have `size` bytes; `None` if they are
    /// out of the tensor. A range of the first axis of a file's tensor is a range of the file.
    pub fn slice(&self, shape: &[usize], axis: usize, range: Range<usize>, size: u64) -> Option<Self> {
        let bytes = |dims: &[usize]| dims.iter().try_fold(size, |product, d| product.checked_mul(*d as u64));
        if range.start > range.end || range.end > *shape.get(axis)? || bytes(shape)? != self.len() {
            return None;
        }
        let inner = bytes(&shape[axis + 1..])?;
        let blocks = Blocks {
            start: range.start as u64 * inner,
            len: range.len() as u64 * inner,
            step: shape[axis] as u64 * inner,
            count: shape[..axis].iter().product::<usize>() as u64,
        };
        Some(match &self.0 {
            Source::Mapped { file, offset, .. } if blocks.count == 1 => {
                Self(Source::Mapped { file: file.clone(), offset: offset + blocks.start, len: blocks.len })
            }
            Source::Owned(bytes) if blocks.count == 1 => {
                Self(Source::Owned(bytes.slice(self::range(blocks.start, blocks.len))))
            }
            Source::Cast { inner, from, to } => {
                let inner = Arc::new(inner.slice(shape, axis, range, from.bytes(1))?);
                Self(Source::Cast { inner, from: *from, to: *to })
            }
            _ => Self(Source::Blocks { inner: Arc::new(self.clone()), blocks }),
        })
    }

    /// The transpose of a `rows` x `columns` matrix, whose elements have `size` bytes; `None` if the bytes are not as
    /// many.
    pub fn transpose(&self, rows: usize, columns: usize, size: u64) -> Option<Self> {
        let fits = (rows as u64).checked_mul(columns as u64)?.checked_mul(size)? == self.len();
        let matrix = Matrix { rows, columns, size: usize::try_from(size).ok()? };
        fits.then(|| Self(Source::Transposed { inner: Arc::new(self.clone()), matrix }))
    }

    /// Every `float32` number times `factor`.
    #[must_use]
    pub fn scale(&self, factor: f32) -> Self {
        Self(Source::Scaled { inner: Arc::new(self.clone()), factor })
    }

    /// Every `float32` number of a tensor of this shape times the factor of its index along `axis`; `None` if there are
    /// not as many factors, or numbers.
    pub fn scale_along(&self, shape: &[usize], axis: usize, factors: &[f32]) -> Option<Self> {
        let elements = shape.iter().try_fold(4_u64, |product, d| product.checked_mul(*d as u64))?;
        let fits = *shape.get(axis)? == factors.len() && elements == self.len() && elements > 0;
        let gains = Gains { factors: factors.into(), inner: shape[axis + 1..].iter().product() };
        fits.then(|| Self(Source::Gained { inner: Arc::new(self.clone()), gains }))
    }
}

impl Blocks {
    pub(super) fn stream(
        self,
        inner: &Data,
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut at, end) = (start, start + len);
        while at < end {
            let (block, within) = (at / self.len, at % self.len);
            let part = (self.len - within).min(end - at);
            inner.stream_range(self.start + block * self.step + within, part, sink)?;
            at += part;
        }
        Ok(())
    }
}

impl Gains {
    pub(super) fn stream(
        &self,
        inner: &Data,
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut at = range(start / 4, 0).start;
        inner.stream_range(start, len, &mut |chunk| {
            let (numbers, _) = chunk.as_chunks::<4>();
            let factor = |at: usize| self.factors[at / self.inner % self.factors.len()];
            let scaled = numbers.iter().enumerate().map(|(k, b)| f32::from_le_bytes(*b) * factor(at + k));
            let scaled: Vec<u8> = scaled.flat_map(f32::to_le_bytes).collect();
            at += numbers.len();
            sink(&scaled)
        })
    }
}

impl Matrix {
    pub(super) fn stream(
        self,
        bytes: &[u8],
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if bytes.len() < self.rows * self.columns * self.size {
            // A file that can no longer be read: fewer bytes come out, too.
            return Ok(());
        }
        match self.size {
            1 => self.bands::<1>(bytes, start, len, sink),
            2 => self.bands::<2>(bytes, start, len, sink),
            4 => self.bands::<4>(bytes, start, len, sink),
            _ => self.bands::<8>(bytes, start, len, sink),
        }
    }

    /// As many whole columns at a time as a chunk holds, and pieces of columns at the ends of what is asked for.
    fn bands<const N: usize>(
        self,
        bytes: &[u8],
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let elements = bytes.as_chunks::<N>().0;
        let Range { start: mut at, end } = range(start / N as u64, len / N as u64);
        let mut out = Vec::new();
        while at < end {
            let (column, row) = (at / self.rows, at % self.rows);
            let columns = (end - at).min(CHUNK / N) / self.rows;
            let (columns, rows) = match (row, columns) {
                (0, 1..) => (column..column + columns, 0..self.rows),
                _ => (column..column + 1, row..self.rows.min(row + (end - at).min(CHUNK / N))),
            };
            at += columns.len() * rows.len();
            out.resize(columns.len() * rows.len(), [0; N]);
            self.turn(elements, columns, rows, &mut out);
            sink(out.as_flattened())?;
        }
        Ok(())
    }

    /// A part of the matrix, column after column, in tiles whose lines stay in the processor's cache.
    fn turn<const N: usize>(
        self,
        elements: &[[u8; N]],
        columns: Range<usize>,
        rows: Range<usize>,
        out: &mut [[u8; N]],
    ) {
        const TILE: usize = 16;
        for top in rows.clone().step_by(TILE) {
            let bottom = rows.end.min(top + TILE);
            for left in columns.clone().step_by(TILE) {
                for column in left..columns.end.min(left + TILE) {
                    let from = (column - columns.start) * rows.len() + top - rows.start;
                    for (to, row) in out[from..from + bottom - top].iter_mut().zip(top..) {
                        *to = elements.get(row * self.columns + column).copied().unwrap_or([0; N]);
                    }
                }
            }
        }
    }
}

/// `len` indices from `start` on.
pub(super) fn range(start: u64, len: u64) -> Range<usize> {
    let index = |v: u64| usize::try_from(v).unwrap_or(usize::MAX);
    index(start)..index(start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, MappedFile};

    fn numbers(data: &Data) -> Vec<f32> {
        assert_eq!(data.bytes().len() as u64, data.len());
        data.to_f32s()
    }

    #[test]
    fn transforms_are_those_of_the_numbers() {
        let data = Data::f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(numbers(&data.slice(&[2, 3], 0, 1..2, 4).expect("a row")), [3.0, 4.0, 5.0]);
        let columns = data.slice(&[2, 3], 1, 1..3, 4).expect("columns");
        assert_eq!(numbers(&columns), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(numbers(&columns.slice(&[2, 2], 1, 1..2, 4).expect("a column")), [2.0, 5.0]);
        assert_eq!(numbers(&data.transpose(2, 3, 4).expect("a matrix")), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(numbers(&columns.transpose(2, 2, 4).expect("a matrix").scale(2.0)), [2.0, 8.0, 4.0, 10.0]);
        let gained = data.scale_along(&[2, 3], 1, &[1.0, 10.0, 100.0]).expect("a matrix");
        assert_eq!(numbers(&gained), [0.0, 10.0, 200.0, 3.0, 40.0, 500.0]);
        assert_eq!(numbers(&gained.slice(&[2, 3], 1, 1..3, 4).expect("columns")), [10.0, 200.0, 40.0, 500.0]);
        assert_eq!(numbers(&data.scale_along(&[2, 3], 0, &[1.0, 2.0]).expect("a matrix"))[3..], [6.0, 8.0, 10.0]);
        assert!(data.scale_along(&[2, 3], 1, &[1.0; 2]).is_none());
        assert!(data.slice(&[2, 3], 1, 1..4, 4).is_none());
        assert!(data.transpose(2, 2, 4).is_none());
    }

    #[test]
    fn any_part_of_a_transpose_is_a_part_of_the_whole() {
        let (rows, columns) = (37, 18);
        let numbers: Vec<u16> = (0..37 * 18).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        let turned = Data::owned(bytes).transpose(rows, columns, 2).expect("a matrix");
        let expected = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
        let expected: Vec<u8> = expected.flat_map(|(r, c)| numbers[r * columns + c].to_le_bytes()).collect();
        assert_eq!(turned.bytes(), expected);
        for start in (0..expected.len()).step_by(2) {
            for end in (start..=expected.len()).step_by(26) {
                let mut out = Vec::new();
                turned
                    .stream_range(start as u64, (end - start) as u64, &mut |chunk| {
                        out.extend_from_slice(chunk);
                        Ok(())
                    })
                    .expect("memory");
                assert_eq!(out, expected[start..end]);
            }
        }
    }

    #[test]
    fn ranges_of_files_stay_ranges_and_casts_come_last() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w");
        let half: Vec<u8> = (0..6_u8).flat_map(|i| half::f16::from_f32(f32::from(i)).to_le_bytes()).collect();
        std::fs::write(&path, half).expect("write");
        let data = Data::mapped(MappedFile::open(&path).expect("open"), 0, 12).expect("in range");
        let rows = data.slice(&[3, 2], 0, 1..3, 2).expect("rows");
        assert_eq!(rows.location().map(|(_, at)| at), Some(4));
        let wide = data.cast(DType::Float16, DType::Float32).expect("floats");
        let column = wide.slice(&[3, 2], 1, 1..2, 4).expect("a column");
        assert!(column.is_streamed());
        assert_eq!(numbers(&column), [1.0, 3.0, 5.0]);
        assert_eq!(numbers(&wide.transpose(3, 2, 4).expect("a matrix")), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    }
}
