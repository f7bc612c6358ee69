//! Linear quantization as ONNX defines it: integers that stand for numbers.
//!
//! `q = saturate(round(x / scale) + zero_point)`, ties to even, and `x = (q - zero_point) * scale`
//! (<https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>, `onnx__DequantizeLinear.html`). The division is one, not
//! a product with a reciprocal; NaN becomes the least integer, as in onnxruntime.

#![expect(clippy::inline_always, reason = "vector code must be inlined where its instructions are enabled")]

use std::sync::Arc;

use fearless_simd::{Level, Simd, dispatch};

use crate::{DType, Data, TensorType};

/// How the integers of a tensor are to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    /// Type of the integers.
    pub dtype: DType,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// The scales, in the order of ONNX's tensor of scales; positive.
    pub scales: Arc<[f32]>,
    /// The integers that stand for 0, as many as scales.
    pub zero_points: Arc<[i32]>,
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All.
    Tensor,
    /// Those of one index of this axis.
    Axis(usize),
    /// So many along an axis; the last block may be shorter.
    Blocks {
        /// The axis that is cut.
        axis: usize,
        /// Elements of a block.
        size: usize,
    },
}

/// Elements in a row, and the place of their scales: `first` for all, or `first`, `first + 1`, ... for one after the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    len: usize,
    first: usize,
    each: bool,
}

/// Added to and taken from a number below 2^22, it leaves that number rounded to an integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The least and the greatest integer of a type that stands for numbers, or `None` for others.
pub fn limits(dtype: DType) -> Option<(i32, i32)> {
    Some(match dtype {
        DType::Int4 => (-8, 7),
        DType::Uint4 => (0, 15),
        DType::Int8 => (-128, 127),
        DType::Uint8 => (0, 255),
        DType::Int16 => (-32_768, 32_767),
        DType::Uint16 => (0, 65_535),
        DType::Int32 => (i32::MIN, i32::MAX),
        _ => return None,
    })
}

impl Granularity {
    /// The shape of the tensor of scales for a tensor of this shape; `None` if it has no such axis, or no block.
    pub fn scale_shape(self, shape: &[usize]) -> Option<Vec<usize>> {
        match self {
            Self::Tensor => Some(Vec::new()),
            Self::Axis(axis) => Some(vec![*shape.get(axis)?]),
            Self::Blocks { axis, size } => {
                let mut scales = shape.to_vec();
                let dim = scales.get_mut(axis).filter(|_| size > 0)?;
                *dim = dim.div_ceil(size);
                Some(scales)
            }
        }
    }

    /// Calls `f` with all runs of the elements `start..start + len` of a tensor of this shape.
    fn runs(self, shape: &[usize], start: usize, len: usize, f: &mut dyn FnMut(Run)) {
        let end = start + len;
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>().max(1);
        let mut at = start;
        while at < end {
            let (within, whole, first, each) = match self {
                Self::Tensor => (0, end - at, 0, false),
                Self::Axis(axis) if inner(axis) == 1 => (at % shape[axis], shape[axis], at % shape[axis], true),
                Self::Axis(axis) => {
                    let inner = inner(axis);
                    (at % inner, inner, at / inner % shape[axis], false)
                }
                Self::Blocks { axis, size } => {
                    let (inner, dim) = (inner(axis), shape[axis]);
                    let (outer, index) = (at / inner / dim, at / inner % dim);
                    let row = outer * dim.div_ceil(size) + index / size;
                    if inner == 1 {
                        (index % size, size.min(dim - index / size * size), row, false)
                    } else {
                        (at % inner, inner, row * inner + at % inner, true)
                    }
                }
            };
            let run = (whole - within).min(end - at);
            f(Run { len: run, first, each });
            at += run;
        }
    }
}

impl Encoding {
    /// One scale for a whole tensor.
    pub fn per_tensor(dtype: DType, scale: f32, zero_point: i32) -> Self {
        Self { dtype, granularity: Granularity::Tensor, scales: [scale].into(), zero_points: [zero_point].into() }
    }

    /// Scales with zero points of 0.
    pub fn symmetric(dtype: DType, granularity: Granularity, scales: Vec<f32>) -> Self {
        let zero_points = vec![0; scales.len()].into();
        Self { dtype, granularity, scales: scales.into(), zero_points }
    }

