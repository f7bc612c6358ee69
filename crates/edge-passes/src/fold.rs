//! Constant folding: what follows from constants alone is computed once, here.
//!
//! A cast, reshape, transpose or part of a weight becomes a view of it, which is computed while it is written. Casts of
//! 16-bit weights stay: the file would be twice as large.

use std::collections::BTreeMap;

use edge_ir::{Builder, Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use crate::Pass;
use crate::eval::{Constant, evaluate};

/// Results above this many bytes are folded only where they are views.
const LARGEST: u64 = 16 << 20;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn about(&self) -> &'static str {
        "what follows from constants alone becomes a constant"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        let mut casts = BTreeMap::new();
        rewrite(graph, limit, &mut |view: &View<'_>, index: usize, b: &mut Builder| {
            let node = &view.graph.nodes[index];
            let Some(results) = results(node, b, &casts) else { return Ok(None) };
            if is_cast_of_weight(node, b) {
                casts.extend(node.outputs.iter().copied().zip(results));
                return Ok(None);
            }
            let small = |c: &Constant| c.ty.bytes() <= LARGEST || c.data.is_streamed();
            // An output of the graph must be made by a node.
            if !results.iter().all(small) || node.outputs.iter().any(|id| view.graph.outputs.contains(id)) {
                return Ok(None);
            }
            let name = |index: usize| match node.outputs.len() {
                1 => node.name.clone(),
                _ => format!("{}_{index}", node.name),
            };
            Ok(Some(results.into_iter().enumerate().map(|(i, c)| b.weight(&name(i), c.ty, c.data)).collect()))
        })
    }
}

/// What the node gives, if all that it reads is constant.
fn results(node: &Node, b: &Builder, casts: &BTreeMap<ValueId, Constant>) -> Option<Vec<Constant>> {
    let known = |id: &ValueId| {
        let value = b.get(b.resolve(*id));
        let own = value.data.clone().map(|data| Constant { ty: value.ty.clone(), data });
        own.or_else(|| casts.get(id).cloned())
    };
    let inputs: Vec<Constant> = node.inputs.iter().flatten().map(known).collect::<Option<_>>()?;
    let outputs: Vec<_> = node.outputs.iter().map(|id| b.get(*id).ty.clone()).collect();
    if inputs.is_empty() {
        return None;
    }
    evaluate(node, &inputs, &outputs)
}

fn is_cast_of_weight(node: &Node, b: &Builder) -> bool {
    let input = node.inputs.first().copied().flatten();
    let data = input.and_then(|id| b.get(b.resolve(id)).data.as_ref());
    node.op.name == "Cast" && data.is_some_and(edge_ir::Data::is_streamed)
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, DType, Data, MappedFile, TensorType};

    use super::*;

    #[test]
    fn constants_are_computed_and_weights_stay_views() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w");
        std::fs::write(&path, [0_u8; 24]).expect("a file");
        let file = MappedFile::open(&path).expect("a file");
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        // A 16-bit weight with its cast, which stays, and what follows from it and a constant, which does not.
        let half = Data::mapped(file.clone(), 0, 8).expect("in the file");
        let half = b.weight("half", TensorType::new(DType::Float16, [2, 2]), half);
        let to = [("to", Attribute::Int(i64::from(DType::Float32.onnx())))];
        let weight = b.node("Cast", "cast", &[half], &to).expect("a cast");
        let row = b.floats("row", &[1, 2], &[1.0, 2.0]);
        let product = b.node("MatMul", "product", &[row, weight], &[]).expect("a product");
        // A transposed weight is a view.
        let matrix = Data::mapped(file, 8, 16).expect("in the file");
        let matrix = b.weight("matrix", TensorType::new(DType::Float32, [2, 2]), matrix);
        let turned =
            b.node("Transpose", "turned", &[matrix], &[("perm", Attribute::Ints(vec![1, 0]))]).expect("a view");
        let y = b.node("MatMul", "y", &[x, turned], &[]).expect("a product");
        let y = b.node("MatMul", "z", &[y, weight], &[]).expect("a product");
        let y = b.node("Add", "sum", &[y, product], &[]).expect("a sum");
        b.output("out", y);
        let graph = b.finish().expect("a graph").into_inner();
        let done = FoldConstants.run(graph, usize::MAX).expect("a rewrite");
        assert_eq!(done.places, ["product", "turned"]);
        let graph = done.graph.check().expect("a graph");
        let operators: Vec<_> = graph.nodes.iter().map(|n| n.op.name).collect();
        assert_eq!(operators, ["Cast", "MatMul", "MatMul", "Add"]);
        let streamed: Vec<_> =
            graph.initializers().filter(|(_, _, d)| d.is_streamed()).map(|(_, v, _)| v.name.as_str()).collect();
        assert_eq!(streamed, ["half", "turned"]);
    }
}
