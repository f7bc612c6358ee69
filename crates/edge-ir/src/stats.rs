//! Counts over a graph: operators, parameters, arithmetic, memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::Graph;
use crate::ops::Context;

/// What a graph contains and what a run of it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many nodes of each operator there are.
    pub operators: BTreeMap<&'static str, usize>,
    /// Elements of all weights; constants that hold shapes do not count.
    pub parameters: u64,
    /// Bytes of all weights, as stored.
    pub weight_bytes: u64,
    /// Multiply-accumulates of convolutions and matrix products.
    pub macs: u64,
    /// Bytes of the largest set of activations alive at one time, if nodes run in their order and nothing is shared.
    pub peak_activation_bytes: u64,
    /// The node at which that peak is reached.
    pub peak_node: String,
}

/// Counts.
pub fn stats(graph: &Graph) -> Stats {
    let mut stats = Stats::default();
    for (_, value, data) in graph.initializers() {
        if value.ty.dtype.is_float() {
            stats.parameters += value.ty.elements();
            stats.weight_bytes += data.len();
        }
    }
    for node in &graph.nodes {
        *stats.operators.entry(node.op.name).or_default() += 1;
        let types = node.inputs.iter().map(|id| id.map(|id| graph.ty(id))).collect();
        let outputs: Vec<_> = node.outputs.iter().map(|id| graph.ty(*id).clone()).collect();
        stats.macs += (node.op.macs)(&Context { node, types, data: Vec::new() }, &outputs);
    }
    peak(graph, &mut stats);
    stats
}

/// Activations live from the node that makes them to the last one that reads them; outputs live on. What follows from
/// constants alone is no activation.
fn peak(graph: &Graph, stats: &mut Stats) {
    let last_use = last_uses(graph);
    let mut fixed: BTreeSet<usize> = graph.initializers().map(|(id, _, _)| id.0).collect();
    let mut live: BTreeMap<usize, u64> = graph.inputs.iter().map(|id| (id.0, graph.ty(*id).bytes())).collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.inputs.iter().flatten().all(|id| fixed.contains(&id.0)) {
            fixed.extend(node.outputs.iter().map(|id| id.0));
            continue;
        }
        live.extend(node.outputs.iter().map(|id| (id.0, graph.ty(*id).bytes())));
        let now = live.values().sum();
        if now > stats.peak_activation_bytes {
            stats.peak_activation_bytes = now;
            stats.peak_node.clone_from(&node.name);
        }
        live.retain(|id, _| last_use.get(id).is_some_and(|last| *last > index));
    }
}

/// For each value that is read, the last node that does so.
fn last_uses(graph: &Graph) -> BTreeMap<usize, usize> {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        last.extend(node.inputs.iter().flatten().map(|id| (id.0, index)));
    }
    last.extend(graph.outputs.iter().map(|id| (id.0, usize::MAX)));
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, Builder, DType, Data, TensorType};

    #[test]
    fn a_linear_layer_is_counted() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2, 3]);
        let w = b.weight("w", TensorType::new(DType::Float32, [5, 3]), Data::f32s(&[0.0; 15]));
        let y = b.node("Gemm", "linear", &[x, w], &[("transB", Attribute::Int(1))]).expect("gemm");
        let y = b.node("Relu", "act", &[y], &[]).expect("relu");
        b.output("y", y);
        let stats = stats(&b.finish().expect("a graph"));
        assert_eq!((stats.parameters, stats.weight_bytes, stats.macs), (15, 60, 30));
        assert_eq!((stats.peak_activation_bytes, stats.peak_node.as_str()), (80, "act"));
    }
}
