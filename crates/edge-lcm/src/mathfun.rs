//! Logarithm, sine and cosine as `PyTorch`'s vectorised noise kernel computes them.
//!
//! The kernel calls `log256_ps` and `sincos256_ps` of `aten/src/ATen/native/cpu/avx_mathfun.h`, a vector
//! rewriting of the Cephes library by Julien Pommier and Giovanni Garberoglio (zlib licence). Its builds
//! let the compiler contract a product and the sum that follows into one fused multiply-add, so the
//! rounding of every line below is part of the result: `mul_add` stands exactly where a fused
//! instruction stands there.
//!
//! Only the range that Box-Muller needs is covered: the logarithm of a positive normal number, and
//! sine and cosine of an angle that is not negative.

// Cephes' own constants: √½; the coefficients of the logarithm's polynomial, highest power first;
// ln 2 in two parts; π/4 in three parts; the coefficients for sine and cosine.
const SQRT_HALF: f32 = 0.707_106_77;
const LOG_P: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_7e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];
const LN2_LOW: f32 = -2.121_944_4e-4;
const LN2_HIGH: f32 = 0.693_359_4;
const FOUR_OVER_PI: f32 = 1.273_239_5;
const MINUS_QUARTER_PI: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
const SIN_P: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
const COS_P: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];

/// Natural logarithm of a positive normal `x`, as `log256_ps`.
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = mantissa · 2^exponent with the mantissa in [0.5, 1).
    let mut mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let mut exponent = exponent_of(bits) + 1.0;
    if mantissa < SQRT_HALF {
        exponent -= 1.0;
        mantissa = (mantissa - 1.0) + mantissa;
    } else {
        mantissa -= 1.0;
    }
    let square = mantissa * mantissa;
    let mut sum = LOG_P[0];
    for p in &LOG_P[1..] {
        sum = sum.mul_add(mantissa, *p);
    }
    sum *= mantissa;
    sum = sum.mul_add(square, exponent * LN2_LOW);
    sum = square.mul_add(-0.5, sum);
    exponent.mul_add(LN2_HIGH, mantissa + sum)
}

/// Sine and cosine of `x` radians, `0 <= x < 8192`, as `sincos256_ps`.
pub(crate) fn sin_cos(x: f32) -> (f32, f32) {
    let octant = (octant_of(x) + 1) & !1;
    let turns = octant_to_f32(octant);
    let mut rest = x;
    for part in MINUS_QUARTER_PI {
        rest = turns.mul_add(part, rest);
    }
    let (small_sin, small_cos) = polynomials(rest);
    let (sin, cos) = if octant & 2 == 0 { (small_sin, small_cos) } else { (small_cos, small_sin) };
    let sin_negative = octant & 4 != 0;
    let cos_negative = octant.wrapping_sub(2) & 4 == 0;
    (signed(sin, sin_negative), signed(cos, cos_negative))
}

/// Sine and cosine within a quarter of π around zero.
fn polynomials(x: f32) -> (f32, f32) {
    let square = x * x;
    let cos = COS_P[0].mul_add(square, COS_P[1]).mul_add(square, COS_P[2]) * square;
    let cos = cos.mul_add(square, -(square * 0.5)) + 1.0;
    let sin = SIN_P[0].mul_add(square, SIN_P[1]).mul_add(square, SIN_P[2]) * square;
    (sin.mul_add(x, x), cos)
}

fn signed(value: f32, negative: bool) -> f32 {
    if negative { -value } else { value }
}

#[expect(clippy::cast_precision_loss, reason = "an exponent has eight bits")]
fn exponent_of(bits: u32) -> f32 {
    (bits >> 23) as f32 - 127.0
}

#[expect(clippy::cast_possible_truncation, reason = "truncation is what the kernel does")]
fn octant_of(x: f32) -> i32 {
    (x * FOUR_OVER_PI) as i32
}

#[expect(clippy::cast_precision_loss, reason = "the octants of angles below 8192 are small integers")]
fn octant_to_f32(octant: i32) -> f32 {
    octant as f32
}

#[cfg(test)]
mod tests {
    use super::{ln, sin_cos};

    #[test]
    fn close_to_the_true_functions() {
        for i in 0..1000_u16 {
            let angle = f32::from(i) * 0.006_283;
            let (sin, cos) = sin_cos(angle);
            let exact = libm::sincos(f64::from(angle));
            assert!((f64::from(sin) - exact.0).abs() < 2e-7, "sine of {angle}");
            assert!((f64::from(cos) - exact.1).abs() < 2e-7, "cosine of {angle}");
            let x = (f32::from(i) + 1.0) / 1000.0;
            assert!((f64::from(ln(x)) - libm::log(f64::from(x))).abs() < 5e-7, "logarithm of {x}");
        }
    }

    #[test]
    fn exact_where_it_matters() {
        assert_eq!(ln(1.0).to_bits(), 0.0_f32.to_bits());
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }
}
