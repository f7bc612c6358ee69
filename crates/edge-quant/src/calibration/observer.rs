//! What is kept of one tensor.

use rayon::prelude::*;

use super::Histogram;

/// Numbers that one thread looks through at a time.
const CHUNK: usize = 1 << 17;

/// The least and the greatest value that a tensor had, and how often it had which.
#[derive(Clone, Debug, PartialEq)]
pub struct Observer {
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) not_finite: u64,
    pub(super) histogram: Histogram,
}

impl Default for Observer {
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, not_finite: 0, histogram: Histogram::default() }
    }
}

impl Observer {
    /// Looks at the values that the tensor has in one run. Memory use does not grow with their number.
    pub fn observe(&mut self, values: &[f32]) {
        self.merge(&Self::of(values));
    }

    /// What is to be kept of values, which several threads look through, if they are many.
    pub fn of(values: &[f32]) -> Self {
        if values.len() <= CHUNK {
            return Self::of_few(values);
        }
        values.par_chunks(CHUNK).map(Self::of_few).reduce(Self::default, |mut sum, other| {
            sum.merge(&other);
            sum
        })
    }

    fn of_few(values: &[f32]) -> Self {
        let mut histogram = Histogram::default();
        let not_finite = histogram.count(values);
        let (min, max) = if not_finite == 0 { extremes(values) } else { finite_extremes(values) };
        Self { min: min + 0.0, max: max + 0.0, not_finite, histogram }
    }

    /// Joins what another one saw: the same as having seen the values of both, in any order.
    pub fn merge(&mut self, other: &Self) {
        self.not_finite += other.not_finite;
        self.histogram.merge(&other.histogram);
        self.widen(other.min, other.max);
    }

    /// How many finite values were seen.
    pub fn count(&self) -> u64 {
        self.histogram.total()
    }

    /// How many values were NaN or infinite.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// The least finite value; infinity if there was none.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// The greatest finite value; negative infinity if there was none.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// How often which values were seen.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// Adding zero leaves one zero of the two, whichever came first.
    fn widen(&mut self, min: f32, max: f32) {
        self.min = self.min.min(min) + 0.0;
        self.max = self.max.max(max) + 0.0;
    }
}

/// The least and the greatest of numbers, in lanes that fit vector registers.
fn extremes(values: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (whole, rest) = values.as_chunks::<LANES>();
    for lanes in whole {
        for ((low, high), value) in low.iter_mut().zip(&mut high).zip(lanes) {
            *low = if *value < *low { *value } else { *low };
            *high = if *value > *high { *value } else { *high };
        }
    }
    let low = low.iter().chain(rest).fold(f32::INFINITY, |found, value| found.min(*value));
    let high = high.iter().chain(rest).fold(f32::NEG_INFINITY, |found, value| found.max(*value));
    (low, high)
}

/// The same, of those that are finite.
fn finite_extremes(values: &[f32]) -> (f32, f32) {
    extremes(&values.iter().copied().filter(|value| value.is_finite()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f32]) -> Observer {
        let mut observer = Observer::default();
        observer.observe(values);
        observer
    }

    #[test]
    fn extremes_are_those_of_finite_values() {
        let observer = of(&[1.0, f32::NAN, -2.0, f32::INFINITY]);
        assert_eq!((observer.min(), observer.max(), observer.count(), observer.not_finite()), (-2.0, 1.0, 2, 2));
    }

    #[test]
    fn zero_has_one_sign() {
        assert_eq!(of(&[-0.0, 0.0]).min().to_bits(), 0);
        assert_eq!(of(&[0.0, -0.0]).max().to_bits(), 0);
    }

    #[test]
    fn many_threads_see_what_one_sees() {
        let values: Vec<f32> = (0..300_000_u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
        let seen = alone.install(|| of(&values));
        assert_eq!(many.install(|| of(&values)), seen);
        assert_eq!(seen.count() + seen.not_finite(), 300_000);
        assert!(seen.not_finite() > 0);
    }

    proptest! {
        #[test]
        fn parts_join_to_the_whole_in_any_order(
            parts in prop::collection::vec(prop::collection::vec(any::<f32>(), 0..40), 1..5)
        ) {
            let whole = of(&parts.concat());
            for order in [parts.clone(), parts.iter().rev().cloned().collect()] {
                let mut joined = Observer::default();
                for part in order {
                    joined.merge(&of(&part));
                }
                prop_assert_eq!(&joined, &whole);
                prop_assert_eq!(joined.min().to_bits(), whole.min().to_bits());
                prop_assert_eq!(joined.max().to_bits(), whole.max().to_bits());
            }
        }
    }
}
