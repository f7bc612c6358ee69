//! Weights in 16 bits or fewer and what is computed from constants alone.

use edge_ir::ops::quantize::{encoding, is_linear};
use edge_ir::{DType, Data, Graph, Node};

/// Casts of weights, and integers that stand for weights, are computed while the weights are loaded.
pub(super) fn fold(mut graph: Graph) -> Graph {
    for node in std::mem::take(&mut graph.nodes) {
        match (cast_weight(&graph, &node).or_else(|| dequantized(&graph, &node)), node.outputs.first()) {
            (Some(data), Some(output)) => graph.value_mut(*output).data = Some(data),
            _ => graph.nodes.push(node),
        }
    }
    graph
}

/// What a cast of a weight to `float32` gives.
fn cast_weight(graph: &Graph, node: &Node) -> Option<Data> {
    let (input, output) = (node.inputs.first().copied().flatten()?, *node.outputs.first()?);
    let is_cast = node.op.name == "Cast" && graph.ty(output).dtype == DType::Float32;
    let data = graph.value(input).data.clone().filter(|_| is_cast)?;
    data.cast(graph.ty(input).dtype, DType::Float32)
}

/// The numbers that a constant of integers stands for.
fn dequantized(graph: &Graph, node: &Node) -> Option<Data> {
    let input = node.inputs.first().copied().flatten().filter(|_| is_linear(node, "DequantizeLinear"))?;
    graph.value(input).data.as_ref()?.dequantize(&graph.ty(input).shape, encoding(graph, node)?)
}

/// The graph without constants that nothing reads.
pub(super) fn drop_unused(mut graph: Graph) -> Graph {
    let readers = graph.consumers();
    let unused: Vec<_> =
        graph.initializers().map(|(id, _, _)| id).filter(|id| readers[graph.index_of(*id)].is_empty()).collect();
    for id in unused {
        graph.value_mut(id).data = None;
    }
    graph
}
