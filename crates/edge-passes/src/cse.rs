//! Common subexpressions: of nodes that compute the same from the same, one is left. Small constants with the same
//! content count as the same.

use std::collections::BTreeMap;

use edge_ir::{Attribute, Builder, DType, Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use crate::Pass;

/// Constants up to this many bytes are compared; larger ones are weights.
const SMALL: u64 = 4096;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub struct CommonSubexpressions;

impl Pass for CommonSubexpressions {
    fn name(&self) -> &'static str {
        "common-subexpressions"
    }

    fn about(&self) -> &'static str {
        "of nodes that compute the same from the same inputs, one is left"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        let constants = same_constants(&graph);
        let mut seen: BTreeMap<String, Vec<ValueId>> = BTreeMap::new();
        rewrite(graph, limit, &mut |view: &View<'_>, index: usize, b: &mut Builder| {
            let node = &view.graph.nodes[index];
            let same = |id: ValueId| b.resolve(constants.get(&id).copied().unwrap_or(id));
            let key = key(node, &node.inputs.iter().map(|id| id.map(same)).collect::<Vec<_>>());
            // An output's name must stay: it is not replaced by another value.
            if node.outputs.iter().any(|id| view.graph.outputs.contains(id)) {
                return Ok(None);
            }
            if let Some(first) = seen.get(&key) {
                return Ok(Some(first.clone()));
            }
            seen.insert(key, node.outputs.clone());
            Ok(None)
        })
    }
}

/// Everything that a node's outputs depend on.
fn key(node: &Node, inputs: &[Option<ValueId>]) -> String {
    let bits = |(name, value): (&&str, &Attribute)| match value {
        Attribute::Float(v) => format!("{name}={:x}", v.to_bits()),
        other => format!("{name}={other:?}"),
    };
    let attributes: Vec<_> = node.attributes.iter().map(bits).collect();
    format!("{}.{} {inputs:?} {attributes:?}", node.op.domain, node.op.name)
}

/// For each small constant that is not the first with its content, the first.
fn same_constants(graph: &Graph) -> BTreeMap<ValueId, ValueId> {
    let mut first: BTreeMap<(DType, Vec<usize>, Vec<u8>), ValueId> = BTreeMap::new();
    let mut same = BTreeMap::new();
    for (id, value, data) in graph.initializers().filter(|(_, _, d)| d.len() <= SMALL && !d.is_streamed()) {
        let key = (value.ty.dtype, value.ty.shape.clone(), data.bytes().into_owned());
        let kept = *first.entry(key).or_insert(id);
        if kept != id {
            same.insert(id, kept);
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_from_the_same_is_one() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2]);
        let mut branch = |name: &str| {
            let ty = edge_ir::TensorType::new(DType::Float32, [1]);
            let factor = b.weight(name, ty, edge_ir::Data::f32s(&[2.0]));
            let scaled = b.node("Mul", &format!("{name}/Mul"), &[x, factor], &[]).expect("a product");
            b.node("Tanh", &format!("{name}/Tanh"), &[scaled], &[]).expect("a number")
        };
        let both = [branch("a"), branch("b")];
        let sum = b.node("Sub", "sub", &both, &[]).expect("a difference");
        let same = b.node("Sub", "same", &both, &[]).expect("a difference");
        b.output("out", sum);
        b.output("another", same);
        let graph = b.finish().expect("a graph").into_inner();
        let done = CommonSubexpressions.run(graph, usize::MAX).expect("a rewrite");
        let operators: Vec<_> = done.graph.nodes.iter().map(|n| n.op.name).collect();
        assert_eq!(operators, ["Mul", "Tanh", "Sub", "Sub"]);
        let graph = done.graph.check().expect("a graph").into_inner();
        assert!(CommonSubexpressions.run(graph, usize::MAX).expect("a rewrite").places.is_empty());
    }
}
