//! The scales of weights: symmetric, one for each output channel or for each block of its inputs.
//!
//! Where it pays, a scale is smaller than the greatest weight asks for: the few weights that are cut then cost less than
//! the finer steps of the others gain. The error that decides is the mean square.

#![expect(clippy::inline_always, reason = "vector code must be inlined where its instructions are enabled")]

use edge_ir::encoding::limits;
use edge_ir::{DType, Data, Encoding, Granularity, TensorType};
use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

use crate::range::positive;

/// How a weight is to be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightScheme {
    /// Type of the integers; signed.
    pub dtype: DType,
    /// The axis of output channels: 0, or 1 of a matrix.
    pub axis: usize,
    /// Inputs that share a scale; all of a channel if absent.
    pub block: Option<usize>,
}

/// The fraction of the greatest weight by which candidates for a cut differ, and how many there are, by bits.
const CUTS: &[(DType, f32, u8)] = &[(DType::Int4, 0.03, 24), (DType::Int8, 0.04, 12)];

/// Numbers of neighbouring channels that are read at a time, but for a channel with more.
const TOGETHER: usize = 1 << 16;

/// Candidates that may be worse than the best before the search ends.
const PATIENCE: u8 = 3;

/// Neighbouring weights whose greatest magnitude is kept, to find those beyond a range.
const PART: usize = 64;

/// From so many weights on, those of 8 bits within a range are not looked at for each candidate: what rounding costs them
/// goes with the square of the scale, but for chance, and a [`SAMPLE`] says how much it is.
const MANY: usize = 4096;

/// Weights of a sample, at least.
const SAMPLE: usize = 1024;

/// Sums that run side by side, in the lanes of vectors.
const LANES: usize = 16;

/// What the sums of squared errors of two sizes of steps differ by chance: the standard deviation, for one weight.
const CHANCE: f64 = 1.265;

/// The encoding of a `float32` weight, whose largest numbers may be `cut`; `None` if it has numbers that are not finite,
/// or the scheme does not fit it.
///
/// Memory use is that of a few channels for each thread, or of the weight, if channels are not its first axis.
pub(crate) fn encode(data: &Data, ty: &TensorType, scheme: WeightScheme, cut: bool) -> Option<Encoding> {
    let channels = *ty.shape.get(scheme.axis)?;
    let depth = usize::try_from(ty.elements()).ok()? / channels.max(1);
    if scheme.axis > 0 && ty.shape.len() != 2 {
        return None;
    }
    let transposed = match scheme.axis {
        0 => None,
        _ => Some(Data::owned(data.transpose(depth, channels, 4)?.bytes().into_owned())),
    };
    let rows = transposed.as_ref().unwrap_or(data);
    let per = (TOGETHER / depth.max(1)).max(1);
    let some = |first: usize| {
        let range = first..channels.min(first + per);
        let scales = |channel: &[f32]| {
            let parts = channel.chunks(scheme.block.unwrap_or(depth).max(1));
            parts.map(|part| scale(part, scheme.dtype, cut)).collect::<Option<Vec<f32>>>()
        };
        rows.slice(&[channels, depth], 0, range.clone(), 4)?.look(|numbers| {
            let fits = numbers.len() == range.len() * depth;
            fits.then(|| numbers.chunks(depth.max(1)).map(scales).collect::<Option<Vec<_>>>()).flatten()
        })
    };
    let firsts: Vec<usize> = (0..channels).step_by(per).collect();
    let scales = firsts.into_par_iter().map(some).collect::<Option<Vec<_>>>()?.concat();
    let Some(size) = scheme.block else {
        return Some(Encoding::symmetric(scheme.dtype, Granularity::Axis(scheme.axis), scales.concat()));
    };
    let axis = 1 - scheme.axis;
    let in_order = match scheme.axis {
        0 => scales.concat(),
        _ => (0..depth.div_ceil(size)).flat_map(|block| scales.iter().map(move |s| s[block])).collect(),
    };
    Some(Encoding::symmetric(scheme.dtype, Granularity::Blocks { axis, size }, in_order))
}

/// The best scale for weights that share it; `None` if one is not finite.
fn scale(weights: &[f32], dtype: DType, cut: bool) -> Option<f32> {
    let (low, high) = ends(dtype);
    let level = Level::new();
    let greatest_of = greatest(level, weights);
    let greatest = greatest_of.iter().copied().max_by(f32::total_cmp).unwrap_or(0.0);
    if !greatest.is_finite() {
        return None;
    }
    let whole = positive(f64::from(greatest) / f64::from(high));
    let Some((_, step, count)) = CUTS.iter().find(|row| row.0 == dtype).filter(|_| cut && greatest > 0.0) else {
        return Some(whole);
    };
    // Finer steps gain no more than where errors are spread evenly over a step, but for chance.
    let even = number(weights) * f64::from(whole).powi(2) / 12.0;
    let gain = |share: f32| even * (1.0 - f64::from(share).powi(2) + CHANCE / number(weights).sqrt());
    let known = (dtype == DType::Int8 && weights.len() >= MANY).then(|| of_sample(level, weights, whole, dtype));
    let error_of = |share: f32, cut: f64| match known {
        Some(rounding) => rounding * f64::from(share).powi(2) + cut,
        None => error(level, weights, whole * share, dtype),
    };
    let mut best = (whole, None);
    let mut worse = 0;
    for share in (1..*count).map(|k| 1.0 - step * f32::from(k)) {
        let scale = whole * share;
        worse += 1;
        let cut = beyond(level, weights, &greatest_of, -low * scale);
        if cut < gain(share) {
            let so_far = best.1.get_or_insert_with(|| error_of(1.0, 0.0));
            let error = error_of(share, cut);
            if error < *so_far {
                best = (scale, Some(error));
                worse = 0;
            }
        }
        // What a cut costs grows faster than what finer steps gain.
        if worse == PATIENCE {
            break;
        }
    }
    Some(best.0)
}

