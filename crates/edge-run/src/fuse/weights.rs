//! Weights in 16 bits and what is computed from constants alone.

use edge_ir::{DType, Graph, Value};

/// Casts of weights become casts that are done while the weights are loaded.
pub(super) fn fold(mut graph: Graph) -> Graph {
    let nodes = std::mem::take(&mut graph.nodes);
    let (casts, rest): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| {
        let input = node.inputs.first().copied().flatten();
        node.op.name == "Cast" && input.is_some_and(|id| graph.value(id).data.is_some() && graph.ty(id).dtype.is_float())
    });
    graph.nodes = rest;
    for node in casts {
        let (Some(Some(input)), Some(output)) = (node.inputs.first(), node.outputs.first()) else { continue };
        let Value { ty, data, .. } = graph.value(*input).clone();
        let cast = data.and_then(|d| d.cast(ty.dtype, DType::Float32));
        if graph.ty(*output).dtype == DType::Float32 && cast.is_some() {
            graph.value_mut(*output).data = cast;
        } else {
            graph.nodes.insert(0, node);
        }
    }
    graph
}

/// The graph without constants that nothing reads.
pub(super) fn drop_unused(mut graph: Graph) -> Graph {
    let readers = graph.consumers();
    let unused: Vec<_> = graph.initializers().map(|(id, _, _)| id).filter(|id| readers[graph.index_of(*id)].is_empty()).collect();
    for id in unused {
        graph.value_mut(id).data = None;
    }
    graph
}
