//! Groups of operators become one of this crate's own. Each pattern is a file; each is tried at every node, in order.

mod attention;
mod conv;
mod gelu;
mod norm;
mod quantize;
pub(crate) mod rows;
mod silu;
mod weights;

use std::collections::BTreeSet;

use edge_ir::{Checked, Error, Graph, Node};

use edge_ir::View;

pub(crate) use quantize::held;

/// What a pattern found: the nodes that go, and the node that comes in the place of the last of them.
pub(crate) struct Found {
    /// Indices of the nodes that go.
    pub(crate) gone: Vec<usize>,
    /// What does their work.
    pub(crate) node: Node,
}

/// A pattern: looks at the node at an index as the last of a group.
type Pattern = fn(&View<'_>, usize) -> Option<Found>;

/// All patterns. Later ones match what earlier ones have made.
const PATTERNS: &[Pattern] = &[
    quantize::pair,
    conv::conv,
    conv::linear,
    norm::group_norm,
    norm::group_norm_operator,
    norm::layer_norm,
    attention::attention,
    attention::heads_last,
    gelu::gelu,
    gelu::gelu_operator,
    gelu::geglu,
    silu::silu,
    silu::quick_gelu,
    norm::group_norm_silu,
];

/// The graph with all groups replaced.
pub(crate) fn fuse(graph: Graph) -> Result<Checked<Graph>, Error> {
    let mut graph = weights::fold(graph);
    for pattern in PATTERNS {
        graph = apply(graph, *pattern);
    }
    graph.prune();
    weights::drop_unused(quantize::widen(graph)).check()
}

fn apply(mut graph: Graph, pattern: Pattern) -> Graph {
    let view = View::new(&graph);
    let mut gone = BTreeSet::new();
    let mut made = Vec::new();
    for index in 0..graph.nodes.len() {
        let Some(found) = pattern(&view, index) else { continue };
        if found.gone.iter().all(|i| !gone.contains(i)) {
            gone.extend(found.gone);
            made.push((index, found.node));
        }
    }
    let mut made = made.into_iter().peekable();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (index, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        if let Some((_, node)) = made.next_if(|(at, _)| *at == index) {
            nodes.push(node);
        } else if !gone.contains(&index) {
            nodes.push(node);
        }
    }
    graph.nodes = nodes;
    graph
}