    /// What a node of `QuantizeLinear` or `DequantizeLinear` says, from its constants; `None` if they are not of one
    /// shape, a type is not one of integers, or the shape is not one of scales for a tensor of `shape`.
    pub fn of(
        shape: &[usize],
        axis: usize,
        block: usize,
        scale: (&TensorType, &Data),
        zero: Option<(&TensorType, &Data)>,
        dtype: DType,
    ) -> Option<Self> {
        let granularity = match (block, &scale.0.shape[..]) {
            (0, [] | [1]) => Granularity::Tensor,
            (0, _) => Granularity::Axis(axis),
            (size, _) => Granularity::Blocks { axis, size },
        };
        let scales: Arc<[f32]> = scale.1.to_f32s().into();
        let zero_points = match zero {
            Some((ty, data)) if ty.dtype == dtype => unpack(&data.bytes(), dtype, usize::try_from(ty.elements()).ok()?),
            Some(_) => return None,
            None => vec![0; scales.len()],
        };
        let expected: usize = granularity.scale_shape(shape)?.iter().product();
        let fits = limits(dtype).is_some() && scales.len() == expected && zero_points.len() == expected;
        fits.then(|| Self { dtype, granularity, scales, zero_points: zero_points.into() })
    }

    /// Whether all zero points are 0.
    pub fn is_symmetric(&self) -> bool {
        self.zero_points.iter().all(|z| *z == 0)
    }

    /// The integers of `x`, the elements from `start` on of a tensor of this shape.
    pub fn quantize(&self, shape: &[usize], start: usize, x: &[f32], q: &mut [i32]) {
        let (least, most) = limits(self.dtype).unwrap_or_default();
        let cut = |x: f32, scale: f32, zero: i32| integer(x, scale, small(least - zero), small(most - zero)) + zero;
        let level = Level::new();
        let mut at = 0;
        self.granularity.runs(shape, start, x.len(), &mut |Run { len, first, each }| {
            let (x, q) = (&x[at..at + len], &mut q[at..at + len]);
            let count = if each { len } else { 1 };
            let (scales, zeros) = (&self.scales[first..first + count], &self.zero_points[first..first + count]);
            dispatch!(level, simd => simd.vectorize(
                #[inline(always)]
                || {
                    if let (false, [scale], [zero]) = (each, scales, zeros) {
                        x.iter().zip(q).for_each(|(x, q)| *q = cut(*x, *scale, *zero));
                    } else {
                        let codes = scales.iter().zip(zeros);
                        x.iter().zip(q).zip(codes).for_each(|((x, q), (scale, zero))| *q = cut(*x, *scale, *zero));
                    }
                },
            ));
            at += len;
        });
    }

    /// The numbers that the integers `q` stand for, the elements from `start` on of a tensor of this shape.
    pub fn dequantize(&self, shape: &[usize], start: usize, q: &[i32], x: &mut [f32]) {
        let mut at = 0;
        self.granularity.runs(shape, start, q.len(), &mut |Run { len, first, each }| {
            for (k, (q, x)) in q[at..at + len].iter().zip(&mut x[at..at + len]).enumerate() {
                let index = if each { first + k } else { first };
                *x = number(*q, self.scales[index], self.zero_points[index]);
            }
            at += len;
        });
    }
}

