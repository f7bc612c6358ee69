//! Counts of values over bins that do not depend on the values.
//!
//! A bin holds the numbers whose sign, exponent and first [`MANTISSA`] bits of the mantissa are the same: it is no wider
//! than 1/64 of its values. No range has to be known before counting, and counts of two parts of the data add up to the
//! counts of the whole.

use std::collections::BTreeMap;

/// Bits of the mantissa that tell bins apart.
const MANTISSA: u32 = 6;

/// Bits of an `f32` that a bin does not look at.
const DROPPED: u32 = 23 - MANTISSA;

/// Bins of the numbers of one sign, with those of infinity and NaN.
const BINS: usize = 1 << (31 - DROPPED);

/// Bins below this one hold finite numbers.
const FINITE: usize = 0xff << MANTISSA;

/// Bins of the numbers of one sign and exponent.
const PAGE: usize = 1 << MANTISSA;

/// How many values fell into each bin.
///
/// Bins are numbered in the order of their values: `0` begins at zero, `-1` ends there. Both zeros are in bin `0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Counts of [`PAGE`] bins, by the number of the first one over [`PAGE`]. None is without values.
    pages: BTreeMap<i16, Box<[u64; PAGE]>>,
}

impl Histogram {
    /// Counts the finite ones of `values`, of which there are less than 2^32; returns how many are not finite.
    pub fn count(&mut self, values: &[f32]) -> u64 {
        let mut lost = 0;
        let mut table = vec![0_u32; 2 * BINS];
        tally(&mut table, values);
        for (index, counts) in table.as_chunks::<PAGE>().0.iter().enumerate() {
            if counts.iter().fold(0, |any, count| any | count) == 0 {
                continue;
            }
            match page(index) {
                Some(number) => {
                    let known = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE]));
                    let add = |(sum, count): (&mut u64, &u32)| *sum += u64::from(*count);
                    // Below zero, bins stand in the order opposite to that of their magnitudes.
                    if number < 0 {
                        known.iter_mut().rev().zip(counts).for_each(add);
                    } else {
                        known.iter_mut().zip(counts).for_each(add);
                    }
                }
                None => lost += counts.iter().map(|count| u64::from(*count)).sum::<u64>(),
            }
        }
        lost
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (number, counts) in &other.pages {
            let known = self.pages.entry(*number).or_insert_with(|| Box::new([0; PAGE]));
            known.iter_mut().zip(&**counts).for_each(|(sum, count)| *sum += count);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.pages.values().flat_map(|counts| counts.iter()).sum()
    }

    /// Bins that are not empty, in order, and what fell into them.
    fn bins(&self) -> impl DoubleEndedIterator<Item = (i16, u64)> {
        let bins = self.pages.iter().flat_map(|(page, counts)| {
            let first = page << MANTISSA;
            (0..1 << MANTISSA).zip(**counts).map(move |(place, count): (i16, u64)| (first + place, count))
        });
        bins.filter(|(_, count)| *count > 0)
    }

    /// Least and greatest value that a bin holds, as an interval, and the number of values in it, in the order of the
    /// values.
    pub fn intervals(&self) -> impl DoubleEndedIterator<Item = ([f64; 2], u64)> {
        self.bins().map(|(bin, count)| (interval(bin), count))
    }

    /// Runs of neighbouring bins that are not empty: the first one's number, and the counts.
    pub(super) fn runs(&self) -> Vec<(i16, Vec<u64>)> {
        let mut runs: Vec<(i16, Vec<u64>)> = Vec::new();
        let mut next = None;
        for (bin, count) in self.bins() {
            match runs.last_mut() {
                Some((_, counts)) if next == Some(bin) => counts.push(count),
                _ => runs.push((bin, vec![count])),
            }
            next = bin.checked_add(1);
        }
        runs
    }

    /// The histogram of [`Histogram::runs`]; `None` if they are not such runs.
    pub(super) fn of_runs(runs: &[(i16, Vec<u64>)]) -> Option<Self> {
        let mut pages: BTreeMap<i16, Box<[u64; PAGE]>> = BTreeMap::new();
        let mut last = None;
        for (first, counts) in runs {
            for (offset, count) in counts.iter().enumerate() {
                let bin = first.checked_add(i16::try_from(offset).ok()?)?;
                let known = usize::from(if bin < 0 { (-1 - bin).unsigned_abs() } else { bin.unsigned_abs() }) < FINITE;
                if *count == 0 || !known || last.is_some_and(|last| last >= bin) {
                    return None;
                }
                last = Some(bin);
                let page = pages.entry(bin >> MANTISSA).or_insert_with(|| Box::new([0; PAGE]));
                page[usize::from(bin.cast_unsigned()) % PAGE] = *count;
            }
        }
        Some(Self { pages })
    }
}

