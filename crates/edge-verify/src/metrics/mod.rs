//! Measures of the difference between what two models make.
//!
//! Sums run in one order in `f64`, and every measure is rounded to `DIGITS`, so that a report is the same on every
//! number of threads.

pub mod conditioning;
pub mod pictures;
pub mod tensors;

/// What a ratio in dB is called where there is no error, and where it is above.
pub const MOST_DB: f64 = 200.0;

/// Significant digits of a measure.
const DIGITS: i32 = 6;

/// A ratio of two powers in dB, within [`MOST_DB`] on both sides. No error is the best there is; not a number, the worst.
pub(crate) fn decibels(signal: f64, error: f64) -> f64 {
    if error == 0.0 {
        return MOST_DB;
    }
    let ratio = 10.0 * (signal / error).log10();
    if ratio.is_nan() { -MOST_DB } else { rounded(ratio.clamp(-MOST_DB, MOST_DB)) }
}

/// To six significant digits.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // Through text: the only way in which the result is the nearest number to the decimal one.
    let places = usize::try_from(DIGITS - 1).unwrap_or_default();
    format!("{value:.places$e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_the_best_and_no_number_the_worst() {
        assert_eq!(decibels(100.0, 1.0).to_bits(), 20.0_f64.to_bits());
        assert_eq!(decibels(1.0, 0.0).to_bits(), MOST_DB.to_bits());
        assert_eq!(decibels(0.0, 1.0).to_bits(), (-MOST_DB).to_bits());
        assert_eq!(decibels(f64::NAN, f64::NAN).to_bits(), (-MOST_DB).to_bits());
        assert_eq!(rounded(1.234_567_89).to_bits(), 1.234_57_f64.to_bits());
        assert_eq!(rounded(-0.000_012_345_67).to_bits(), (-0.000_012_345_7_f64).to_bits());
    }
}
