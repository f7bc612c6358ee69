//! What follows from inputs whose content is known before there is anything to run the graph on.
//!
//! Every node's result is rounded to `float32`, as the graph declares it; within a node the arithmetic is in `float64`,
//! and the functions are those of `libm`: the same on every machine. A sum over a thousand products is then rounded
//! once, where a runtime rounds a thousand times.

use std::collections::BTreeMap;

use edge_ir::{Data, Graph, Node, ValueId};

use super::error::FoldError;
use crate::eval::{Constant, evaluate};

/// The values known so far in a graph; others are computed when they are asked for.
pub(super) struct Known<'a> {
    graph: &'a Graph,
    maker: BTreeMap<ValueId, &'a Node>,
    values: BTreeMap<ValueId, Constant>,
}

impl<'a> Known<'a> {
    /// With these contents of inputs.
    pub(super) fn new(graph: &'a Graph, inputs: BTreeMap<ValueId, Constant>) -> Self {
        let maker = graph.nodes.iter().flat_map(|n| n.outputs.iter().map(move |id| (*id, n))).collect();
        Self { graph, maker, values: inputs }
    }

    /// The content of a value.
    pub(super) fn get(&mut self, id: ValueId) -> Result<Constant, FoldError> {
        if let Some(constant) = self.values.get(&id) {
            return Ok(constant.clone());
        }
        let value = self.graph.value(id);
        if let Some(data) = value.data.clone() {
            return Ok(Constant { ty: value.ty.clone(), data });
        }
        let unknown = || FoldError::Unknown { value: value.name.clone() };
        let node = self.maker.get(&id).copied().ok_or_else(unknown)?;
        let inputs = node.inputs.iter().flatten().map(|id| self.get(*id)).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<_> = node.outputs.iter().map(|id| self.graph.ty(*id).clone()).collect();
        let refuse = || FoldError::Operator { node: node.name.clone(), op: node.op.name };
        let results = evaluate(node, &inputs, &types).ok_or_else(refuse)?;
        self.values.extend(node.outputs.iter().copied().zip(results));
        self.values.get(&id).cloned().ok_or_else(unknown)
    }
}

/// The numbers of a constant of the graph, which may be one in 16 bits with its cast; nothing if it is no constant.
pub(super) fn numbers(graph: &Graph, id: ValueId) -> Option<Vec<f32>> {
    Known::new(graph, BTreeMap::new()).get(id).ok().map(|constant| constant.data.to_f32s())
}

/// A constant's numbers for the first image, if it has the same for all.
pub(super) fn first_row(constant: &Constant) -> Option<Vec<f32>> {
    let numbers = constant.data.to_f32s();
    let mut rows = numbers.chunks((numbers.len() / constant.ty.shape.first()?).max(1));
    let first = rows.next()?;
    rows.all(|row| row == first).then(|| first.to_vec())
}

/// A constant's numbers in memory: what was computed from weights is no view of them.
pub(super) fn owned(constant: &Constant) -> Data {
    Data::f32s(&constant.data.to_f32s())
}
