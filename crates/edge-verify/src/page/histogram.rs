//! Where the values of the worst layers lie: a small chart for each, with the range of the candidate's integers.

use edge_spec::{LayerHistogram, Report};
use serde::Serialize;

/// A chart's inner corners in its own units.
const LEFT: f64 = 4.0;
const RIGHT: f64 = 316.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 104.0;

#[derive(Serialize)]
pub(super) struct Bars<'a> {
    layer: &'a LayerHistogram,
    /// Corners of the two outlines.
    reference: Vec<Point>,
    candidate: Vec<Point>,
    stretches: Vec<Bar>,
    /// Where the integers' range begins and ends.
    ends: Vec<End>,
    /// The values at the ends of the axis.
    axis: [String; 2],
    /// The part of the range that the values span.
    used: Option<String>,
}

#[derive(Serialize)]
struct Point {
    x: f64,
    y: f64,
}

/// What the pointer rests on.
#[derive(Serialize)]
struct Bar {
    x: f64,
    width: f64,
    title: String,
}

#[derive(Serialize)]
struct End {
    x: f64,
    title: String,
}

/// The charts.
pub(super) fn histograms(report: &Report) -> Vec<Bars<'_>> {
    report.profile.iter().flat_map(|profile| &profile.histograms).map(chart).collect()
}

fn chart(layer: &LayerHistogram) -> Bars<'_> {
    let [low, high] = layer.span;
    // The axis has the values and the range, whichever is wider.
    let [start, end] = layer.range.map_or(layer.span, |[l, h]| [l.min(low), h.max(high)]);
    let x = |value: f64| round(LEFT + (RIGHT - LEFT) * (value - start) / (end - start));
    let counts = layer.reference.iter().chain(&layer.candidate);
    let most = f64::from(counts.copied().max().unwrap_or(1).max(1)).sqrt();
    // By the root, so that the few at the ends are seen.
    let y = |count: u32| round(BOTTOM - (BOTTOM - TOP) * f64::from(count).sqrt() / most);
    let border = |bar: usize| low + (high - low) * number(bar) / number(layer.reference.len());
    let outline = |counts: &[u32]| {
        let tops = counts
            .iter()
            .enumerate()
            .flat_map(|(bar, count)| [bar, bar + 1].map(|border_at| Point { x: x(border(border_at)), y: y(*count) }));
        let ends = [0, counts.len()].map(|bar| Point { x: x(border(bar)), y: BOTTOM });
        let [first, last] = ends;
        std::iter::once(first).chain(tops).chain([last]).collect()
    };
    let both = layer.reference.iter().zip(&layer.candidate).enumerate();
    let bar = |(bar, (reference, candidate)): (usize, (&u32, &u32))| {
        let [from, to] = [border(bar), border(bar + 1)];
        let title = format!("{} to {}: reference {reference}, candidate {candidate}", short(from), short(to));
        Bar { x: x(from), width: round(x(to) - x(from)).max(0.1), title }
    };
    let ends = layer.range.into_iter().flatten();
    Bars {
        layer,
        reference: outline(&layer.reference),
        candidate: outline(&layer.candidate),
        stretches: both.map(bar).collect(),
        ends: ends.map(|v| End { x: x(v), title: format!("the integers end at {}", short(v)) }).collect(),
        axis: [start, end].map(short),
        used: layer.range.map(|[l, h]| super::percent((high.min(h) - low.max(l)).max(0.0) / (h - l))),
    }
}

/// To three significant digits.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    rounded.to_string()
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a number of bars")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_values_and_range() {
        let layer = LayerHistogram {
            component: "unet".into(),
            step: Some(1),
            node: "conv_in".into(),
            sqnr_db: 20.0,
            span: [-1.0, 1.0],
            range: Some([-2.0, 0.5]),
            reference: vec![4, 0],
            candidate: vec![1, 16],
        };
        let chart = chart(&layer);
        assert_eq!(chart.axis, ["-2", "1"]);
        assert_eq!(chart.used.as_deref(), Some("60.00 %"));
        let ends: Vec<_> = chart.ends.iter().map(|end| end.x).collect();
        assert_eq!(ends, [4.0, 264.0]);
        let heights: Vec<_> = chart.candidate.iter().map(|p| p.y).collect();
        assert_eq!(heights, [104.0, 80.0, 80.0, 8.0, 8.0, 104.0]);
        assert_eq!(chart.stretches[1].title, "0 to 1: reference 0, candidate 16");
    }
}