/// [`error`], as the parts of a sample have it.
fn of_sample(level: Level, weights: &[f32], scale: f32, dtype: DType) -> f64 {
    let parts = || weights.chunks(PART).step_by((weights.len() / SAMPLE).max(1));
    let seen: f64 = parts().map(number).sum();
    number(weights) / seen * parts().map(|part| error(level, part, scale, dtype)).sum::<f64>()
}

/// How many weights these are, for calculating.
fn number(weights: &[f32]) -> f64 {
    f64::from(u32::try_from(weights.len()).unwrap_or(u32::MAX))
}

/// The least and the greatest integer.
#[expect(clippy::cast_precision_loss, reason = "16 bits at most")]
fn ends(dtype: DType) -> (f32, f32) {
    limits(dtype).map_or((-128.0, 127.0), |(low, high)| (low as f32, high as f32))
}

/// What weights lose, at least, that are beyond the range: the sum of squared distances to its further end. Parts of
/// [`PART`] weights have these greatest magnitudes.
fn beyond(level: Level, weights: &[f32], greatest_of: &[f32], end: f32) -> f64 {
    dispatch!(level, simd => simd.vectorize(
        #[inline(always)]
        || {
            let mut total = 0.0;
            for (part, greatest) in weights.chunks(PART).zip(greatest_of) {
                if *greatest > end {
                    total += f64::from(above(part, end));
                }
            }
            total
        },
    ))
}

/// The sum of squares of what magnitudes of a part of weights have above `end`.
#[inline(always)]
fn above(part: &[f32], end: f32) -> f32 {
    let square = |w: f32| {
        let more = (w.abs() - end).max(0.0);
        more * more
    };
    lanes(part, square).iter().sum()
}

/// The sums of what `of` makes of weights, each in the lane of its place.
#[inline(always)]
fn lanes(weights: &[f32], of: impl Fn(f32) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = weights.as_chunks::<LANES>();
    for w in whole {
        for (lane, w) in lanes.iter_mut().zip(w) {
            *lane += of(*w);
        }
    }
    for (lane, w) in lanes.iter_mut().zip(rest) {
        *lane += of(*w);
    }
    lanes
}

/// The greatest magnitude of each part of [`PART`] weights; not finite if one is not.
fn greatest(level: Level, weights: &[f32]) -> Vec<f32> {
    dispatch!(level, simd => simd.vectorize(
        #[inline(always)]
        || {
            let mut greatest = Vec::with_capacity(weights.len().div_ceil(PART));
            for part in weights.chunks(PART) {
                // Magnitudes are in the order of their bits, with what is not finite behind all others.
                let mut most = 0;
                for w in part {
                    most = w.abs().to_bits().max(most);
                }
                greatest.push(f32::from_bits(most));
            }
            greatest
        },
    ))
}

/// The sum of squared differences of weights and their steps, in an order that depends on their number alone.
fn error(level: Level, weights: &[f32], scale: f32, dtype: DType) -> f64 {
    dispatch!(level, simd => simd.vectorize(
        #[inline(always)]
        || squares(weights, scale, dtype),
    ))
}

