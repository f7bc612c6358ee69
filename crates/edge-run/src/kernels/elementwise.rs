//! Activations, element by element and in parallel.
//!
//! The names follow ONNX (`Gelu`, `Swish`) and diffusers (`GEGLU`: half of the last axis times the
//! GELU of the other half; `quick_gelu`: CLIP's).

use rayon::prelude::*;

use super::math::{gelu, quick_gelu, silu};
use super::tile::vectorized;
use super::{KernelError, check};

/// Elements of a task.
const TASK: usize = 16 * 1024;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x / 2 * (1 + erf(x / sqrt 2))`.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

/// Applies an activation in place.
pub(crate) fn activate(activation: Activation, x: &mut [f32]) {
    x.par_chunks_mut(TASK).for_each(|x| {
        vectorized!(_simd => match activation {
            Activation::Silu => each(x, silu),
            Activation::Gelu => each(x, gelu),
            Activation::QuickGelu => each(x, quick_gelu),
        });
    });
}

/// The steps of a quantized tensor: multiples of a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Steps {
    /// Distance of two steps.
    pub(crate) scale: f32,
    /// The least step; an integer below 2^22, as is the greatest.
    pub(crate) low: f32,
    /// The greatest step.
    pub(crate) high: f32,
}

/// Added to and taken from a number below 2^22, it leaves that number rounded to an integer, ties to even, and 0
/// without a sign.
const ROUND: f32 = 12_582_912.0;

/// Puts every number to its nearest step, ties to the even one; NaN becomes the least.
pub(crate) fn fake_quantize(steps: Steps, x: &mut [f32]) {
    let Steps { scale, low, high } = steps;
    x.par_chunks_mut(TASK).for_each(|x| {
        vectorized!(_simd => each(x, |v| (((v / scale).max(low).min(high) + ROUND) - ROUND) * scale));
    });
}

/// Maps every element.
#[inline(always)]
fn each(x: &mut [f32], map: impl Fn(f32) -> f32) {
    for value in x {
        *value = map(*value);
    }
}

/// `y = a * gelu(b)`, where each row of `x` is `a` and then `b`, both `width` long.
pub(crate) fn geglu(x: &[f32], width: usize, y: &mut [f32]) -> Result<(), KernelError> {
    check("input of a GEGLU", 2 * y.len(), x.len())?;
    check("output of a GEGLU left over", 0, y.len().checked_rem(width).unwrap_or(y.len()))?;
    if width == 0 {
        return Ok(());
    }
    let rows = (TASK / width).max(1);
    y.par_chunks_mut(rows * width).zip(x.par_chunks(2 * rows * width)).for_each(|(y, x)| {
        vectorized!(_simd => {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
                let (a, b) = x.split_at(width);
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = a * gelu(*b);
                }
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, on_pools};

    #[test]
    fn activations_agree_with_their_twins() {
        let x: Vec<f32> = numbers(1, 40_001).iter().map(|x| x * 6.0).collect();
        let run = |activation| {
            on_pools(|| {
                let mut y = x.clone();
                activate(activation, &mut y);
                y
            })
        };
        let want = |map: fn(f64) -> f64| x.iter().map(|x| map(f64::from(*x))).collect::<Vec<f64>>();
        assert_close(&run(Activation::Silu), &want(|x| x / (1.0 + (-x).exp())));
        assert_close(&run(Activation::QuickGelu), &want(|x| x / (1.0 + (-1.702 * x).exp())));
    }

    #[test]
    fn geglu_multiplies_by_the_gelu_of_the_second_half() {
        let (rows, width) = (37, 1001);
        let x = numbers(2, rows * 2 * width);
        let got = on_pools(|| {
            let mut y = vec![f32::NAN; rows * width];
            geglu(&x, width, &mut y).unwrap();
            y
        });
        let mut gates = x.clone();
        activate(Activation::Gelu, &mut gates);
        let want = (0..rows * width).map(|i| {
            let at = i / width * 2 * width + i % width;
            f64::from(x[at]) * f64::from(gates[at + width])
        });
        assert_close(&got, &want.collect::<Vec<f64>>());
    }
}
