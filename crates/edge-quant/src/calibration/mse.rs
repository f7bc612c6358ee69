//! The range with the least error of rounding and clipping.
//!
//! Within a bin values are taken to lie evenly, so that a bin's error is an integral that is known in closed form; no
//! value is needed. The error is not convex in the range: it is searched over a fixed list of candidates.

#![expect(clippy::inline_always, reason = "vector code must be inlined where its instructions are enabled")]

use fearless_simd::{Level, Simd, dispatch};
use rayon::prelude::*;

use super::{Grid, Observer};
use crate::Range;

/// Candidates of each search: shares of the full range, in equal steps.
const CANDIDATES: u32 = 128;

/// Searches of the ends in turn. Each starts from the best of the one before.
const ROUNDS: usize = 2;

/// Bins whose errors are summed side by side, whatever the width of the processor's vectors.
const LANES: usize = 8;

/// The best range for the grid. It holds zero.
pub(super) fn range(observer: &Observer, grid: Grid) -> Range {
    let [min, max] = [observer.min, observer.max].map(f64::from);
    let bins = Bins::of(observer, min, max);
    let level = Level::new();
    let error = |range: [f64; 2]| dispatch!(level, simd => bins.error_by(simd, range, grid));
    let shares: Vec<f64> = (1..=CANDIDATES).rev().map(|k| f64::from(k) / f64::from(CANDIDATES)).collect();
    let best = |first: Option<[f64; 2]>, of: &(dyn Fn(f64) -> [f64; 2] + Sync)| {
        let candidates: Vec<[f64; 2]> = first.into_iter().chain(shares.iter().map(|share| of(*share))).collect();
        best(&candidates, &error)
    };
    if grid.symmetric {
        let limit = min.abs().max(max.abs());
        return narrow(best(None, &|share| [-share * limit, share * limit]));
    }
    let (low, high) = (min.min(0.0), max.max(0.0));
    let mut found = best(None, &|share| [share * low, share * high]);
    for _ in 0..ROUNDS {
        let before = found;
        found = best(Some(found), &|share| [share * low, before[1]]);
        let lowered = found;
        found = best(Some(found), &|share| [lowered[0], share * high]);
        if found[1].total_cmp(&lowered[1]).is_eq() {
            // The next search of the lower end would be the same.
            break;
        }
    }
    narrow(found)
}

/// The histogram's bins, cut to the values that were seen. Values lie evenly between the ends of each, and are a share of
/// all. The last are empty.
struct Bins {
    low: Vec<[f64; LANES]>,
    high: Vec<[f64; LANES]>,
    share: Vec<[f64; LANES]>,
}

impl Bins {
    fn of(observer: &Observer, min: f64, max: f64) -> Self {
        let mut bins = Self { low: Vec::new(), high: Vec::new(), share: Vec::new() };
        for (at, (ends, count)) in observer.histogram.intervals().enumerate() {
            if at % LANES == 0 {
                for row in [&mut bins.low, &mut bins.high, &mut bins.share] {
                    row.push([0.0; LANES]);
                }
            }
            let [low, high] = ends.map(|end| end.clamp(min, max));
            bins.low[at / LANES][at % LANES] = low;
            bins.high[at / LANES][at % LANES] = high;
            #[expect(clippy::cast_precision_loss, reason = "a weight needs no last digit")]
            let share = count as f64 / observer.count() as f64;
            bins.share[at / LANES][at % LANES] = share;
        }
        bins
    }

    /// The mean square of the difference between a value and what stands for it.
    #[inline(always)]
    fn error(&self, [low, high]: [f64; 2], grid: Grid) -> f64 {
        let steps = f64::from(grid.levels) - if grid.symmetric { 2.0 } else { 1.0 };
        let step = (high - low) / steps;
        if step <= 0.0 {
            // Everything is zero, or becomes zero.
            return self.sum(square);
        }
        // The grid has zero on it, so its ends are multiples of the step.
        let below = (low / step).round_ties_even();
        let (ends, each) = ([below, below + steps], 1.0 / step);
        step * step * self.sum(|[low, high]| mean([low * each, high * each], ends))
    }

    /// [`Bins::error`], with the processor's widest vectors.
    #[inline(always)]
    fn error_by<S: Simd>(&self, simd: S, range: [f64; 2], grid: Grid) -> f64 {
        simd.vectorize(
            #[inline(always)]
            || self.error(range, grid),
        )
    }

    /// The sum of what bins have, by their shares, in an order that is the same for all vectors.
    #[inline(always)]
    fn sum(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        let mut sums = [0.0; LANES];
        for ((low, high), share) in self.low.iter().zip(&self.high).zip(&self.share) {
            for lane in 0..LANES {
                sums[lane] += share[lane] * of([low[lane], high[lane]]);
            }
        }
        sums.iter().sum()
    }
}

/// The first of the candidates with the least error.
fn best(candidates: &[[f64; 2]], error: &(dyn Fn([f64; 2]) -> f64 + Sync)) -> [f64; 2] {
    let errors: Vec<f64> = candidates.par_iter().with_min_len(8).map(|candidate| error(*candidate)).collect();
    let mut found = ([0.0; 2], f64::INFINITY);
    for (candidate, error) in candidates.iter().zip(errors) {
        if error < found.1 {
            found = (*candidate, error);
        }
    }
    found.0
}

