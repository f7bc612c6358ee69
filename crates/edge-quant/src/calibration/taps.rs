//! Which tensors of a graph are looked at.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::{DType, Graph, ValueId};

use crate::rules::Rule;

/// Operators that give the values of their first input in another shape or order.
const MOVES: &[&str] = &["Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// Where to look in a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    /// Tensors to look at, inputs first, then in the order in which they are made.
    pub observed: Vec<ValueId>,
    /// Tensors that have the values of another one, which is looked at, by name.
    pub same: BTreeMap<String, String>,
}

/// All `float32` tensors that depend on what the graph is fed, but for those whose range the maths gives, as that of
/// `Softmax`.
pub fn taps(graph: &Graph) -> Taps {
    let mut taps = Taps::default();
    // For each value that depends on an input, where its values were first.
    let mut origin: BTreeMap<ValueId, ValueId> = graph.inputs.iter().map(|id| (*id, *id)).collect();
    let moves = graph.nodes.iter().filter(|node| Rule::of(node).is_none_or(|rule| rule.moves));
    let moved_on: BTreeSet<ValueId> =
        moves.flat_map(|node| node.inputs.iter().flatten()).chain(&graph.outputs).copied().collect();
    let is_float = |id: &ValueId| graph.ty(*id).dtype == DType::Float32;
    taps.observed.extend(graph.inputs.iter().filter(|id| is_float(id)));
    for node in &graph.nodes {
        if !node.inputs.iter().flatten().any(|id| origin.contains_key(id)) {
            continue;
        }
        let moved = node.inputs.first().copied().flatten().filter(|_| MOVES.contains(&node.op.name));
        let source = moved.and_then(|from| origin.get(&from).copied());
        let is_bounded = Rule::of(node).is_some_and(|rule| rule.gives.is_some());
        for output in &node.outputs {
            origin.insert(*output, source.unwrap_or(*output));
            if is_bounded && !moved_on.contains(output) {
                continue;
            }
            match source {
                _ if !is_float(output) => {}
                None => taps.observed.push(*output),
                Some(from) => {
                    taps.same.insert(graph.value(*output).name.clone(), graph.value(from).name.clone());
                }
            }
        }
    }
    taps
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder};

    use super::*;

    #[test]
    fn what_is_moved_is_looked_at_once_and_constants_never() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2, 3]);
        let a = b.floats("a", &[3], &[1.0; 3]);
        let swap = [("perm", Attribute::Ints(vec![1, 0]))];
        let constant = b.node("Add", "double", &[a, a], &[]).unwrap();
        let y = b.node("Add", "add", &[x, constant], &[]).unwrap();
        let turned = b.node("Transpose", "turn", &[y], &swap).unwrap();
        let back = b.node("Transpose", "back", &[turned], &swap).unwrap();
        let z = b.node("Mul", "mul", &[back, x], &[]).unwrap();
        b.output("z", z);
        let graph = b.finish().unwrap();
        let found = taps(&graph);
        let name = |id: &ValueId| graph.value(*id).name.clone();
        assert_eq!(found.observed.iter().map(name).collect::<Vec<_>>(), ["x", "add", "z"]);
        let same: Vec<_> = found.same.iter().map(|(a, b)| format!("{a} is {b}")).collect();
        assert_eq!(same, ["back is add", "turn is add"]);
    }

    #[test]
    fn what_the_maths_bounds_is_looked_at_only_where_it_moves_on() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2, 3]);
        let gate = b.node("Sigmoid", "gate", &[x], &[]).unwrap();
        let y = b.node("Mul", "mul", &[x, gate], &[]).unwrap();
        let shares = b.node("Softmax", "shares", &[y], &[("axis", Attribute::Int(-1))]).unwrap();
        let turned = b.node("Transpose", "turn", &[shares], &[("perm", Attribute::Ints(vec![1, 0]))]).unwrap();
        let z = b.node("Tanh", "tanh", &[turned], &[]).unwrap();
        b.output("z", z);
        let graph = b.finish().unwrap();
        let found = taps(&graph);
        let names: Vec<_> = found.observed.iter().map(|id| graph.value(*id).name.as_str()).collect();
        assert_eq!(names, ["x", "mul", "shares", "z"]);
    }
}
