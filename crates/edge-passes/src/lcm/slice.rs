//! What in a graph follows from some of its inputs alone.

use std::collections::BTreeSet;

use edge_ir::{Checked, Graph, ValueId};

use super::error::FoldError;

/// The part of a graph that reads nothing but some inputs and constants.
pub(super) struct Slice {
    /// Its nodes, by index, in running order; those that read constants alone are not among them.
    pub(super) nodes: BTreeSet<usize>,
    /// The values that it makes and that the rest of the graph reads, or that are outputs, in running order.
    pub(super) frontier: Vec<ValueId>,
}

/// What follows from the inputs with these names.
pub(super) fn slice(graph: &Graph, inputs: &[&str]) -> Slice {
    let named = |id: &ValueId| inputs.contains(&graph.value(*id).name.as_str());
    let mut bound: BTreeSet<ValueId> = graph.inputs.iter().copied().filter(named).collect();
    let mut fixed: BTreeSet<ValueId> = graph.initializers().map(|(id, _, _)| id).collect();
    let mut nodes = BTreeSet::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let mut read = node.inputs.iter().flatten();
        if read.clone().all(|id| fixed.contains(id)) {
            fixed.extend(&node.outputs);
        } else if read.all(|id| fixed.contains(id) || bound.contains(id)) {
            bound.extend(&node.outputs);
            nodes.insert(index);
        }
    }
    let outside = graph.nodes.iter().enumerate().filter(|(index, _)| !nodes.contains(index));
    let mut read: BTreeSet<ValueId> = outside.flat_map(|(_, node)| node.inputs.iter().flatten().copied()).collect();
    read.extend(&graph.outputs);
    let made = nodes.iter().flat_map(|index| &graph.nodes[*index].outputs);
    let frontier = made.copied().filter(|id| read.contains(id)).collect();
    Slice { nodes, frontier }
}

impl Slice {
    /// The graph without the nodes of the slice; whoever asks has to say where the frontier comes from.
    pub(super) fn cut(&self, graph: &Graph) -> Graph {
        let mut rest = graph.clone();
        let kept = std::mem::take(&mut rest.nodes).into_iter().enumerate().filter(|(i, _)| !self.nodes.contains(i));
        rest.nodes = kept.map(|(_, node)| node).collect();
        rest
    }
}

/// The graph without what nothing reads any more, checked.
pub(super) fn pruned(mut graph: Graph) -> Result<Checked<Graph>, FoldError> {
    graph.prune();
    Ok(graph.check()?)
}
