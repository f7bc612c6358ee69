//! Builds a graph node by node: names are made unique and legal, types are inferred on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Attribute, Graph, Node, TensorType, Value, ValueId};
use crate::ops::{self, Context};
use crate::{Checked, DType, Data, Error};

/// A graph in the making.
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    names: BTreeSet<String>,
    constants: BTreeMap<(Vec<usize>, Vec<u8>), ValueId>,
    shared: BTreeMap<String, Vec<ValueId>>,
    /// What is read in the place of a value, in a rewrite.
    replaced: BTreeMap<ValueId, ValueId>,
    /// The names that were asked for, before they were made unique.
    wanted: BTreeMap<ValueId, String>,
}

impl Builder {
    /// An empty graph with this component name.
    pub fn new(name: &str) -> Self {
        Self::resume(Graph::new(name))
    }

    /// Goes on with a graph.
    pub fn resume(graph: Graph) -> Self {
        let names = graph.values().map(|(_, v)| v.name.clone()).collect();
        Self {
            graph,
            names,
            constants: BTreeMap::new(),
            shared: BTreeMap::new(),
            replaced: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// What stands in the place of a value, in a rewrite; the value itself otherwise.
    pub fn resolve(&self, id: ValueId) -> ValueId {
        self.replaced.get(&id).copied().unwrap_or(id)
    }

    /// The value at `id`.
    pub fn get(&self, id: ValueId) -> &Value {
        self.graph.value(id)
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize]) -> ValueId {
        let id = self.value(name, TensorType::new(dtype, shape), None);
        self.graph.inputs.push(id);
        id
    }

    /// Adds a weight; its name becomes an identifier.
    pub fn weight(&mut self, name: &str, ty: TensorType, data: Data) -> ValueId {
        self.value(name, ty, Some(data))
    }

    /// A constant of `int64` numbers; equal ones are one value.
    pub fn ints(&mut self, numbers: &[i64]) -> ValueId {
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        let key = (vec![usize::MAX, numbers.len()], bytes.clone());
        if let Some(id) = self.constants.get(&key) {
            return *id;
        }
        let name = numbers.iter().fold(String::from("ints"), |name, n| format!("{name}_{n}"));
        let id = self.value(&name, TensorType::new(DType::Int64, [numbers.len()]), Some(Data::owned(bytes)));
        self.constants.insert(key, id);
        id
    }

    /// A constant of `float32` numbers; equal ones are one value, with the name that was given first.
    pub fn floats(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> ValueId {
        let data = Data::f32s(numbers);
        let key = (shape.to_vec(), data.bytes().to_vec());
        if let Some(id) = self.constants.get(&key) {
            return *id;
        }
        let id = self.value(name, TensorType::new(DType::Float32, shape), Some(data));
        self.constants.insert(key, id);
        id
    }

    /// Adds a node with one output.
    pub fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[ValueId],
        attributes: &[(&'static str, Attribute)],
    ) -> Result<ValueId, Error> {
        let inputs = inputs.iter().map(|i| Some(*i)).collect();
        let outputs = self.nodes(op, name, inputs, attributes)?;
        outputs.first().copied().ok_or_else(|| node_error(op, name, "has no output"))
    }

    /// Adds a node; `None` leaves an optional input out.
    pub fn nodes(
        &mut self,
        op: &str,
        name: &str,
        inputs: Vec<Option<ValueId>>,
        attributes: &[(&'static str, Attribute)],
    ) -> Result<Vec<ValueId>, Error> {
        let inputs = inputs.into_iter().map(|id| id.map(|id| self.resolve(id))).collect();
        let row = ops::find("", op).ok_or_else(|| node_error(op, name, "is not in the operator table"))?;
        let attributes = attributes.iter().cloned().collect();
        let mut node = Node { name: name.to_owned(), op: row, inputs, outputs: Vec::new(), attributes };
        let types = infer(&self.graph, &node)?;
        let many = types.len() > 1;
        for (index, ty) in types.into_iter().enumerate() {
            let output = if many { format!("{name}_{index}") } else { name.to_owned() };
            node.outputs.push(self.value(&output, ty, None));
        }
        let outputs = node.outputs.clone();
        self.graph.nodes.push(node);
        Ok(outputs)
    }

    /// Declares an output under its public name.
    pub fn output(&mut self, name: &str, id: ValueId) {
        let name = self.unique(name);
        self.graph.value_mut(id).name = name;
        self.graph.outputs.push(id);
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.graph.ty(id).shape
    }

    /// The graph, checked.
    pub fn finish(self) -> Result<Checked<Graph>, Error> {
        self.graph.check()
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn push(&mut self, node: Node) {
        self.graph.nodes.push(node);
    }

    /// Puts `new` in the place of `old`, for all nodes that are added from here on.
    pub(crate) fn replace(&mut self, old: ValueId, new: ValueId) {
        self.replaced.insert(old, self.resolve(new));
    }

    /// Adds a node of the graph that is rewritten, with what stands in the place of its inputs.
    pub(crate) fn keep(&mut self, mut node: Node) {
        node.inputs.iter_mut().flatten().for_each(|id| *id = self.resolve(*id));
        self.graph.nodes.push(node);
    }

    /// The outputs declared so far.
    pub(crate) fn outputs(&self) -> &[ValueId] {
        &self.graph.outputs
    }

    /// The graph as it is, and the names that were asked for.
    pub(crate) fn into_parts(self) -> (Graph, BTreeMap<ValueId, String>) {
        (self.graph, self.wanted)
    }

    pub(crate) fn value(&mut self, name: &str, ty: TensorType, data: Option<Data>) -> ValueId {
        let unique = self.unique(name);
        let id = self.graph.add_value(Value { name: unique, ty, data });
        self.wanted.insert(id, identifier(name));
        id
    }

    /// A constant that is the same value wherever one of the same name and content is asked for.
    pub(crate) fn shared(&mut self, value: Value) -> ValueId {
        let name = identifier(&value.name);
        let alike = |id: &ValueId| {
            let there = self.graph.value(*id);
            let data = there.data.as_ref().zip(value.data.as_ref());
            there.ty == value.ty && data.is_some_and(|(a, b)| a.is_same(b))
        };
        if let Some(id) = self.shared.get(&name).into_iter().flatten().copied().find(alike) {
            return id;
        }
        let id = self.value(&name, value.ty, value.data);
        self.shared.entry(name).or_default().push(id);
        id
    }

    /// A legal C identifier that no other tensor has.
    fn unique(&mut self, name: &str) -> String {
        let base = identifier(name);
        let mut candidate = base.clone();
        let mut n = 1;
        while !self.names.insert(candidate.clone()) {
            n += 1;
            candidate = format!("{base}_{n}");
        }
        candidate
    }
}

/// The types of a node's outputs.
pub(crate) fn infer(graph: &Graph, node: &Node) -> Result<Vec<TensorType>, Error> {
    let inputs = || node.inputs.iter().map(|id| id.map(|id| graph.value(id)));
    let context = Context {
        node,
        types: inputs().map(|v| v.map(|v| &v.ty)).collect(),
        data: inputs().map(|v| v.and_then(|v| v.data.as_ref())).collect(),
    };
    (node.op.infer)(&context).map_err(|reason| node_error(node.op.name, &node.name, &reason))
}

/// Everything but ASCII letters, digits and `_` becomes `_`; a leading digit is set off.
pub(crate) fn identifier(name: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.insert(0, '_');
    }
    out
}

pub(crate) fn node_error(op: &str, node: &str, reason: &str) -> Error {
    Error::Node { node: node.to_owned(), op: op.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_unique_identifiers() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let y = b.node("Relu", "block.0/act", &[x], &[]).expect("relu");
        let z = b.node("Relu", "block/0.act", &[y], &[]).expect("relu");
        b.output("out", z);
        let graph = b.finish().expect("a graph");
        let names: Vec<_> = graph.values().map(|(_, v)| v.name.as_str()).collect();
        assert_eq!(names, ["x", "block_0_act", "out"]);
        assert_eq!(identifier("0a.b"), "_0a_b");
    }

    #[test]
    fn a_misfit_names_the_node() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let y = b.input("y", DType::Float32, &[3]);
        let error = b.node("Add", "sum", &[x, y], &[]).expect_err("shapes differ");
        assert_eq!(error.to_string(), "node `sum` (Add): shapes [1, 2] and [3] do not broadcast");
    }
}