/// The mean square of numbers that lie evenly between two ends.
#[inline(always)]
fn square([a, b]: [f64; 2]) -> f64 {
    (a * a + a * b + b * b) / 3.0
}

/// The mean square error of rounding numbers that lie evenly from `a` to `b` to the integers of `ends`.
#[inline(always)]
fn mean([a, b]: [f64; 2], ends: [f64; 2]) -> f64 {
    // Narrow bins lose digits in the difference of integrals; there the middle stands for all.
    let middle = f64::midpoint(a, b);
    let error = middle - middle.round_ties_even().max(ends[0]).min(ends[1]);
    let evenly = (integral(b, ends) - integral(a, ends)) / (b - a);
    if b - a < 1e-6 { error * error } else { evenly }
}

/// The integral of the square error from 0, which `ends` enclose, to `x`.
#[inline(always)]
fn integral(x: f64, [below, above]: [f64; 2]) -> f64 {
    // A cell of width 1 around an integer has 1/12 in it; the cells at the ends go on beyond it.
    let nearest = x.round_ties_even().max(below).min(above);
    let rest = x - nearest;
    nearest / 12.0 + rest * rest * rest / 3.0
}

#[expect(clippy::cast_possible_truncation, reason = "a range is no more precise")]
fn narrow([min, max]: [f64; 2]) -> Range {
    Range { min: min as f32, max: max as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASYMMETRIC: Grid = Grid { levels: 256, symmetric: false };
    const SYMMETRIC: Grid = Grid { levels: 256, symmetric: true };

    fn of(values: &[f32]) -> Observer {
        let mut observer = Observer::default();
        observer.observe(values);
        observer
    }

    /// Sums of twelve evenly distributed numbers: a bell of deviation 1.
    fn bell(count: usize) -> Vec<f32> {
        let mut state = 1_u64;
        let mut even = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from(u16::try_from(state >> 48).unwrap()) / 65536.0
        };
        (0..count).map(|_| (0..12).map(|_| even()).sum::<f32>() - 6.0).collect()
    }

    /// The same error from the values themselves.
    fn measured(values: &[f32], [low, high]: [f64; 2], grid: Grid) -> f64 {
        let steps = f64::from(grid.levels) - if grid.symmetric { 2.0 } else { 1.0 };
        let step = (high - low) / steps;
        let below = (low / step).round_ties_even();
        let one = |v: &f32| {
            let v = f64::from(*v);
            let q = (v / step).round_ties_even().clamp(below, below + steps) * step;
            (v - q) * (v - q)
        };
        values.iter().map(one).sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap())
    }

    #[test]
    fn the_error_from_bins_is_that_of_the_values() {
        let values = bell(100_000);
        let observer = of(&values);
        let [min, max] = [observer.min, observer.max].map(f64::from);
        let bins = Bins::of(&observer, min, max);
        for grid in [ASYMMETRIC, SYMMETRIC, Grid { levels: 16, symmetric: false }, Grid { levels: 16, symmetric: true }]
        {
            for range in [[-4.0, 4.0], [-2.0, 2.0], [-1.0, 1.0]] {
                let (estimate, truth) = (bins.error(range, grid), measured(&values, range, grid));
                assert!((estimate / truth - 1.0).abs() < 0.02, "{grid:?} {range:?}: {estimate}, not {truth}");
            }
        }
    }

    #[test]
    fn an_outlier_is_clipped_where_that_is_better() {
        let mut values = bell(100_000);
        values.push(60.0);
        let observer = of(&values);
        for grid in [ASYMMETRIC, SYMMETRIC] {
            let range = range(&observer, grid);
            let [chosen, whole] =
                [[range.min, range.max], [-60.0, 60.0]].map(|r| measured(&values, r.map(f64::from), grid));
            assert!(range.max < 58.0 && chosen < 0.7 * whole, "{grid:?}: {range:?} {chosen} {whole}");
        }
    }

    #[test]
    fn few_levels_clip_a_bell_more_than_many() {
        let observer = of(&bell(100_000));
        let at = |levels| range(&observer, Grid { levels, symmetric: true }).max;
        // The best clipping of a normal distribution is near 2.55 deviations for 4 bits and 3.9 for 8.
        assert!((2.3..2.8).contains(&at(16)), "{}", at(16));
        assert!((3.6..4.3).contains(&at(256)), "{}", at(256));
        assert!(at(65536) > 0.98 * observer.max.abs().max(observer.min.abs()));
    }

    #[test]
    fn values_of_one_sign_get_all_levels() {
        let positive: Vec<f32> = bell(10_000).into_iter().map(|v| v.abs() + 1.0).collect();
        let range = range(&of(&positive), ASYMMETRIC);
        assert!(range.min >= 0.0, "{range:?}");
        assert!(range.max > 3.0, "{range:?}");
    }

    #[test]
    fn zeros_alone_have_a_range() {
        assert_eq!(range(&of(&[0.0; 8]), ASYMMETRIC), Range { min: 0.0, max: 0.0 });
        assert_eq!(range(&of(&[0.0; 8]), SYMMETRIC), Range { min: 0.0, max: 0.0 });
    }
}
