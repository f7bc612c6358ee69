//! Two tensors of one shape: signal to error, angle, greatest error, ranges.

use super::{decibels, rounded};

/// The greatest number that float16 holds.
pub const FLOAT16_MAX: f64 = 65504.0;

/// A tensor of the candidate against the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// `10 log10(sum r^2 / sum (c - r)^2)`, in dB.
    pub sqnr_db: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// The greatest difference of two elements.
    pub max_error: f64,
    /// Of the candidate's alone.
    pub range: Range,
    /// Of the reference's alone.
    pub reference: Range,
}

/// What one tensor's elements span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least element.
    pub min: f64,
    /// The greatest element.
    pub max: f64,
    /// The share of elements that are the least or the greatest.
    pub at_limits: f64,
}

impl Range {
    /// Of the numbers that are finite; nothing spans 0 to 0.
    pub fn of(numbers: &[f32]) -> Self {
        let finite = || numbers.iter().copied().filter(|v| v.is_finite());
        let (min, max) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
        if min > max {
            return Self { min: 0.0, max: 0.0, at_limits: 0.0 };
        }
        let count = finite().filter(|v| v.to_bits() == min.to_bits() || v.to_bits() == max.to_bits()).count();
        Self {
            min: rounded(f64::from(min)),
            max: rounded(f64::from(max)),
            at_limits: rounded(share(count, numbers.len())),
        }
    }

    /// The greatest magnitude as a part of what float16 holds.
    pub fn float16_use(&self) -> f64 {
        rounded(self.min.abs().max(self.max.abs()) / FLOAT16_MAX)
    }
}

/// Compares; `None` if the lengths differ.
pub fn compare(candidate: &[f32], reference: &[f32]) -> Option<Difference> {
    if candidate.len() != reference.len() {
        return None;
    }
    let [mut signal, mut power, mut product, mut error, mut max_error] = [0.0_f64; 5];
    for (c, r) in candidate.iter().zip(reference) {
        let (c, r) = (f64::from(*c), f64::from(*r));
        signal += r * r;
        power += c * c;
        product += c * r;
        error += (c - r) * (c - r);
        // A number that is none is an error without bound.
        let distance = (c - r).abs();
        max_error = if distance.is_nan() { f64::MAX } else { distance.max(max_error) };
    }
    let norms = (signal * power).sqrt();
    let same = signal == 0.0 && power == 0.0;
    let cosine = if same { 1.0 } else { product / norms };
    Some(Difference {
        sqnr_db: decibels(signal, error),
        cosine: if cosine.is_finite() { rounded(cosine) } else { 0.0 },
        max_error: rounded(max_error),
        range: Range::of(candidate),
        reference: Range::of(reference),
    })
}

/// Signal to error alone, in dB; `None` if the lengths differ.
pub fn sqnr_db(candidate: &[f32], reference: &[f32]) -> Option<f64> {
    compare(candidate, reference).map(|d| d.sqnr_db)
}

#[expect(clippy::cast_precision_loss, reason = "a share, shown to six digits")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{found}, expected {expected}");
    }

    #[test]
    fn an_error_of_a_tenth_is_twenty_decibels() {
        let reference = [1.0, -2.0, 3.0, -4.0];
        let found = compare(&reference.map(|v| v * 1.1), &reference).expect("one length");
        close(found.sqnr_db, 20.0);
        close(found.cosine, 1.0);
        close(found.max_error, 0.4);
        close(found.range.min, -4.4);
        close(found.reference.max, 3.0);
        let turned = compare(&[1.0, 0.0], &[0.0, 1.0]).expect("one length");
        close(turned.cosine, 0.0);
        close(turned.sqnr_db, -3.0103);
        assert_eq!(compare(&[1.0], &reference), None);
    }

    #[test]
    fn a_cut_range_has_many_at_its_limits() {
        let numbers: Vec<f32> = (0..100_u8).map(f32::from).collect();
        close(Range::of(&numbers).at_limits, 0.02);
        let cut: Vec<f32> = numbers.iter().map(|v| v.clamp(5.0, 94.0)).collect();
        close(Range::of(&cut).at_limits, 0.12);
        close(Range::of(&[131_008.0, 0.0]).float16_use(), 2.0);
    }

    #[test]
    fn what_is_no_number_is_the_worst_error() {
        let found = compare(&[f32::NAN, 1.0], &[1.0, 1.0]).expect("one length");
        assert!(found.sqnr_db < -100.0 && found.max_error > 1e300 && found.cosine == 0.0, "{found:?}");
    }
}
