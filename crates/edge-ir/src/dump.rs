//! A text form of a graph, for people and for diffs.

use std::fmt::Write;

use crate::{Graph, Node, ValueId};

/// One line per input, constant, node and output. Weights are shown by type and shape, small constants by content.
pub fn dump(graph: &Graph) -> String {
    let mut out = format!("graph {}\n", graph.name);
    for id in &graph.inputs {
        line(&mut out, format_args!("  in  {}: {}", graph.value(*id).name, graph.ty(*id)));
    }
    for (_, value, data) in graph.initializers() {
        let short = value.ty.dtype == crate::DType::Int64 && value.ty.elements() <= 8;
        let content = if short { format!(" = {:?}", data.to_i64s()) } else { String::new() };
        line(&mut out, format_args!("  let {}: {}{content}", value.name, value.ty));
    }
    for node in &graph.nodes {
        line(&mut out, format_args!("  {}", node_line(graph, node)));
    }
    for id in &graph.outputs {
        line(&mut out, format_args!("  out {}: {}", graph.value(*id).name, graph.ty(*id)));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn node_line(graph: &Graph, node: &Node) -> String {
    let name = |id: &ValueId| graph.value(*id).name.clone();
    let outputs: Vec<_> = node.outputs.iter().map(|id| format!("{}: {}", name(id), graph.ty(*id))).collect();
    let inputs: Vec<_> = node.inputs.iter().map(|id| id.as_ref().map_or("_".to_owned(), name)).collect();
    let attributes: Vec<_> = node.attributes.iter().map(|(k, v)| format!(" {k}={v:?}")).collect();
    format!("{} = {}({}){}  # {}", outputs.join(", "), node.op.name, inputs.join(", "), attributes.concat(), node.name)
}
