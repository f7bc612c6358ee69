//! One graph as a part of another: how networks are joined, steps repeated, and what nothing reads left behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::builder::node_error;
use crate::{Builder, Error, Graph, Node, Value, ValueId};

/// What the parts of an inlined graph are called in the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// Module path before the names of nodes; empty for none.
    pub module: &'a str,
    /// Put before the names of constants; empty for none. Constants of the same name and content are one.
    pub weights: &'a str,
}

impl Builder {
    /// Adds the nodes of `graph` that its outputs depend on, and returns its outputs by name.
    ///
    /// `feeds` gives values for inputs, by name. An input without one becomes an input of the whole under its own name,
    /// or is the input of that name that the whole already has.
    ///
    /// # Errors
    /// If a value has another type than the input that it is for.
    pub fn inline(
        &mut self,
        graph: &Graph,
        scope: Scope<'_>,
        feeds: &BTreeMap<String, ValueId>,
    ) -> Result<BTreeMap<String, ValueId>, Error> {
        let mut part = Part { whole: self, graph, scope, ids: BTreeMap::new() };
        for id in &graph.inputs {
            part.input(*id, feeds)?;
        }
        for node in live(graph) {
            part.node(node);
        }
        Ok(graph.outputs.iter().map(|id| (graph.value(*id).name.clone(), part.ids[id])).collect())
    }

    /// The input with this name.
    pub fn find_input(&self, name: &str) -> Option<ValueId> {
        let graph = self.graph();
        graph.inputs.iter().copied().find(|id| graph.value(*id).name == name)
    }
}

/// A graph that is being added to a whole.
struct Part<'a> {
    whole: &'a mut Builder,
    graph: &'a Graph,
    scope: Scope<'a>,
    ids: BTreeMap<ValueId, ValueId>,
}

impl Part<'_> {
    fn input(&mut self, id: ValueId, feeds: &BTreeMap<String, ValueId>) -> Result<(), Error> {
        let value = self.graph.value(id);
        let there = feeds.get(&value.name).copied().or_else(|| self.whole.find_input(&value.name));
        let fed = there.unwrap_or_else(|| self.whole.input(&value.name, value.ty.dtype, &value.ty.shape));
        let ty = self.whole.graph().ty(fed);
        if *ty != value.ty {
            let reason = format!("input `{}` must be {}, got {ty}", value.name, value.ty);
            return Err(node_error("graph", &self.graph.name, &reason));
        }
        self.ids.insert(id, fed);
        Ok(())
    }

    fn node(&mut self, node: &Node) {
        let mut copy = node.clone();
        if !self.scope.module.is_empty() {
            copy.name = format!("{}.{}", self.scope.module, node.name);
        }
        copy.inputs = node.inputs.iter().map(|id| id.map(|id| self.read(id))).collect();
        copy.outputs = node.outputs.iter().map(|id| self.made(*id, &copy.name)).collect();
        self.whole.push(copy);
    }

    /// The value that a node reads, in the whole.
    fn read(&mut self, id: ValueId) -> ValueId {
        if let Some(there) = self.ids.get(&id) {
            return *there;
        }
        let Value { name, ty, data } = self.graph.value(id).clone();
        let name = if self.scope.weights.is_empty() { name } else { format!("{}_{name}", self.scope.weights) };
        let added = self.whole.shared(Value { name, ty, data });
        self.ids.insert(id, added);
        added
    }

    /// A value that the node with this name makes; an output of the part gives its public name back.
    fn made(&mut self, id: ValueId, node: &str) -> ValueId {
        let value = self.graph.value(id);
        let name = match (self.graph.outputs.contains(&id), self.scope.module) {
            (true, _) => node.to_owned(),
            (false, "") => value.name.clone(),
            (false, module) => format!("{module}_{}", value.name),
        };
        let added = self.whole.value(&name, value.ty.clone(), None);
        self.ids.insert(id, added);
        added
    }
}

/// The nodes that the outputs depend on, in their order.
fn live(graph: &Graph) -> impl Iterator<Item = &Node> {
    let mut wanted: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut found = Vec::new();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|id| wanted.contains(id)) {
            wanted.extend(node.inputs.iter().flatten());
            found.push(node);
        }
    }
    found.into_iter().rev()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, Checked, DType, Data, TensorType};

    /// `out = x w`, and a node that nothing reads.
    fn layer(numbers: [f32; 4]) -> Checked<Graph> {
        let mut b = Builder::new("layer");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let w = b.weight("w", TensorType::new(DType::Float32, [2, 2]), Data::f32s(&numbers));
        let y = b.node("Gemm", "linear", &[x, w], &[("transB", Attribute::Int(1))]).expect("gemm");
        b.node("Relu", "unread", &[y], &[]).expect("relu");
        b.output("out", y);
        b.finish().expect("a graph")
    }

    #[test]
    fn equal_constants_are_shared_and_others_are_not() {
        let mut b = Builder::new("whole");
        let mut feeds = BTreeMap::new();
        for (step, numbers) in [[1.0; 4], [1.0; 4], [2.0; 4]].into_iter().enumerate() {
            let module = format!("steps.{step}");
            let scope = Scope { module: &module, weights: "net" };
            let outputs = b.inline(&layer(numbers), scope, &feeds).expect("a part");
            feeds.insert("x".to_owned(), outputs["out"]);
        }
        b.output("out", feeds["x"]);
        let graph = b.finish().expect("a graph");
        let names = |ids: Vec<String>| ids.join(" ");
        assert_eq!(
            names(graph.nodes.iter().map(|n| n.name.clone()).collect()),
            "steps.0.linear steps.1.linear steps.2.linear"
        );
        assert_eq!(names(graph.initializers().map(|(_, v, _)| v.name.clone()).collect()), "net_w net_w_2");
        assert_eq!(graph.inputs.len(), 1);
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let mut b = Builder::new("whole");
        let x = b.input("y", DType::Float32, &[2, 2]);
        let feeds = BTreeMap::from([("x".to_owned(), x)]);
        let error = b.inline(&layer([1.0; 4]), Scope::default(), &feeds).expect_err("another shape");
        assert_eq!(error.to_string(), "node `layer` (graph): input `x` must be float32[1, 2], got float32[2, 2]");
    }
}
