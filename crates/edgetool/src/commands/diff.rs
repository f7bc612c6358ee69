//! `edgetool inspect --diff`: what is different between two models.

use std::collections::BTreeSet;

use anyhow::Result;
use edge_ir::{Checked, Graph, Stats};
use serde_json::{Value, json};

use super::inspect::{object, scaled};
use crate::cli::Format;
use crate::report;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-inspect-diff/v1";

type Graphs = [(String, Checked<Graph>)];

/// Shows the counts that differ, graph by graph. Two single graphs are compared whatever their names.
pub(super) fn diff(before: &Graphs, after: &Graphs, format: Format) -> Result<()> {
    let find = |graphs: &'_ Graphs, name: &str| graphs.iter().position(|(n, _)| n == name);
    let mut pairs: Vec<(Option<usize>, Option<usize>)> = match (before, after) {
        ([_], [_]) => vec![(Some(0), Some(0))],
        _ => before.iter().enumerate().map(|(i, (name, _))| (Some(i), find(after, name))).collect(),
    };
    let matched: BTreeSet<usize> = pairs.iter().filter_map(|p| p.1).collect();
    pairs.extend((0..after.len()).filter(|i| !matched.contains(i)).map(|i| (None, Some(i))));
    let pair = |(a, b): (Option<usize>, Option<usize>)| (a.map(|i| &before[i]), b.map(|i| &after[i]));
    let pairs = pairs.into_iter().map(pair);
    match format {
        Format::Json => {
            let side = |graph: Option<&(String, Checked<Graph>)>| graph.map_or(Value::Null, |(n, g)| object(n, g));
            let components: Vec<Value> = pairs.map(|(a, b)| json!({"before": side(a), "after": side(b)})).collect();
            report::data(serde_json::to_string_pretty(&json!({"schema": SCHEMA, "components": components}))?)
        }
        Format::Text => {
            for (a, b) in pairs {
                let name = a.or(b).map_or("", |(name, _)| name.as_str());
                report::data(text(name, a.map(|a| &*a.1), b.map(|b| &*b.1)))?;
            }
            Ok(())
        }
    }
}

fn text(name: &str, before: Option<&Graph>, after: Option<&Graph>) -> String {
    let side = |graph: Option<&Graph>| graph.map(edge_ir::stats).unwrap_or_default();
    let (a, b) = (side(before), side(after));
    let head = match (before, after) {
        (None, _) => format!("{name}, only in the second"),
        (_, None) => format!("{name}, only in the first"),
        _ => name.to_owned(),
    };
    let count = |stats: &Stats, op: &&str| stats.operators.get(op).copied().unwrap_or(0) as u64;
    let nodes = |stats: &Stats| stats.operators.values().sum::<usize>() as u64;
    let mut rows: Vec<(String, u64, u64, f64, &str)> = vec![
        ("parameters".into(), a.parameters, b.parameters, 1000.0, ""),
        ("weights".into(), a.weight_bytes, b.weight_bytes, 1024.0, "B"),
        ("MACs".into(), a.macs, b.macs, 1000.0, ""),
        ("activations".into(), a.peak_activation_bytes, b.peak_activation_bytes, 1024.0, "B"),
        ("nodes".into(), nodes(&a), nodes(&b), 1e18, ""),
    ];
    let operators: BTreeSet<&str> = a.operators.keys().chain(b.operators.keys()).copied().collect();
    rows.extend(operators.iter().map(|op| (format!("  {op}"), count(&a, op), count(&b, op), 1e18, "")));
    let line = |(what, x, y, base, unit): &(String, u64, u64, f64, &str)| {
        let change = if y >= x { format!("+{}", y - x) } else { format!("-{}", x - y) };
        format!("  {what:<25} {:>9} -> {:>9}  {change}", scaled(*x, *base, unit), scaled(*y, *base, unit))
    };
    let lines = rows.iter().filter(|row| row.1 != row.2).map(line);
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { format!("{head}: the same counts") } else { format!("{head}\n{}", lines.join("\n")) }
}
