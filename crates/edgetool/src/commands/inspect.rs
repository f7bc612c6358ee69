//! `edgetool inspect`: what a model contains and costs.

use std::path::Path;

use anyhow::Result;
use edge_import::Options;
use edge_ir::{Checked, Graph, Stats, ValueId};
use serde_json::{Value, json};

use super::model::Model;
use crate::cli::{Format, Inspect};
use crate::report;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-inspect/v1";

/// Shows all graphs of a path.
pub(crate) fn inspect(args: &Inspect) -> Result<()> {
    let graphs = graphs(&args.path, args.config.as_deref())?;
    if let Some(before) = &args.diff {
        return super::diff::diff(&self::graphs(before, args.config.as_deref())?, &graphs, args.format);
    }
    if args.nodes {
        for (_, graph) in &graphs {
            report::data(edge_ir::dump(graph).trim_end())?;
        }
        return Ok(());
    }
    match args.format {
        Format::Text => graphs.iter().try_for_each(|(name, graph)| report::data(text(name, graph))),
        Format::Json => {
            let components: Vec<Value> = graphs.iter().map(|(name, graph)| object(name, graph)).collect();
            report::data(serde_json::to_string_pretty(&json!({"schema": SCHEMA, "components": components}))?)
        }
    }
}

/// Names and graphs of a path.
type Graphs = Vec<(String, Checked<Graph>)>;

fn graphs(path: &Path, config: Option<&Path>) -> Result<Graphs> {
    if path.extension().is_some_and(|e| e == "onnx") {
        let graph = edge_ir::onnx::read(path)?;
        return Ok(vec![(graph.name.clone(), graph)]);
    }
    let model = Model::open(path, config, Options::default())?;
    model.components().into_iter().map(|name| model.graph(&name).map(|graph| (name, graph))).collect()
}

fn text(name: &str, graph: &Graph) -> String {
    let Stats { operators, parameters, weight_bytes, macs, peak_activation_bytes, peak_node } = edge_ir::stats(graph);
    let ports = |ids: &[ValueId]| {
        ids.iter().map(|id| format!("{} {}", graph.value(*id).name, graph.ty(*id))).collect::<Vec<_>>().join(", ")
    };
    let operators: Vec<String> = operators.iter().map(|(op, n)| format!("{op} {n}")).collect();
    let lines = [
        name.to_owned(),
        format!("  inputs       {}", ports(&graph.inputs)),
        format!("  outputs      {}", ports(&graph.outputs)),
        format!("  parameters   {} ({} of weights)", scaled(parameters, 1000.0, ""), scaled(weight_bytes, 1024.0, "B")),
        format!("  MACs         {}", scaled(macs, 1000.0, "")),
        format!("  activations  {} at the peak, at {peak_node}", scaled(peak_activation_bytes, 1024.0, "B")),
        format!("  nodes        {}: {}", graph.nodes.len(), operators.join(", ")),
    ];
    lines.join("\n")
}

pub(super) fn object(name: &str, graph: &Graph) -> Value {
    let stats = edge_ir::stats(graph);
    let port = |id: &ValueId| json!({"name": graph.value(*id).name, "dtype": graph.ty(*id).dtype.name(), "shape": graph.ty(*id).shape});
    json!({
        "name": name,
        "inputs": graph.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": graph.outputs.iter().map(port).collect::<Vec<_>>(),
        "parameters": stats.parameters,
        "weight_bytes": stats.weight_bytes,
        "macs": stats.macs,
        "peak_activation_bytes": stats.peak_activation_bytes,
        "peak_node": stats.peak_node,
        "operators": stats.operators,
    })
}

/// A count in its largest unit that leaves a whole number.
#[expect(clippy::cast_precision_loss, reason = "shown to three digits")]
pub(super) fn scaled(count: u64, base: f64, unit: &str) -> String {
    let prefixes: &[&str] = if unit == "B" { &["", "Ki", "Mi", "Gi", "Ti"] } else { &["", "k", "M", "G", "T"] };
    let mut number = count as f64;
    let mut index = 0;
    while number >= base && index + 1 < prefixes.len() {
        number /= base;
        index += 1;
    }
    let digits = usize::from(index > 0 && number < 100.0);
    format!("{number:.digits$} {}{unit}", prefixes[index]).trim_end().to_owned()
}
