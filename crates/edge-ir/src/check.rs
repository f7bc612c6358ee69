//! The checker. A graph that passes obeys these rules:
//!
//! 1. Tensor names are unique legal C identifiers.
//! 2. Node names are unique and not empty.
//! 3. A node reads graph inputs, constants, and outputs of earlier nodes only.
//! 4. Every tensor is made once: by the caller, by its data, or by one node.
//! 5. A node has as many inputs as its operator takes.
//! 6. Attributes are those of the operator's row, of its types, none that is required missing.
//! 7. Output types are those that the operator infers from its inputs.
//! 8. Graph outputs are made, and differ; there is one at least.
//! 9. A constant's data has as many bytes as its type and shape say.
//! 10. No dimension is 0, but in constants.

use std::collections::BTreeSet;
use std::ops::Deref;

use crate::builder::infer;
use crate::ops::Need;
use crate::{Error, Graph, Node, ValueId};

/// A value that has passed its check. Writers and executors take nothing else.
#[derive(Clone, Debug)]
pub struct Checked<T>(T);

impl<T> Checked<T> {
    /// Gives the value out, to be changed; it has to be checked anew.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Graph {
    /// Checks all rules, in their order.
    pub fn check(self) -> Result<Checked<Self>, Error> {
        for (rule, check) in RULES {
            check(&self).map_err(|reason| Error::Rule { graph: self.name.clone(), rule: *rule, reason })?;
        }
        Ok(Checked(self))
    }
}

type Rule = fn(&Graph) -> Result<(), String>;

const RULES: &[(u8, Rule)] = &[
    (1, tensor_names),
    (2, node_names),
    (3, order),
    (4, single_assignment),
    (5, arity),
    (6, attributes),
    (7, types),
    (8, outputs),
    (9, data_sizes),
    (10, dimensions),
];

fn tensor_names(graph: &Graph) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (_, value) in graph.values() {
        if crate::builder::identifier(&value.name) != value.name {
            return Err(format!("tensor name `{}` is not a C identifier", value.name));
        }
        if !seen.insert(&value.name) {
            return Err(format!("two tensors have the name `{}`", value.name));
        }
    }
    Ok(())
}

fn node_names(graph: &Graph) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for node in &graph.nodes {
        if node.name.is_empty() || !seen.insert(&node.name) {
            return Err(format!("node name `{}` is empty or not unique", node.name));
        }
    }
    Ok(())
}

fn order(graph: &Graph) -> Result<(), String> {
    let mut made: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    made.extend(graph.initializers().map(|(id, _, _)| id));
    for node in &graph.nodes {
        if let Some(id) = node.inputs.iter().flatten().find(|id| !made.contains(id)) {
            return Err(format!("node `{}` reads `{}` before it is made", node.name, graph.value(*id).name));
        }
        made.extend(&node.outputs);
    }
    Ok(())
}

fn single_assignment(graph: &Graph) -> Result<(), String> {
    let mut made = BTreeSet::new();
    let inputs = graph.inputs.iter().copied();
    let constants = graph.initializers().map(|(id, _, _)| id);
    let outputs = graph.nodes.iter().flat_map(|n| n.outputs.iter().copied());
    for id in inputs.chain(constants).chain(outputs) {
        if !made.insert(id) {
            return Err(format!("`{}` is made twice", graph.value(id).name));
        }
    }
    Ok(())
}

fn arity(graph: &Graph) -> Result<(), String> {
    each_node(graph, |node| {
        let (least, most) = node.op.inputs;
        let given = node.inputs.len();
        let there = node.inputs.iter().take(least).all(Option::is_some);
        if given < least || given > most || !there {
            return Err(format!("takes {least} to {most} inputs, got {given}"));
        }
        Ok(())
    })
}

