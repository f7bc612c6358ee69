//! Weights as views: bytes in memory, a range of a mapped file, or a cast of another view.

mod cast;
mod file;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
pub use file::MappedFile;

use crate::{DType, Error};

/// Bytes read, cast and written at a time: a multiple of every element size.
const CHUNK: usize = 1 << 20;

/// A tensor's content, little-endian and packed as in ONNX's `raw_data`. Cloning copies no weight.
#[derive(Clone, Debug)]
pub struct Data(Source);

#[derive(Clone, Debug)]
enum Source {
    Owned(Bytes),
    Mapped { file: Arc<MappedFile>, offset: u64, len: u64 },
    Cast { inner: Arc<Data>, from: DType, to: DType },
}

impl Data {
    /// Bytes held in memory: constants that the graph's maths brings along.
    pub fn owned(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Owned(bytes.into()))
    }

    /// Bytes of these numbers.
    pub fn f32s(numbers: &[f32]) -> Self {
        Self::owned(numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Bytes of these numbers.
    pub fn i64s(numbers: &[i64]) -> Self {
        Self::owned(numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// `len` bytes from `offset` on of a mapped file; `None` if the file is shorter than that.
    pub fn mapped(file: Arc<MappedFile>, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= file.len()).then_some(Self(Source::Mapped { file, offset, len }))
    }

    /// The same numbers in another floating-point type (round to nearest, ties to even); `None` if one of the two is
    /// not `float32`, `float16` or `bfloat16`.
    pub fn cast(self, from: DType, to: DType) -> Option<Self> {
        if from == to {
            return Some(self);
        }
        cast::possible(from, to).then(|| Self(Source::Cast { inner: Arc::new(self), from, to }))
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::Owned(bytes) => bytes.len() as u64,
            Source::Mapped { len, .. } => *len,
            Source::Cast { inner, from, to } => to.bytes(inner.len() / from.bytes(1)),
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes; borrowed unless they have to be computed.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Source::Owned(bytes) => Cow::Borrowed(bytes),
            Source::Mapped { file, offset, len } => Cow::Borrowed(file.slice(*offset, *len)),
            Source::Cast { inner, from, to } => {
                let mut out = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
                cast::cast(&inner.bytes(), *from, *to, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// The bytes as `int64` numbers, for constants such as shapes and axes.
    pub fn to_i64s(&self) -> Vec<i64> {
        let bytes = self.bytes();
        let (numbers, _) = bytes.as_chunks::<8>();
        numbers.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    /// The bytes as `float32` numbers.
    pub fn to_f32s(&self) -> Vec<f32> {
        let bytes = self.bytes();
        let (numbers, _) = bytes.as_chunks::<4>();
        numbers.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// Whether the two are the same bytes: of the same place in a file, or equal in memory. False may also mean that it
    /// would take reading to know.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Owned(a), Source::Owned(b)) => a == b,
            (Source::Mapped { file: a, offset, len }, Source::Mapped { file: b, offset: o, len: l }) => {
                (a.path(), offset, len) == (b.path(), o, l)
            }
            (Source::Cast { inner: a, to, .. }, Source::Cast { inner: b, to: t, .. }) => to == t && a.is_same(b),
            _ => false,
        }
    }

    /// The file range that holds the bytes as they are, if there is one.
    pub fn location(&self) -> Option<(&Arc<MappedFile>, u64)> {
        match &self.0 {
            Source::Mapped { file, offset, .. } => Some((file, *offset)),
            _ => None,
        }
    }

    /// Whether the bytes come from a file, directly or through a cast: weights, as opposed to constants of the maths.
    pub fn is_streamed(&self) -> bool {
        match &self.0 {
            Source::Owned(_) => false,
            Source::Mapped { .. } => true,
            Source::Cast { inner, .. } => inner.is_streamed(),
        }
    }

    /// Hands the bytes on in order, a chunk of at most 1 MiB at a time and without touching the mapping: memory use
    /// does not grow with the tensor.
    pub fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        match &self.0 {
            Source::Owned(bytes) => bytes.chunks(CHUNK).try_for_each(sink),
            Source::Mapped { file, offset, len } => file.stream(*offset, *len, CHUNK, sink),
            Source::Cast { inner, from, to } => {
                let mut out = Vec::new();
                inner.stream(&mut |chunk| {
                    out.clear();
                    cast::cast(chunk, *from, *to, &mut out);
                    sink(&out)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_streams_what_it_reads() {
        let numbers: Vec<f32> = (0..3000_i16).map(|i| f32::from(i) * 0.37 - 500.0).collect();
        let half = Data::f32s(&numbers).cast(DType::Float32, DType::Float16).expect("floats");
        let mut streamed = Vec::new();
        half.stream(&mut |chunk| {
            streamed.extend_from_slice(chunk);
            Ok(())
        })
        .expect("memory");
        assert_eq!(streamed, half.bytes().as_ref());
        assert_eq!(streamed.len() as u64, half.len());
        assert_eq!(streamed.len(), 6000);
    }

    #[test]
    fn a_range_beyond_the_file_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w");
        std::fs::write(&path, [1, 2, 3, 4]).expect("write");
        let file = MappedFile::open(&path).expect("open");
        assert!(Data::mapped(file.clone(), 1, 4).is_none());
        assert!(Data::mapped(file.clone(), u64::MAX, 2).is_none());
        assert_eq!(Data::mapped(file, 1, 3).expect("in range").bytes().as_ref(), [2, 3, 4]);
    }
}
