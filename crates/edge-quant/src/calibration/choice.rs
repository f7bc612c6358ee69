//! The range of a tensor, from what was seen of it.

use super::{Grid, Method, Observer, mse};
use crate::Range;

impl Observer {
    /// The range that `method` chooses; `None` if no finite value was seen. It lies within the least and the greatest
    /// value, but for [`Method::Mse`], whose range holds zero, and is symmetric if the grid is.
    pub fn range(&self, method: Method, grid: Grid) -> Option<Range> {
        if self.count() == 0 {
            return None;
        }
        Some(match method {
            Method::MinMax => Range { min: self.min, max: self.max },
            Method::Percentile(share) => self.percentile(share),
            Method::Mse => mse::range(self, grid),
        })
    }

    /// Bins are left out from either end as long as they are no more than half of what may be left out.
    fn percentile(&self, share: f64) -> Range {
        #[expect(clippy::cast_precision_loss, reason = "a share of a count needs no last digit")]
        let spare = (100.0 - share) / 200.0 * self.count() as f64;
        let low = self.histogram.intervals().find(beyond(spare)).map_or(f64::NEG_INFINITY, |([low, _], _)| low);
        let high = self.histogram.intervals().rev().find(beyond(spare)).map_or(f64::INFINITY, |([_, high], _)| high);
        let within = |edge: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "edges of bins are f32 numbers")]
            let edge = edge as f32;
            edge.clamp(self.min, self.max)
        };
        Range { min: within(low), max: within(high) }
    }
}

/// Whether the bins up to this one hold more than `spare` values.
fn beyond(spare: f64) -> impl FnMut(&([f64; 2], u64)) -> bool {
    let mut passed = 0;
    move |(_, count)| {
        passed += count;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let passed = passed as f64;
        passed > spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { levels: 256, symmetric: false };

    fn of(values: &[f32]) -> Observer {
        let mut observer = Observer::default();
        observer.observe(values);
        observer
    }

    #[test]
    fn nothing_seen_has_no_range() {
        assert_eq!(Observer::default().range(Method::MinMax, GRID), None);
    }

    #[test]
    fn all_values_lie_between_the_extremes() {
        let range = of(&[0.3, -0.7, 0.1]).range(Method::MinMax, GRID);
        assert_eq!(range, Some(Range { min: -0.7, max: 0.3 }));
    }

    #[test]
    fn a_percentile_leaves_out_as_many_as_it_may_and_no_more() {
        // 1000 values, and two outliers on each side.
        let mut values: Vec<f32> = (0..996_u16).map(|i| f32::from(i) / 996.0 + 1.0).collect();
        values.extend([-50.0, -60.0, 70.0, 80.0]);
        let observer = of(&values);
        let range = |share| observer.range(Method::Percentile(share), GRID).unwrap();
        assert_eq!(range(100.0), Range { min: -60.0, max: 80.0 });
        // 0.2 % are 2 values, one on each side.
        assert!(range(99.8).min > -51.0 && range(99.8).min <= -50.0, "{:?}", range(99.8));
        assert!(range(99.8).max < 71.5 && range(99.8).max >= 70.0, "{:?}", range(99.8));
        assert_eq!(range(99.81), Range { min: -60.0, max: 80.0 });
        assert!(range(99.6).min >= 0.98 && range(99.6).max <= 2.0, "{:?}", range(99.6));
    }
}
