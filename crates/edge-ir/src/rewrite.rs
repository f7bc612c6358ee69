//! Rewrites: a graph is copied node by node, and a rule puts other nodes in the place of some.
//!
//! A rule looks at one node of the old graph, as the last of a group, and adds what does the group's work to the new one.
//! Readers of the old outputs then read the new ones; nodes that nothing reads any more are gone when the copy ends. So a
//! rule never deletes anything, and groups may overlap: an old value stays what it was until its last reader is gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::builder::node_error;
use crate::{Builder, Error, Graph, ValueId, View};

/// Tried at every node of the old graph, in order: the old graph, the node's index, and the new graph, which knows all
/// values of the old. Gives what takes the place of the node's outputs, or `None` to leave the node as it is.
pub type Rule<'r> = dyn FnMut(&View<'_>, usize, &mut Builder) -> Result<Option<Vec<ValueId>>, Error> + 'r;

/// A graph after a rewrite.
#[derive(Debug)]
pub struct Rewritten {
    /// The new graph, without nodes, weights and constants that nothing reads.
    pub graph: Graph,
    /// The name of the node at which each rewrite was done, in order.
    pub places: Vec<String>,
}

/// Applies a rule wherever it fits, `limit` times at most. Names of inputs and outputs stay.
///
/// # Errors
/// If the rule fails, or gives values of other types than those they replace.
#[expect(clippy::needless_pass_by_value, reason = "the old graph is gone: nobody should go on with it")]
pub fn rewrite(graph: Graph, limit: usize, rule: &mut Rule<'_>) -> Result<Rewritten, Error> {
    let mut copy = graph.clone();
    copy.nodes.clear();
    let mut b = Builder::resume(copy);
    let view = View::new(&graph);
    let mut places = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let new = if places.len() < limit { rule(&view, index, &mut b)? } else { None };
        let Some(new) = new else {
            b.keep(node.clone());
            continue;
        };
        let types = |ids: &[ValueId]| ids.iter().map(|id| b.get(*id).ty.clone()).collect::<Vec<_>>();
        let (expected, found) = (types(&node.outputs), types(&new));
        if expected != found {
            let reason = format!("a rewrite gives {found:?} in the place of {expected:?}");
            return Err(node_error(node.op.name, &node.name, &reason));
        }
        // It is gone at the end if nothing reads it; an output that became an input or a constant still needs it.
        b.keep(node.clone());
        node.outputs.iter().zip(&new).for_each(|(old, new)| b.replace(*old, *new));
        places.push(node.name.clone());
    }
    let count = graph.values().count();
    Ok(Rewritten { graph: finish(b, count), places })
}

/// Outputs are what replaces them, what nothing reads is gone, and new names are as asked for where they are free.
fn finish(b: Builder, old_values: usize) -> Graph {
    let outputs: Vec<(ValueId, ValueId)> = b.outputs().iter().map(|id| (*id, b.resolve(*id))).collect();
    let (mut graph, mut wanted) = b.into_parts();
    for (place, (old, new)) in outputs.into_iter().enumerate() {
        let value = graph.value(new);
        if old == new || value.data.is_some() || graph.inputs.contains(&new) || graph.outputs.contains(&new) {
            continue;
        }
        let name = graph.value(old).name.clone();
        graph.value_mut(old).name = format!("{name}_");
        wanted.insert(old, name.clone());
        graph.value_mut(new).name = name;
        wanted.remove(&new);
        graph.outputs[place] = new;
    }
    let renumbered = graph.prune();
    let wanted = wanted.into_iter().filter_map(|(id, name)| Some((*renumbered.get(&id)?, name))).collect();
    name_values(&mut graph, &wanted);
    let old: BTreeSet<ValueId> =
        renumbered.iter().filter(|(before, _)| before.0 < old_values).map(|(_, after)| *after).collect();
    name_nodes(&mut graph, &old);
    graph
}

fn name_values(graph: &mut Graph, wanted: &BTreeMap<ValueId, String>) {
    let mut taken: BTreeSet<String> =
        graph.values().filter(|(id, _)| !wanted.contains_key(id)).map(|(_, v)| v.name.clone()).collect();
    for (id, base) in wanted {
        graph.value_mut(*id).name = unique(&mut taken, base, "_");
    }
}

/// Nodes that make values of the old graph keep their names.
fn name_nodes(graph: &mut Graph, old: &BTreeSet<ValueId>) {
    let is_old = |outputs: &[ValueId]| outputs.iter().any(|id| old.contains(id));
    let mut taken: BTreeSet<String> =
        graph.nodes.iter().filter(|n| is_old(&n.outputs)).map(|n| n.name.clone()).collect();
    for node in graph.nodes.iter_mut().filter(|n| !is_old(&n.outputs)) {
        node.name = unique(&mut taken, &node.name, ".");
    }
}