/// [`error`], with the instructions of the function that it becomes a part of.
#[inline(always)]
fn squares(weights: &[f32], scale: f32, dtype: DType) -> f64 {
    const ROUND: f32 = 12_582_912.0;
    let (low, high) = ends(dtype);
    // Off by a rounding from the quotient that decides what is stored, which is nothing to a mean.
    let inverse = scale.recip();
    let square = |w: f32| {
        let steps = w * inverse;
        let d = steps - ((steps.max(low).min(high) + ROUND) - ROUND);
        d * d
    };
    // Partial sums stay short, so that float32 holds them.
    let parts = weights.chunks(64 * LANES).map(|part| lanes(part, square).iter().map(|v| f64::from(*v)).sum::<f64>());
    let total: f64 = parts.sum();
    total * f64::from(scale).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT8: WeightScheme = WeightScheme { dtype: DType::Int8, axis: 0, block: None };

    fn matrix(shape: [usize; 2], numbers: &[f32], scheme: WeightScheme) -> Option<Encoding> {
        encode(&Data::f32s(numbers), &TensorType::new(DType::Float32, shape), scheme, true)
    }

    /// The root of the mean squared error.
    fn rms(encoding: &Encoding, shape: &[usize], numbers: &[f32]) -> f64 {
        let data = Data::f32s(numbers);
        let back = data.quantize(shape, encoding.clone()).and_then(|q| q.dequantize(shape, encoding.clone()));
        let squares =
            back.expect("views").to_f32s().iter().zip(numbers).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        (squares / f64::from(u32::try_from(numbers.len()).expect("few"))).sqrt()
    }

    /// Numbers that look normally distributed.
    fn normal(count: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).expect("16 bits")) / 65_536.0 - 0.5
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum()).collect()
    }

    #[test]
    fn channels_have_their_own_scales() {
        let encoding = matrix([2, 2], &[1.0, -127.0, 0.5, 0.25], INT8).expect("finite");
        assert!((encoding.scales[0] - 1.0).abs() < 0.05 && encoding.scales[1] < 0.01, "{:?}", encoding.scales);
        let columns = WeightScheme { axis: 1, ..INT8 };
        let encoding = matrix([2, 2], &[1.0, -127.0, 0.5, 0.25], columns).expect("finite");
        assert_eq!(encoding.granularity, Granularity::Axis(1));
        assert!(encoding.scales[0] < 0.01 && encoding.scales[1] > 0.9, "{:?}", encoding.scales);
        assert!(matrix([1, 2], &[f32::NAN, 1.0], INT8).is_none());
    }

    #[test]
    fn a_cut_is_better_than_none_and_blocks_are_better_than_channels() {
        let numbers = normal(4096);
        let shape = [4, 1024];
        let greatest = |c: &[f32]| c.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
        let plain = |dtype, high: f32| {
            let scales = numbers.chunks(1024).map(|c| greatest(c) / high).collect();
            rms(&Encoding::symmetric(dtype, Granularity::Axis(0), scales), &shape, &numbers)
        };
        let of = |dtype, block| {
            let scheme = WeightScheme { dtype, axis: 0, block };
            rms(&matrix(shape, &numbers, scheme).expect("finite"), &shape, &numbers)
        };
        let cut = of(DType::Int4, None);
        assert!(cut < 0.95 * plain(DType::Int4, 7.0), "{cut}");
        assert!(of(DType::Int4, Some(32)) < 0.85 * cut);
        assert!(of(DType::Int8, None) <= plain(DType::Int8, 127.0));
        assert!(of(DType::Int16, None) <= plain(DType::Int16, 32_767.0) * 1.000_1);
    }

    /// The least error of all candidates, and that of the scale that is chosen.
    fn best_and_found(weights: &[f32], dtype: DType) -> (f64, f64) {
        let (_, step, count) = CUTS.iter().find(|row| row.0 == dtype).expect("a row");
        let of = |scale| error(Level::new(), weights, scale, dtype);
        let whole = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / ends(dtype).1;
        let best = (0..*count).map(|k| of(whole * (1.0 - step * f32::from(k)))).fold(f64::INFINITY, f64::min);
        (best, of(scale(weights, dtype, true).expect("finite")))
    }

    /// Weights that are spread in four ways.
    fn spreads(count: usize) -> [Vec<f32>; 4] {
        let even = normal(count);
        let of = |f: fn(usize, f32) -> f32| even.iter().enumerate().map(|(k, w)| f(k, *w)).collect();
        [
            of(|_, w| w),
            of(|_, w| w * w * w),
            of(|k, w| if k % 3 == 0 { w } else { 0.0 }),
            of(|k, w| if k == 7 { 12.0 } else { w }),
        ]
    }

    #[test]
    fn candidates_that_are_not_looked_at_would_not_have_won() {
        for weights in spreads(2880) {
            for (dtype, ..) in CUTS {
                let (best, found) = best_and_found(&weights, *dtype);
                assert!(found <= 1.01 * best, "{dtype}: {found} for {best}");
            }
        }
    }

    #[test]
    fn what_a_sample_says_of_many_weights_is_right_but_for_chance() {
        for weights in spreads(2 * MANY) {
            let rounded = f64::from(u32::try_from(weights.iter().filter(|w| **w != 0.0).count()).expect("few"));
            let (best, found) = best_and_found(&weights, DType::Int8);
            assert!(found <= (1.0 + 3.0 * CHANCE / rounded.sqrt()) * best, "{found} for {best}");
        }
    }

    #[test]
    fn blocks_of_columns_lie_as_onnx_has_them() {
        // Four inputs of two channels, in blocks of two: the first block is small, the second large.
        let numbers = [0.1, 1.0, 0.1, 1.0, 10.0, 100.0, 10.0, 100.0];
        let scheme = WeightScheme { dtype: DType::Int8, axis: 1, block: Some(2) };
        let encoding = matrix([4, 2], &numbers, scheme).expect("finite");
        assert_eq!(encoding.granularity, Granularity::Blocks { axis: 0, size: 2 });
        let expected = [0.1, 1.0, 10.0, 100.0].map(|v| v / 127.0);
        assert!(encoding.scales.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.05 * b), "{:?}", encoding.scales);
    }
}
