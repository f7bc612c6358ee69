//! Weights as views: bytes in memory, a range of a mapped file, or a transform of another view.

mod cast;
mod file;
mod numbers;
mod quantize;
mod transform;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
pub use file::MappedFile;

use crate::{DType, Error};
use quantize::Coder;
use transform::{Blocks, Gains, Matrix};

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
    Blocks { inner: Arc<Data>, blocks: Blocks },
    Transposed { inner: Arc<Data>, matrix: Matrix },
    Scaled { inner: Arc<Data>, factor: f32 },
    Gained { inner: Arc<Data>, gains: Gains },
    Computed { of: Arc<Data>, bytes: Bytes },
    Quantized { inner: Arc<Data>, coder: Arc<Coder> },
    Dequantized { inner: Arc<Data>, coder: Arc<Coder> },
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

    /// Bytes that were computed from this view, and lie in memory. They are a weight where the view is one.
    #[must_use]
    pub fn computed(&self, bytes: impl Into<Bytes>) -> Self {
        Self(Source::Computed { of: Arc::new(self.clone()), bytes: bytes.into() })
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
            Source::Owned(bytes) | Source::Computed { bytes, .. } => bytes.len() as u64,
            Source::Mapped { len, .. } => *len,
            Source::Cast { inner, from, to } => to.bytes(inner.len() / from.bytes(1)),
            Source::Blocks { blocks, .. } => blocks.len * blocks.count,
            Source::Transposed { inner, .. } | Source::Scaled { inner, .. } | Source::Gained { inner, .. } => {
                inner.len()
            }
            Source::Quantized { coder, .. } => coder.packed_len(),
            Source::Dequantized { coder, .. } => DType::Float32.bytes(coder.elements()),
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes; borrowed unless they have to be computed.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Source::Owned(bytes) | Source::Computed { bytes, .. } => Cow::Borrowed(bytes),
            Source::Mapped { file, offset, len } => Cow::Borrowed(file.slice(*offset, *len)),
            _ => {
                let mut out = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
                let all = self.stream(&mut |chunk| {
                    out.extend_from_slice(chunk);
                    Ok(())
                });
                // A file that can no longer be read gives fewer bytes than its tensor has, which every reader checks.
                let _ = all;
                Cow::Owned(out)
            }
        }
    }

    /// Whether the two are the same bytes: of the same place in a file, or equal in memory. False may also mean that it
    /// would take reading to know.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Owned(a), Source::Owned(b)) => a == b,
            (Source::Mapped { file: a, offset, len }, Source::Mapped { file: b, offset: o, len: l }) => {
                (offset, len, a.path()) == (o, l, b.path())
            }
            (Source::Cast { inner: a, to, .. }, Source::Cast { inner: b, to: t, .. }) => to == t && a.is_same(b),
            (Source::Blocks { inner: a, blocks }, Source::Blocks { inner: b, blocks: c }) => {
                blocks == c && a.is_same(b)
            }
            (Source::Transposed { inner: a, matrix }, Source::Transposed { inner: b, matrix: m }) => {
                matrix == m && a.is_same(b)
            }
            (Source::Scaled { inner: a, factor }, Source::Scaled { inner: b, factor: f }) => {
                factor.to_bits() == f.to_bits() && a.is_same(b)
            }
            (Source::Gained { inner: a, gains }, Source::Gained { inner: b, gains: g }) => gains == g && a.is_same(b),
            (Source::Computed { of: a, bytes }, Source::Computed { of: b, bytes: c }) => a.is_same(b) && bytes == c,
            (Source::Quantized { inner: a, coder }, Source::Quantized { inner: b, coder: c })
            | (Source::Dequantized { inner: a, coder }, Source::Dequantized { inner: b, coder: c }) => {
                coder == c && a.is_same(b)
            }
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
            Source::Cast { inner, .. }
            | Source::Blocks { inner, .. }
            | Source::Transposed { inner, .. }
            | Source::Scaled { inner, .. }
            | Source::Gained { inner, .. }
            | Source::Computed { of: inner, .. }
            | Source::Quantized { inner, .. }
            | Source::Dequantized { inner, .. } => inner.is_streamed(),
        }
    }

    /// Hands the bytes on in order, a chunk of at most 1 MiB at a time: memory use does not grow with the tensor, but
    /// for a transposed one, which is read as a whole.
    pub fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        self.stream_range(0, self.len(), sink)
    }

    /// [`Data::stream`] for `len` bytes from `start` on, whole elements.
    fn stream_range(
        &self,
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &self.0 {
            Source::Owned(bytes) | Source::Computed { bytes, .. } => {
                let range = transform::range(start, len);
                bytes.get(range).unwrap_or_default().chunks(CHUNK).try_for_each(sink)
            }
            Source::Mapped { file, offset, .. } => file.stream(offset + start, len, CHUNK, sink),
            Source::Cast { inner, from, to } => {
                let (from_size, to_size) = (from.bytes(1), to.bytes(1));
                let mut out = Vec::new();
                inner.stream_range(start / to_size * from_size, len / to_size * from_size, &mut |chunk| {
                    out.clear();
                    cast::cast(chunk, *from, *to, &mut out);
                    sink(&out)
                })
            }
            Source::Blocks { inner, blocks } => blocks.stream(inner, start, len, sink),
            Source::Transposed { inner, matrix } => matrix.stream(&inner.bytes(), start, len, sink),
            Source::Scaled { inner, factor } => inner.stream_range(start, len, &mut |chunk| {
                let (numbers, _) = chunk.as_chunks::<4>();
                let scaled: Vec<u8> =
                    numbers.iter().flat_map(|b| (f32::from_le_bytes(*b) * factor).to_le_bytes()).collect();
                sink(&scaled)
            }),
            Source::Gained { inner, gains } => gains.stream(inner, start, len, sink),
            Source::Quantized { inner, coder } => coder.quantize(inner, start, len, sink),
            Source::Dequantized { inner, coder } => coder.dequantize(inner, start, len, sink),
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