fn attributes(graph: &Graph) -> Result<(), String> {
    each_node(graph, |node| {
        for (name, value) in &node.attributes {
            let row = node.op.attributes.iter().find(|row| row.0 == *name);
            let kind = row.ok_or_else(|| format!("has no attribute `{name}`"))?.1;
            if value.kind() != Some(kind) {
                return Err(format!("attribute `{name}` must be {kind:?}, got {value:?}"));
            }
        }
        let missing =
            node.op.attributes.iter().find(|(n, _, need)| *need == Need::Required && !node.attributes.contains_key(n));
        missing.map_or(Ok(()), |(name, _, _)| Err(format!("lacks attribute `{name}`")))
    })
}

fn types(graph: &Graph) -> Result<(), String> {
    for node in &graph.nodes {
        let inferred = infer(graph, node).map_err(|e| e.to_string())?;
        let found: Vec<_> = node.outputs.iter().map(|id| graph.ty(*id).clone()).collect();
        if inferred != found {
            return Err(format!("node `{}` makes {inferred:?}, its outputs are declared {found:?}", node.name));
        }
    }
    Ok(())
}

fn outputs(graph: &Graph) -> Result<(), String> {
    let mut made: BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    made.extend(graph.nodes.iter().flat_map(|n| &n.outputs));
    let mut seen = BTreeSet::new();
    for id in &graph.outputs {
        if !made.contains(id) || !seen.insert(*id) {
            return Err(format!("output `{}` is not made by a node, or is listed twice", graph.value(*id).name));
        }
    }
    if graph.outputs.is_empty() { Err("there is no output".to_owned()) } else { Ok(()) }
}

fn data_sizes(graph: &Graph) -> Result<(), String> {
    for (_, value, data) in graph.initializers() {
        if data.len() != value.ty.bytes() {
            return Err(format!(
                "`{}` is {} and has {} bytes, expected {}",
                value.name,
                value.ty,
                data.len(),
                value.ty.bytes()
            ));
        }
    }
    Ok(())
}

fn dimensions(graph: &Graph) -> Result<(), String> {
    let empty = graph.values().find(|(_, v)| v.data.is_none() && v.ty.shape.contains(&0));
    empty.map_or(Ok(()), |(_, v)| Err(format!("`{}` has no elements: {}", v.name, v.ty)))
}

fn each_node(graph: &Graph, check: impl Fn(&Node) -> Result<(), String>) -> Result<(), String> {
    graph
        .nodes
        .iter()
        .try_for_each(|node| check(node).map_err(|reason| format!("node `{}` ({}) {reason}", node.name, node.op.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attribute, Builder, DType, Data, TensorType, Value};

    /// `out = relu(x + w)`
    fn sound() -> Graph {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let w = b.weight("w", TensorType::new(DType::Float32, [2]), Data::f32s(&[1.0, 2.0]));
        let sum = b.node("Add", "add", &[x, w], &[]).expect("add");
        let out = b.node("Relu", "relu", &[sum], &[]).expect("relu");
        b.output("out", out);
        b.finish().expect("sound").into_inner()
    }

    fn broken(rule: u8, spoil: impl FnOnce(&mut Graph)) {
        let mut graph = sound();
        spoil(&mut graph);
        match graph.check() {
            Err(Error::Rule { rule: found, .. }) => assert_eq!(found, rule),
            other => panic!("expected rule {rule} to fail, got {other:?}"),
        }
    }

    #[test]
    fn every_rule_catches_its_fault() {
        broken(1, |g| g.values[1].name = "a.b".into());
        broken(1, |g| g.values[1].name = "x".into());
        broken(2, |g| g.nodes[1].name = "add".into());
        broken(3, |g| g.nodes.swap(0, 1));
        broken(4, |g| g.nodes[1].outputs = g.nodes[0].outputs.clone());
        broken(5, |g| g.nodes[0].inputs.truncate(1));
        broken(6, |g| drop(g.nodes[0].attributes.insert("axis", Attribute::Int(1))));
        broken(7, |g| g.values[3].ty.shape = vec![1, 3]);
        broken(8, |g| g.outputs.clear());
        broken(9, |g| g.values[1].data = Some(Data::f32s(&[1.0])));
        broken(10, |g| {
            let id = g.add_value(Value { name: "e".into(), ty: TensorType::new(DType::Float32, [0]), data: None });
            g.inputs.push(id);
        });
    }
}
