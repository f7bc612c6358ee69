//! Which tensors of a graph are looked at.

use std::collections::BTreeMap;

use edge_ir::{DType, Graph, ValueId};

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

/// All `float32` tensors that depend on what the graph is fed.
pub fn taps(graph: &Graph) -> Taps {
    let mut taps = Taps::default();
    // For each value that depends on an input, where its values were first.
    let mut origin: BTreeMap<ValueId, ValueId> = graph.inputs.iter().map(|id| (*id, *id)).collect();
    let is_float = |id: &ValueId| graph.ty(*id).dtype == DType::Float32;
    taps.observed.extend(graph.inputs.iter().filter(|id| is_float(id)));
    for node in &graph.nodes {
        if !node.inputs.iter().flatten().any(|id| origin.contains_key(id)) {
            continue;
        }
        let moved = node.inputs.first().copied().flatten().filter(|_| MOVES.contains(&node.op.name));
        let source = moved.and_then(|from| origin.get(&from).copied());
        for output in &node.outputs {
            origin.insert(*output, source.unwrap_or(*output));
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
}
