//! A graph with the links that patterns follow.

use std::collections::BTreeMap;

use crate::ops::Operator;
use crate::{Attribute, Data, Graph, Node, ValueId};

/// A graph, who makes each value, and how often it is read.
pub struct View<'a> {
    /// The graph.
    pub graph: &'a Graph,
    maker: Vec<Option<usize>>,
    uses: Vec<usize>,
}

impl<'a> View<'a> {
    /// Follows all links once.
    pub fn new(graph: &'a Graph) -> Self {
        let count = graph.values().count();
        let (mut maker, mut uses) = (vec![None; count], vec![0; count]);
        for (index, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|id| maker[graph.index_of(*id)] = Some(index));
            node.inputs.iter().flatten().for_each(|id| uses[graph.index_of(*id)] += 1);
        }
        graph.outputs.iter().for_each(|id| uses[graph.index_of(*id)] += 1);
        Self { graph, maker, uses }
    }

    /// The node at `index`, if it is an `op`.
    pub fn node(&self, index: usize, op: &str) -> Option<&'a Node> {
        self.graph.nodes.get(index).filter(|n| n.op.name == op)
    }

    /// The `op` that makes this value.
    pub fn maker(&self, id: ValueId, op: &str) -> Option<(usize, &'a Node)> {
        let index = self.maker[self.graph.index_of(id)]?;
        self.node(index, op).map(|node| (index, node))
    }

    /// The node that makes this value.
    pub fn any_maker(&self, id: ValueId) -> Option<(usize, &'a Node)> {
        let index = self.maker[self.graph.index_of(id)]?;
        Some((index, self.graph.nodes.get(index)?))
    }

    /// The `op` that makes this value, if nobody else reads it.
    pub fn only_maker(&self, id: ValueId, op: &str) -> Option<(usize, &'a Node)> {
        self.maker(id, op).filter(|_| self.uses[self.graph.index_of(id)] == 1)
    }

    /// The content of a constant.
    pub fn data(&self, id: ValueId) -> Option<&'a Data> {
        self.graph.value(id).data.as_ref()
    }

    /// How often a value is read, by nodes and as an output of the graph.
    pub fn uses(&self, id: ValueId) -> usize {
        self.uses[self.graph.index_of(id)]
    }

    /// The number, if the value is a constant of one `float32`.
    pub fn number(&self, id: ValueId) -> Option<f32> {
        let value = self.graph.value(id);
        let numbers = value.data.as_ref().filter(|_| value.ty.elements() == 1)?.to_f32s();
        numbers.first().copied()
    }

    /// Whether all elements of a constant are this number.
    pub fn is_all(&self, id: ValueId, number: f32) -> bool {
        let data = self.graph.value(id).data.as_ref();
        data.is_some_and(|d| d.to_f32s().iter().all(|v| v.to_bits() == number.to_bits()))
    }

    /// The two inputs of a node, a constant of one number second, whichever way they stand.
    pub fn with_number(&self, node: &Node) -> Option<(ValueId, f32)> {
        let (a, b) = pair(node)?;
        self.number(b).map(|n| (a, n)).or_else(|| self.number(a).map(|n| (b, n)))
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &'a [usize] {
        &self.graph.ty(id).shape
    }
}

/// A node's first two inputs.
pub fn pair(node: &Node) -> Option<(ValueId, ValueId)> {
    Some(((*node.inputs.first()?)?, (*node.inputs.get(1)?)?))
}

/// A node that does the work of `last` and what leads to it.
pub fn replacement(
    op: &'static Operator,
    last: &Node,
    inputs: Vec<ValueId>,
    attributes: impl IntoIterator<Item = (&'static str, Attribute)>,
) -> Node {
    Node {
        name: last.name.clone(),
        op,
        inputs: inputs.into_iter().map(Some).collect(),
        outputs: last.outputs.clone(),
        attributes: attributes.into_iter().collect::<BTreeMap<_, _>>(),
    }
}
