//! Counts over a graph: operators, parameters, arithmetic, memory.

use std::collections::BTreeMap;

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

/// Activations live from the node that makes them to the last one that reads them; outputs live on.
fn peak(graph: &Graph, stats: &mut Stats) {
    let mut last_use: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().flatten() {
            last_use.insert(id.0, index);
        }
    }
    for id in &graph.outputs {
        last_use.insert(id.0, usize::MAX);
    }
    let mut live: BTreeMap<usize, u64> = graph.inputs.iter().map(|id| (id.0, graph.ty(*id).bytes())).collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        live.extend(node.outputs.iter().map(|id| (id.0, graph.ty(*id).bytes())));
        let now = live.values().sum();
        if now > stats.peak_activation_bytes {
            stats.peak_activation_bytes = now;
            stats.peak_node.clone_from(&node.name);
        }
        live.retain(|id, _| last_use.get(id).is_some_and(|last| *last > index));
    }
}
