//! Group and layer normalization.
//!
//! ONNX `GroupNormalization` <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html> (version
//! 21: scale and bias per channel), also written as `Reshape`, `InstanceNormalization`, `Reshape`,
//! `Mul`, `Add`; and `LayerNormalization` <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>
//! over the last axis. Sums are taken in 16 interleaved `f32` partial sums of short pieces, and the
//! pieces in `f64`; the variance from the differences to the mean.

use rayon::prelude::*;

use super::math::silu;
use super::tile::vectorized;
use super::{KernelError, check};

/// Elements that are summed in `f32`.
const PIECE: usize = 1024;
/// Interleaved partial sums.
const LANES: usize = 16;

/// The shape and constants of a group normalization.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupNormShape {
    /// Channels.
    pub(crate) channels: usize,
    /// Pixels of a channel.
    pub(crate) pixels: usize,
    /// Groups; they divide the channels.
    pub(crate) groups: usize,
    /// Added to the variance.
    pub(crate) epsilon: f32,
    /// Whether `x * sigmoid(x)` follows.
    pub(crate) silu: bool,
}

/// Normalizes `[B, C, H, W]` over the channels of each group and all pixels, then scales by
/// `gamma` `[C]` and adds `beta` `[C]`.
pub(crate) fn group_norm(
    shape: &GroupNormShape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let GroupNormShape { channels, pixels, groups, .. } = *shape;
    check("channels per group left over", 0, channels.checked_rem(groups).unwrap_or(1))?;
    check("input of a group norm left over", 0, x.len() % (channels * pixels).max(1))?;
    check("scale of a group norm", channels, gamma.len())?;
    check("bias of a group norm", channels, beta.len())?;
    check("output of a group norm", x.len(), y.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let size = channels / groups * pixels;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).enumerate().for_each(|(i, (y, x))| {
        let first = i % groups * (channels / groups);
        vectorized!(_simd => group(shape, x, &gamma[first..], &beta[first..], y));
    });
    Ok(())
}

/// One group of one image.
#[inline(always)]
fn group(shape: &GroupNormShape, x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let (mean, scale) = moments(x, shape.epsilon);
    let channels = x.chunks_exact(shape.pixels).zip(y.chunks_exact_mut(shape.pixels));
    for ((x, y), (gamma, beta)) in channels.zip(gamma.iter().zip(beta)) {
        let factor = scale * gamma;
        if shape.silu {
            for (y, x) in y.iter_mut().zip(x) {
                *y = silu((x - mean).mul_add(factor, *beta));
            }
        } else {
            for (y, x) in y.iter_mut().zip(x) {
                *y = (x - mean).mul_add(factor, *beta);
            }
        }
    }
}

/// Normalizes each row of `width` elements, then scales by `gamma` and adds `beta`.
pub(crate) fn layer_norm(
    epsilon: f32,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
) -> Result<(), KernelError> {
    let width = gamma.len();
    check("bias of a layer norm", width, beta.len())?;
    check("input of a layer norm left over", 0, x.len() % width.max(1))?;
    check("output of a layer norm", x.len(), y.len())?;
    if x.is_empty() || width == 0 {
        return Ok(());
    }
    let rows = (16 * PIECE / width).max(1);
    let size = rows * width;
    y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
        vectorized!(_simd => {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                layer(epsilon, x, gamma, beta, y);
            }
        });
    });
    Ok(())
}

/// One row of a layer normalization.
#[inline(always)]
fn layer(epsilon: f32, x: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let (mean, scale) = moments(x, epsilon);
    for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = ((x - mean) * scale).mul_add(*gamma, *beta);
    }
}

/// The mean and one over the standard deviation.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "moments are given as f32")]
fn moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let count = x.len() as f64;
    let mean = (sum(x, |value| value) / count) as f32;
    let variance = sum(x, |value| (value - mean) * (value - mean)) / count;
    (mean, (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32)
}

/// The sum of `map` over all elements.
#[inline(always)]
fn sum(x: &[f32], map: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0_f64;
    for piece in x.chunks(PIECE) {
        let mut lanes = [0.0_f32; LANES];
        let (blocks, rest) = piece.as_chunks::<LANES>();
        for block in blocks {
            for (lane, value) in lanes.iter_mut().zip(block) {
                *lane += map(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += map(*value);
        }
        total += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
    }
    total
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "lengths of small tensors")]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, on_pools};

    /// The mean and one over the standard deviation, in `f64`.
    fn exact(x: &[f32], epsilon: f32) -> (f64, f64) {
        let count = x.len() as f64;
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        (mean, 1.0 / (variance + f64::from(epsilon)).sqrt())
    }

    #[test]
    fn group_norm_agrees_with_its_twin() {
        for (batch, channels, pixels, groups) in [(2, 6, 35, 3), (1, 64, 1033, 32), (1, 4, 1, 1)] {
            for silu in [false, true] {
                let shape = GroupNormShape { channels, pixels, groups, epsilon: 1e-5, silu };
                let x: Vec<f32> = numbers(1, batch * channels * pixels).iter().map(|x| x + 3.0).collect();
                let (gamma, beta) = (numbers(2, channels), numbers(3, channels));
                let got = on_pools(|| {
                    let mut y = vec![f32::NAN; x.len()];
                    group_norm(&shape, &x, &gamma, &beta, &mut y).unwrap();
                    y
                });
                let size = channels / groups * pixels;
                let want = x.iter().enumerate().map(|(i, value)| {
                    let (mean, scale) = exact(&x[i / size * size..][..size], 1e-5);
                    let channel = i / pixels % channels;
                    let y = (f64::from(*value) - mean) * scale * f64::from(gamma[channel]) + f64::from(beta[channel]);
                    if silu { y / (1.0 + (-y).exp()) } else { y }
                });
                assert_close(&got, &want.collect::<Vec<f64>>());
            }
        }
    }

    #[test]
    fn layer_norm_agrees_with_its_twin() {
        for (rows, width) in [(77, 768), (1000, 33), (1, 1), (3, 20_000)] {
            let x = numbers(1, rows * width);
            let (gamma, beta) = (numbers(2, width), numbers(3, width));
            let got = on_pools(|| {
                let mut y = vec![f32::NAN; x.len()];
                layer_norm(1e-5, &x, &gamma, &beta, &mut y).unwrap();
                y
            });
            let want = x.iter().enumerate().map(|(i, value)| {
                let (mean, scale) = exact(&x[i / width * width..][..width], 1e-5);
                (f64::from(*value) - mean) * scale * f64::from(gamma[i % width]) + f64::from(beta[i % width])
            });
            assert_close(&got, &want.collect::<Vec<f64>>());
        }
    }

    #[test]
    fn groups_must_divide_the_channels() {
        let shape = GroupNormShape { channels: 5, pixels: 1, groups: 2, epsilon: 0.0, silu: false };
        let error = group_norm(&shape, &[0.0; 5], &[1.0; 5], &[0.0; 5], &mut [0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "channels per group left over: expected 0, got 1");
    }
}
