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
        let elements = range(start / self.size as u64, len / self.size as u64);
        let mut out = Vec::with_capacity(CHUNK.min(elements.len() * self.size));
        for index in elements {
            let (column, row) = (index / self.rows, index % self.rows);
            let at = (row * self.columns + column) * self.size;
            out.extend_from_slice(bytes.get(at..at + self.size).unwrap_or_default());
            if out.len() >= CHUNK {
                sink(&out)?;
                out.clear();
            }
        }
        if out.is_empty() { Ok(()) } else { sink(&out) }
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