fn unique(taken: &mut BTreeSet<String>, base: &str, separator: &str) -> String {
    let mut candidate = base.to_owned();
    let mut n = 1;
    while !taken.insert(candidate.clone()) {
        n += 1;
        candidate = format!("{base}{separator}{n}");
    }
    candidate
}

impl Graph {
    /// Removes nodes whose outputs nothing reads, and values that nothing makes or reads. Returns the new ids of the
    /// values that are left.
    pub fn prune(&mut self) -> BTreeMap<ValueId, ValueId> {
        let mut read: BTreeSet<ValueId> = self.outputs.iter().copied().collect();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|id| read.contains(id)) {
                read.extend(node.inputs.iter().flatten());
                nodes.push(node);
            }
        }
        nodes.reverse();
        read.extend(&self.inputs);
        read.extend(nodes.iter().flat_map(|n| n.outputs.iter().copied()));
        let mut renumbered = BTreeMap::new();
        let mut values = Vec::with_capacity(read.len());
        for (index, value) in std::mem::take(&mut self.values).into_iter().enumerate() {
            if read.contains(&ValueId(index)) {
                renumbered.insert(ValueId(index), ValueId(values.len()));
                values.push(value);
            }
        }
        self.values = values;
        self.nodes = nodes;
        let ids = self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().flatten().chain(&mut n.outputs));
        for id in ids.chain(&mut self.inputs).chain(&mut self.outputs) {
            // All of them are read or made, so all have a new number.
            *id = renumbered.get(id).copied().unwrap_or(*id);
        }
        renumbered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, dump};

    /// Two `Relu` and an unread `Tanh`.
    fn graph() -> Graph {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2]);
        let y = b.node("Relu", "a", &[x], &[]).expect("a node");
        b.node("Tanh", "unread", &[y], &[]).expect("a node");
        let z = b.node("Relu", "b", &[y], &[]).expect("a node");
        b.output("out", z);
        b.finish().expect("a graph").into_inner()
    }

    fn with_sigmoid(limit: usize) -> Rewritten {
        rewrite(graph(), limit, &mut |view, index, b| {
            let Some(node) = view.node(index, "Relu") else { return Ok(None) };
            let gate = b.node("Sigmoid", &format!("{}/gate", node.name), &[node.inputs[0].expect("an input")], &[])?;
            Ok(Some(vec![b.node("Mul", &node.name, &[gate, gate], &[])?]))
        })
        .expect("a rewrite")
    }

    #[test]
    fn what_is_replaced_is_gone_and_names_stay() {
        let done = with_sigmoid(usize::MAX);
        assert_eq!(done.places, ["a", "b"]);
        let expect = "graph g
  in  x: float32[2]
  a_gate: float32[2] = Sigmoid(x)  # a/gate
  a: float32[2] = Mul(a_gate, a_gate)  # a
  b_gate: float32[2] = Sigmoid(a)  # b/gate
  out: float32[2] = Mul(b_gate, b_gate)  # b
  out out: float32[2]
";
        assert_eq!(dump(&done.graph.check().expect("a graph")), expect);
    }

    #[test]
    fn any_number_of_rewrites_leaves_a_graph() {
        for limit in 0..3 {
            let done = with_sigmoid(limit);
            assert_eq!(done.places.len(), limit);
            let graph = done.graph.check().expect("a graph");
            assert_eq!(graph.nodes.iter().filter(|n| n.op.name == "Relu").count(), 2 - limit);
        }
    }

    #[test]
    fn another_type_is_refused() {
        let result = rewrite(graph(), 1, &mut |_, _, b| {
            let three = b.floats("three", &[3], &[0.0; 3]);
            Ok(Some(vec![three]))
        });
        let error = result.expect_err("another shape").to_string();
        assert!(error.starts_with("node `a` (Relu): a rewrite gives "), "{error}");
    }

    #[test]
    fn an_output_that_becomes_an_input_is_still_made() {
        let done = rewrite(graph(), 2, &mut |view, index, _| {
            let node = view.node(index, "Relu");
            Ok(node.map(|node| vec![node.inputs[0].expect("an input")]))
        })
        .expect("a rewrite");
        let graph = done.graph.check().expect("a graph");
        assert_eq!((graph.nodes.len(), graph.value(graph.outputs[0]).name.as_str()), (1, "out"));
    }
}
