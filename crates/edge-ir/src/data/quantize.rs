//! Views that quantize `float32` numbers, or give the numbers that integers stand for, while they stream.

use std::sync::Arc;

use super::numbers::f32s;
use super::{CHUNK, Data, Source, transform};
use crate::encoding::{Encoding, limits, pack, unpack};
use crate::{DType, Error};

/// Numbers that are quantized at a time, which are even: few enough to stay in the processor's cache.
const PART: usize = 1 << 14;

/// An encoding, and the shape of the tensor that has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Coder {
    encoding: Encoding,
    shape: Vec<usize>,
}

impl Data {
    /// The integers that stand for the `float32` numbers of a tensor of this shape; `None` if the encoding is for
    /// another shape, or for integers of 32 bits.
    pub fn quantize(&self, shape: &[usize], encoding: Encoding) -> Option<Self> {
        let coder = Coder::new(shape, encoding).filter(|c| c.encoding.dtype != DType::Int32)?;
        let fits = self.len() == DType::Float32.bytes(coder.elements());
        fits.then(|| Self(Source::Quantized { inner: Arc::new(self.clone()), coder: Arc::new(coder) }))
    }

    /// The `float32` numbers that the integers of a tensor of this shape stand for; `None` if the encoding is for
    /// another shape.
    pub fn dequantize(&self, shape: &[usize], encoding: Encoding) -> Option<Self> {
        let coder = Coder::new(shape, encoding)?;
        let fits = self.len() == coder.encoding.dtype.bytes(coder.elements());
        fits.then(|| Self(Source::Dequantized { inner: Arc::new(self.clone()), coder: Arc::new(coder) }))
    }
}

impl Coder {
    fn new(shape: &[usize], encoding: Encoding) -> Option<Self> {
        let scales: usize = encoding.granularity.scale_shape(shape)?.iter().product();
        let fits =
            limits(encoding.dtype).is_some() && scales == encoding.scales.len() && scales == encoding.zero_points.len();
        fits.then(|| Self { encoding, shape: shape.to_vec() })
    }

    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().map(|d| *d as u64).product()
    }

    /// Bytes of the integers.
    pub(super) fn packed_len(&self) -> u64 {
        self.encoding.dtype.bytes(self.elements())
    }

    /// The elements that `len` bytes of integers from `start` on hold.
    fn within(&self, start: u64, len: u64) -> (u64, u64) {
        let per_pair = self.encoding.dtype.bytes(2);
        let first = start * 2 / per_pair;
        (first, (len * 2 / per_pair).min(self.elements() - first))
    }

    /// Streams the integers of `inner`'s numbers.
    pub(super) fn quantize(
        &self,
        inner: &Data,
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (first, count) = self.within(start, len);
        let mut at = transform::range(first, 0).start;
        let end = at + transform::range(0, count).end;
        let (mut q, mut out) = (Vec::new(), Vec::new());
        // A view may hand on a part with an odd number of elements, whose last has no partner yet.
        let mut left: Option<f32> = None;
        inner.stream_range(4 * first, 4 * count, &mut |chunk| {
            out.clear();
            let numbers = match (f32s(chunk), left.take()) {
                (numbers, None) => numbers,
                (numbers, Some(left)) => [&[left][..], &numbers].concat().into(),
            };
            for part in numbers.chunks(PART) {
                let whole = if at + part.len() < end { part.len() & !1 } else { part.len() };
                q.resize(whole, 0);
                self.encoding.quantize(&self.shape, at, &part[..whole], &mut q);
                pack(&q, self.encoding.dtype, &mut out);
                at += whole;
                left = part.get(whole).copied();
            }
            sink(&out)
        })
    }

    /// Streams the numbers of `inner`'s integers.
    pub(super) fn dequantize(
        &self,
        inner: &Data,
        start: u64,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let dtype = self.encoding.dtype;
        // From the last whole byte on: half a byte may precede what is asked for.
        let first = (start / 4) & !1;
        let mut skip = transform::range(start / 4 - first, 0).start;
        let mut left = transform::range(0, len / 4).end;
        let begin = dtype.bytes(first);
        let bytes = dtype.bytes(start / 4 + len / 4) - begin;
        let mut at = transform::range(first, 0).start;
        inner.stream_range(begin, bytes, &mut |chunk| {
            for part in chunk.chunks(CHUNK / 4) {
                let held = transform::range(0, part.len() as u64 * 2 / dtype.bytes(2)).end;
                let q = unpack(part, dtype, held);
                let take = (held - skip).min(left);
                let mut numbers = vec![0.0; take];
                self.encoding.dequantize(&self.shape, at + skip, &q[skip..skip + take], &mut numbers);
                sink(&numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
                (at, left, skip) = (at + held, left - take, 0);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Granularity;

    fn streamed(data: &Data, start: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        data.stream_range(start, len, &mut |chunk| {
            out.extend_from_slice(chunk);
            Ok(())
        })
        .expect("memory");
        out
    }

    #[test]
    fn numbers_come_back_to_half_a_step() {
        let numbers: Vec<f32> =
            (0..700_000_i32).map(|i| f32::from(i16::try_from(i % 401).expect("small")) - 200.0).collect();
        let data = Data::f32s(&numbers);
        let shape = [7, 100_000];
        for dtype in [DType::Int4, DType::Int8, DType::Int16] {
            let (_, high) = limits(dtype).expect("integers");
            let scale = 200.0 / f32::from(i16::try_from(high).expect("small"));
            let encoding = Encoding::symmetric(dtype, Granularity::Axis(0), vec![scale; 7]);
            let q = data.quantize(&shape, encoding.clone()).expect("a view");
            assert_eq!(streamed(&q, 0, q.len()).len() as u64, dtype.bytes(700_000));
            let back = q.dequantize(&shape, encoding).expect("a view");
            let worst = numbers.iter().zip(back.to_f32s()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 0.5001 * scale, "{dtype}: {worst}");
        }
    }

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        // Rows of five of a matrix of seven columns: parts with an odd number of elements.
        let numbers: Vec<f32> = (0..63_u8).map(f32::from).collect();
        let rows = Data::f32s(&numbers).slice(&[9, 7], 1, 1..6, 4).expect("columns");
        let blocks = Granularity::Blocks { axis: 1, size: 2 };
        let scales: Vec<f32> = (0..27_u8).map(|i| f32::from(i) + 4.0).collect();
        let encoding = Encoding::symmetric(DType::Int4, blocks, scales);
        let q = rows.quantize(&[9, 5], encoding.clone()).expect("a view");
        let whole = streamed(&q, 0, q.len());
        assert_eq!(whole.len(), 23);
        for start in 0..23 {
            assert_eq!(streamed(&q, start, 23 - start), whole[transform::range(start, 23 - start)]);
        }
        let back = q.dequantize(&[9, 5], encoding).expect("a view");
        let all = back.bytes();
        for start in 0..45 {
            for len in 0..45 - start {
                assert_eq!(streamed(&back, 4 * start, 4 * len), all[transform::range(4 * start, 4 * len)]);
            }
        }
        assert!(rows.quantize(&[9, 4], Encoding::per_tensor(DType::Int8, 1.0, 0)).is_none());
    }
}
