//! The interval of values that integers stand for, and the integers that stand for it best.

use edge_ir::encoding::limits;
use edge_ir::{DType, Encoding};
use serde::{Deserialize, Serialize};

/// An interval of finite values. `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least value.
    pub min: f32,
    /// The greatest value.
    pub max: f32,
}

impl Range {
    /// The least and the greatest of these numbers, or `None` if there are none, or one is not finite.
    pub fn of(numbers: &[f32]) -> Option<Self> {
        let finite = !numbers.is_empty() && numbers.iter().all(|x| x.is_finite());
        let fold = |first, pick: fn(f32, f32) -> f32| numbers.iter().fold(first, |a, b| pick(a, *b));
        finite.then(|| Self { min: fold(f32::INFINITY, f32::min), max: fold(f32::NEG_INFINITY, f32::max) })
    }

    /// The smallest interval with both in it.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The interval with this share of itself more on either side; zero stays the end of one that ends there.
    #[must_use]
    pub fn widened(self, share: f32) -> Self {
        let more = share * (self.max - self.min);
        let (below, above) = (if self.min < 0.0 { more } else { 0.0 }, if self.max > 0.0 { more } else { 0.0 });
        Self { min: self.min - below, max: self.max + above }
    }

    /// The encoding of all values in the interval, and of 0: with a zero point for unsigned types, symmetric for signed
    /// ones.
    pub fn encode(self, dtype: DType) -> Encoding {
        let (low, high) = limits(dtype).unwrap_or((0, 255));
        let (min, max) = (f64::from(self.min.min(0.0)), f64::from(self.max.max(0.0)));
        if low < 0 {
            return Encoding::per_tensor(dtype, positive(max.max(-min) / f64::from(high)), 0);
        }
        let step = (max - min) / f64::from(high);
        #[expect(clippy::cast_possible_truncation, reason = "an integer between the limits")]
        let zero_point = if step > 0.0 { (-min / step).round_ties_even() as i32 } else { low };
        Encoding::per_tensor(dtype, positive(step), zero_point.clamp(low, high))
    }
}

/// A scale: for an interval of nothing but 0, one that stands for it.
#[expect(clippy::cast_possible_truncation, reason = "rounded once")]
pub(crate) fn positive(scale: f64) -> f32 {
    let scale = scale as f32;
    if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: (f32, f32), dtype: DType, scale: f32, zero_point: i32) {
        let encoding = Range { min: range.0, max: range.1 }.encode(dtype);
        assert_eq!((encoding.scales[0], encoding.zero_points[0]), (scale, zero_point));
    }

    #[test]
    fn zero_is_always_a_step() {
        check((0.0, 255.0), DType::Uint8, 1.0, 0);
        check((-1.0, 1.0), DType::Uint8, 2.0 / 255.0, 128);
        check((10.0, 65_535.0), DType::Uint16, 1.0, 0);
        check((-65_535.0, -1.0), DType::Uint16, 1.0, 65_535);
        check((-3.0, 32_767.0), DType::Int16, 1.0, 0);
        check((-254.0, 3.0), DType::Int8, 2.0, 0);
        check((0.0, 0.0), DType::Uint16, 1.0, 0);
        check((0.0, 0.0), DType::Int8, 1.0, 0);
    }

    #[test]
    fn a_wider_range_keeps_its_end_at_zero() {
        let wider = |min, max| Range { min, max }.widened(0.25);
        assert_eq!(wider(-1.0, 3.0), Range { min: -2.0, max: 4.0 });
        assert_eq!(wider(0.0, 4.0), Range { min: 0.0, max: 5.0 });
        assert_eq!(wider(-4.0, 0.0), Range { min: -5.0, max: 0.0 });
        assert_eq!(wider(0.0, 0.0), Range { min: 0.0, max: 0.0 });
    }

    #[test]
    fn numbers_that_are_not_finite_have_no_range() {
        assert_eq!(Range::of(&[1.0, -2.0, 0.5]), Some(Range { min: -2.0, max: 1.0 }));
        assert_eq!(Range::of(&[1.0, f32::NAN]), None);
        assert_eq!(Range::of(&[]), None);
    }
}