/// `round(x / scale)`, ties to even, cut to `low..=high`, which are integers below 2^22.
#[expect(clippy::cast_possible_wrap, reason = "a difference of bits")]
#[inline(always)]
fn integer(x: f32, scale: f32, low: f32, high: f32) -> i32 {
    let rounded = (x / scale).max(low).min(high) + ROUND;
    (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// What an integer stands for.
#[expect(clippy::cast_precision_loss, reason = "integers of 32 bits are rounded, as the operator says")]
fn number(q: i32, scale: f32, zero: i32) -> f32 {
    q.wrapping_sub(zero) as f32 * scale
}

/// A difference of two integers of 16 bits at most.
#[expect(clippy::cast_precision_loss, reason = "below 2^22")]
#[inline(always)]
fn small(limit: i32) -> f32 {
    limit as f32
}

/// Integers as a tensor's bytes: little-endian, two of 4 bits in a byte, the first in the low half.
pub fn pack(q: &[i32], dtype: DType, out: &mut Vec<u8>) {
    match dtype.bytes(2) {
        1 => out.extend(q.chunks(2).map(|pair| (low(pair[0]) & 15) | (low(*pair.get(1).unwrap_or(&0)) << 4))),
        2 => {
            let start = out.len();
            out.resize(start + q.len(), 0);
            let out = &mut out[start..];
            dispatch!(Level::new(), simd => simd.vectorize(
                #[inline(always)]
                || out.iter_mut().zip(q).for_each(|(byte, v)| *byte = low(*v)),
            ));
        }
        4 => out.extend(q.iter().flat_map(|v| [low(*v), low(*v >> 8)])),
        _ => out.extend(q.iter().flat_map(|v| v.to_le_bytes())),
    }
}

/// The reverse of [`pack`], for so many elements.
pub fn unpack(bytes: &[u8], dtype: DType, elements: usize) -> Vec<i32> {
    let four = |shift: u32| move |b: &u8| (*b >> shift) & 15;
    let signed = |v: u8| i32::from(v ^ 8) - 8;
    match dtype {
        DType::Int4 | DType::Uint4 => {
            let both = bytes.iter().flat_map(|b| [four(0)(b), four(4)(b)]).take(elements);
            both.map(|v| if dtype == DType::Int4 { signed(v) } else { i32::from(v) }).collect()
        }
        DType::Int8 => bytes.iter().map(|b| i32::from(b.cast_signed())).collect(),
        DType::Uint8 => bytes.iter().map(|b| i32::from(*b)).collect(),
        DType::Int16 => bytes.as_chunks().0.iter().map(|b| i32::from(i16::from_le_bytes(*b))).collect(),
        DType::Uint16 => bytes.as_chunks().0.iter().map(|b| i32::from(u16::from_le_bytes(*b))).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
    }
}

#[inline(always)]
fn low(v: i32) -> u8 {
    v.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: &Encoding, shape: &[usize], x: &[f32], expect: &[i32]) {
        for start in 0..x.len() {
            let mut q = vec![0; x.len() - start];
            encoding.quantize(shape, start, &x[start..], &mut q);
            assert_eq!(q, expect[start..]);
        }
    }

    #[test]
    fn ties_are_even_and_ends_are_cut() {
        let x = [0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.1];
        let cut = |low, high| [0, 2, 2, 0, -2, high, low, high, low, low, 0];
        for dtype in [DType::Int4, DType::Int8, DType::Int16] {
            let (low, high) = limits(dtype).expect("integers");
            check(&Encoding::per_tensor(dtype, 1.0, 0), &[11], &x, &cut(low, high));
        }
        check(&Encoding::per_tensor(DType::Uint16, 0.5, 65_535), &[3], &[1.0, -1.25, -40_000.0], &[65_535, 65_533, 0]);
        check(&Encoding::per_tensor(DType::Uint4, 2.0, 3), &[3], &[1.0, 3.0, 100.0], &[3, 5, 15]);
    }

    #[test]
    fn every_granularity_finds_its_scales() {
        let x: Vec<f32> = (0..12).map(|i| 128.0 * small(i)).collect();
        let powers = |n: usize| (0..n).map(|i| f32::from(1_u8 << i)).collect::<Vec<_>>();
        let with = |granularity, n| Encoding::symmetric(DType::Int16, granularity, powers(n));
        let ints = |scale: [u8; 12]| (0_i32..12).zip(scale).map(|(i, s)| 128 * i / i32::from(s)).collect::<Vec<_>>();
        check(&with(Granularity::Axis(0), 2), &[2, 3, 2], &x, &ints([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]));
        check(&with(Granularity::Axis(1), 3), &[2, 3, 2], &x, &ints([1, 1, 2, 2, 4, 4, 1, 1, 2, 2, 4, 4]));
        check(&with(Granularity::Axis(2), 2), &[2, 3, 2], &x, &ints([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]));
        let blocks = |axis| Granularity::Blocks { axis, size: 2 };
        // Five in blocks of two: the last block is short.
        check(&with(blocks(1), 6), &[2, 5], &x[..10], &ints([1, 1, 2, 2, 4, 8, 8, 16, 16, 32, 1, 1])[..10]);
        // Scales of shape [2,2,2].
        check(&with(blocks(1), 8), &[2, 3, 2], &x, &ints([1, 2, 1, 2, 4, 8, 16, 32, 16, 32, 64, 128]));
    }

    #[test]
    fn integers_are_packed() {
        let mut out = Vec::new();
        pack(&[-1, 7, -8], DType::Int4, &mut out);
        assert_eq!(out, [0x7f, 0x08]);
        assert_eq!(unpack(&out, DType::Int4, 3), [-1, 7, -8]);
        for (dtype, q) in [
            (DType::Uint4, [0, 15, 8]),
            (DType::Int8, [-128, 127, -1]),
            (DType::Uint8, [0, 255, 128]),
            (DType::Int16, [-32_768, 32_767, -1]),
            (DType::Uint16, [0, 65_535, 256]),
            (DType::Int32, [i32::MIN, i32::MAX, -1]),
        ] {
            let mut out = Vec::new();
            pack(&q, dtype, &mut out);
            assert_eq!((out.len() as u64, unpack(&out, dtype, 3)), (dtype.bytes(3), q.to_vec()));
        }
    }
}
