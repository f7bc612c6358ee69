//! The chart of the page: a point for each layer, or for each tensor where no layers were compared.

use edge_spec::{Report, Verdict};
use serde::Serialize;

/// The chart's inner corners in its own units.
const LEFT: f64 = 44.0;
const RIGHT: f64 = 990.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 290.0;
/// What the axis spans at most, in dB.
const HIGHEST: i32 = 160;
/// From one line of the grid to the next, in dB.
const GRID: i32 = 20;

#[derive(Serialize)]
pub(super) struct Chart {
    what: &'static str,
    lines: Vec<Line>,
    edges: Vec<Edge>,
    points: Vec<Point>,
    radius: f64,
}

#[derive(Serialize)]
struct Line {
    y: f64,
    label: i32,
}

/// Where a component or a step begins.
#[derive(Serialize)]
struct Edge {
    x: f64,
    y: f64,
    label: String,
}

#[derive(Serialize)]
struct Point {
    x: f64,
    y: f64,
    title: String,
    bad: bool,
}

/// A row of what is shown.
struct Row {
    group: String,
    title: String,
    db: f64,
    bad: bool,
}

/// The chart; none if there is nothing to show.
pub(super) fn chart(report: &Report) -> Option<Chart> {
    let (what, rows) = match &report.profile {
        Some(profile) if !profile.layers.is_empty() => ("layer", layers(report)),
        _ => ("tensor", tensors(report)),
    };
    if rows.is_empty() {
        return None;
    }
    let last = number(rows.len().max(2) - 1);
    let at = |index: usize| round(LEFT + (RIGHT - LEFT) * number(index) / last);
    let mut edges: Vec<Edge> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if index == 0 || rows[index - 1].group != row.group {
            // Labels of groups that lie close together stand at two heights.
            let y = if edges.len().is_multiple_of(2) { 304.0 } else { 316.0 };
            edges.push(Edge { x: at(index), y, label: row.group.clone() });
        }
    }
    Some(Chart {
        what,
        lines: (0..=HIGHEST / GRID).map(|i| Line { y: height(f64::from(i * GRID)), label: i * GRID }).collect(),
        edges,
        radius: if rows.len() > 400 { 2.0 } else { 3.5 },
        points: rows
            .into_iter()
            .enumerate()
            .map(|(index, row)| Point { x: at(index), y: height(row.db), title: row.title, bad: row.bad })
            .collect(),
    })
}

fn layers(report: &Report) -> Vec<Row> {
    let profile = report.profile.iter();
    let culprit = report.profile.as_ref().and_then(|p| p.culprit.as_ref());
    let row = |layer: &edge_spec::Layer| {
        let step = layer.step.map_or_else(String::new, |step| format!(", step {step}"));
        Row {
            group: group(&layer.component, layer.step),
            title: format!("{} ({}), {}{step}: {} dB", layer.node, layer.op, layer.component, layer.sqnr_db),
            db: layer.sqnr_db,
            bad: culprit == Some(layer),
        }
    };
    profile.flat_map(|profile| &profile.layers).map(row).collect()
}

fn tensors(report: &Report) -> Vec<Row> {
    let failed = |component: &str| {
        let mut checks = report.checks.iter().filter(|c| c.component == component);
        checks.any(|check| check.verdict == Verdict::Fail)
    };
    let row = |tensor: &edge_spec::Comparison| {
        let step = tensor.step.map_or_else(String::new, |step| format!(", step {step}"));
        Row {
            group: group(&tensor.component, tensor.step),
            title: format!("{}, prompt {}{step}: {} dB", tensor.tensor, tensor.prompt, tensor.sqnr_db),
            db: tensor.sqnr_db,
            bad: failed(&tensor.component),
        }
    };
    report.tensors.iter().map(row).collect()
}

fn group(component: &str, step: Option<usize>) -> String {
    step.map_or_else(|| component.to_owned(), |step| format!("{component} {step}"))
}

fn height(db: f64) -> f64 {
    let highest = f64::from(HIGHEST);
    round(BOTTOM - (BOTTOM - TOP) * db.clamp(0.0, highest) / highest)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a number of layers")]
fn number(count: usize) -> f64 {
    count as f64
}
