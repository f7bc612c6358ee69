//! Token ids and timesteps as `int32`: NPUs have no 64-bit integers.

use edge_ir::{DType, Error, Graph, Rewritten};

use crate::Pass;

/// The pass. Only an input that is read as an index or cast can have the narrower type; the graph's interface changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexAsInt32;

impl Pass for IndexAsInt32 {
    fn name(&self) -> &'static str {
        "index-as-int32"
    }

    fn about(&self) -> &'static str {
        "inputs of int64 become int32"
    }

    fn run(&self, mut graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        let reads_any = |op: &str, place: usize| matches!((op, place), ("Gather", 1) | ("Cast", 0));
        let fits = |graph: &Graph, id| {
            let readers = graph.nodes.iter().flat_map(|n| n.inputs.iter().enumerate().map(move |i| (n.op.name, i)));
            readers.filter(|(_, (_, input))| **input == Some(id)).all(|(op, (place, _))| reads_any(op, place))
        };
        let mut places = Vec::new();
        for id in graph.inputs.clone() {
            if places.len() < limit && graph.ty(id).dtype == DType::Int64 && fits(&graph, id) {
                graph.value_mut(id).ty.dtype = DType::Int32;
                places.push(graph.value(id).name.clone());
            }
        }
        Ok(Rewritten { graph, places })
    }
}