/// Adds values to counts by their first bits.
fn tally(table: &mut [u32], values: &[f32]) {
    // The compiler sees that no index is outside.
    let Some(table) = table.first_chunk_mut::<{ 2 * BINS }>() else { return };
    for value in values {
        // Adding zero makes the negative zero a positive one.
        table[((value + 0.0).to_bits() >> DROPPED) as usize] += 1;
    }
}

/// The number of the page at a place of a table by bits; `None` for what is not finite.
fn page(index: usize) -> Option<i16> {
    let magnitude = index % (BINS / PAGE);
    let number = i16::try_from(magnitude).ok().filter(|_| magnitude < FINITE / PAGE)?;
    Some(if index < BINS / PAGE { number } else { -1 - number })
}

fn interval(bin: i16) -> [f64; 2] {
    let edge = |magnitude: u16| f64::from(f32::from_bits(u32::from(magnitude) << DROPPED).min(f32::MAX));
    if bin < 0 {
        let magnitude = (-1 - bin).unsigned_abs();
        [-edge(magnitude + 1), -edge(magnitude)]
    } else {
        [edge(bin.unsigned_abs()), edge(bin.unsigned_abs() + 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.count(values), 0);
        histogram
    }

    #[test]
    fn every_value_lies_in_its_interval() {
        for value in [0.0, -0.0, 1.0, -1.0, 1.01, -1.99, 3e-39, -3e-39, f32::MAX, f32::MIN, f32::MIN_POSITIVE] {
            let found: Vec<_> = of(&[value]).intervals().collect();
            let [([low, high], 1)] = found[..] else { panic!("{value}: {found:?}") };
            let value = f64::from(value);
            assert!(low <= value && value <= high, "{value} in {low} to {high}");
            assert!((high - low) <= value.abs().max(f64::from(f32::MIN_POSITIVE)) / 64.0, "{low} to {high}");
        }
    }

    #[test]
    fn bins_stand_in_the_order_of_values() {
        let histogram = of(&[-3.0, 2.0, -0.5, 0.0, 0.25, 2.001, -0.0]);
        let counts: Vec<u64> = histogram.intervals().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 2, 1, 2]);
        let edges: Vec<f64> = histogram.intervals().flat_map(|(edges, _)| edges).collect();
        assert!(edges.is_sorted(), "{edges:?}");
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.count(&[f32::NAN, 1.0, f32::INFINITY, -f32::NAN, f32::NEG_INFINITY]), 4);
        assert_eq!(histogram.total(), 1);
    }

    #[test]
    fn runs_hold_all_and_nothing_else_is_taken_for_runs() {
        let histogram = of(&[-3.0, -3.01, -3.1, 0.0, 1e-30, 1.0, 1.0]);
        assert_eq!(Histogram::of_runs(&histogram.runs()), Some(histogram));
        for broken in [
            vec![(0, vec![1, 0])],
            vec![(0, vec![1, 1]), (1, vec![1])],
            vec![(i16::MAX, vec![1])],
            vec![(i16::MIN, vec![1])],
            vec![(i16::MAX, vec![1, 1])],
        ] {
            assert_eq!(Histogram::of_runs(&broken), None, "{broken:?}");
        }
    }
}
