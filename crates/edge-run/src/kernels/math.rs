//! Elementary functions in plain arithmetic, so that loops over them become vector code.
//!
//! All are deterministic: the same bits on every machine, as they use only exactly rounded
//! operations. `exp` reduces its argument as in Cephes (S. Moshier); `erf` uses the two-range
//! polynomials published by N. Juffa.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Below this `exp` is given as zero: its value would not be a normal number.
const EXP_MIN: f32 = -87.336_54;
/// Above this the power of two no longer fits; `exp` stays at its value here, 2.4e38.
const EXP_MAX: f32 = 88.376_26;
/// Adding this to a small number rounds it to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts, the first exact in few bits.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e to the power of `x`, within 2 units in the last place; NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let y = x.clamp(EXP_MIN, EXP_MAX);
    let shifted = y.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, y));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let mantissa = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    let value = mantissa * power;
    if x < EXP_MIN { 0.0 } else { value }
}

/// The error function, within 2 units in the last place.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let far = (-1.728_534_7e-5_f32).mul_add(t, 3.831_971_3e-4);
    let near = (-3.883_964_4e-3_f32).mul_add(t, 2.425_462_2e-2);
    let mut tail = far.mul_add(s, near);
    tail = tail.mul_add(t, -1.067_778_8e-1);
    tail = tail.mul_add(t, -6.348_467e-1);
    tail = tail.mul_add(t, -1.287_175_1e-1);
    tail = tail.mul_add(t, -t);
    let outer = (1.0 - exp(tail)).copysign(x);
    let mut inner = -5.967_617e-4_f32;
    inner = inner.mul_add(s, 4.991_194_2e-3);
    inner = inner.mul_add(s, -2.676_813_5e-2);
    inner = inner.mul_add(s, 1.128_199_2e-1);
    inner = inner.mul_add(s, -3.761_253_4e-1);
    inner = inner.mul_add(s, 1.283_791_7e-1);
    inner = inner.mul_add(x, x);
    if t > 0.927_734_4 { outer } else { inner }
}

/// `x * sigmoid(x)`, also called swish.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x * sigmoid(1.702 x)`, CLIP's approximation of GELU.
#[inline(always)]
pub(super) fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// The exact GELU, `x / 2 * (1 + erf(x / sqrt 2))`.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "small integers; limits are exact")]
mod tests {
    use super::*;

    /// The error function by its Taylor series, good for |x| < 4 in `f64`.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_is_within_two_units() {
        for i in -87_000..88_000 {
            let x = i as f32 * 0.001 + 0.000_37;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 1.5e-7 * want, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_exact_enough() {
        for i in -3900..3900 {
            let x = i as f32 * 0.001;
            let want = erf_series(f64::from(x));
            assert!((f64::from(erf(x)) - want).abs() <= 1.2e-7 * want.abs() + 1e-12, "{x}");
        }
        assert_eq!((erf(9.0), erf(-9.0), erf(f32::INFINITY)), (1.0, -1.0, 1.0));
    }

    #[test]
    fn activations_keep_their_limits() {
        assert_eq!(silu(0.0), 0.0);
        assert!((silu(50.0) - 50.0).abs() < 1e-5 && silu(-100.0).abs() < 1e-30);
        assert_eq!(gelu(40.0), 40.0);
        assert_eq!(gelu(-40.0), 0.0);
        assert!((quick_gelu(1.0) - 0.845_796).abs() < 1e-6);
    }
}
