//! Tensors that a `Concat` joins with far greater ones.
//!
//! What a `Concat` joins has one scale, that of the greatest. A tensor that also goes another way, as a UNet's skips do,
//! would have too few steps there: where the others are more than [`FAR`] times as great, it keeps its own scale, and a
//! conversion stands before the `Concat`.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::{Graph, Node, ValueId};

use crate::Range;
use crate::rules::{Operand, Rule};

/// How many times as great the others are: three bits of the tensor's own would be lost.
const FAR: f32 = 8.0;

/// Inputs of nodes, by the places of both, that have a scale of their own.
pub(crate) type Apart = BTreeSet<(usize, usize)>;

/// All inputs of joins.
pub(crate) fn joined(graph: &Graph) -> Apart {
    let inputs = |(at, node): (usize, &Node)| {
        let rule = Rule::of(node).filter(|rule| rule.joins());
        let operands = (0..node.inputs.len())
            .filter(|index| rule.is_some_and(|rule| rule.operand(graph, node, *index) == Some(Operand::Activation)));
        operands.map(|index| (at, index)).collect::<Vec<_>>()
    };
    graph.nodes.iter().enumerate().flat_map(inputs).collect()
}

/// Those inputs of joins that are far smaller than others of the same join. `ranges` has the range of each set, and `sets`
/// the set of each value, as they are where nothing is joined.
pub(crate) fn apart(graph: &Graph, joined: &Apart, sets: &[usize], ranges: &BTreeMap<usize, Range>) -> Apart {
    let value = |(at, index): (usize, usize)| graph.nodes[at].inputs[index];
    let width =
        |id: ValueId| ranges.get(&sets[graph.index_of(id)]).map(|range| range.max.max(0.0) - range.min.min(0.0));
    let others = |at: usize| joined.range((at, 0)..(at + 1, 0)).filter_map(|input| width(value(*input)?));
    let readers = |id: ValueId| graph.nodes.iter().filter(|node| node.inputs.contains(&Some(id))).count();
    let is_apart = |input: &&(usize, usize)| {
        let Some(id) = value(**input) else { return false };
        let far = width(id).is_some_and(|own| others(input.0).any(|other| other > FAR * own));
        far && readers(id) > 1
    };
    joined.iter().filter(is_apart).copied().collect()
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, DType};

    use super::*;

    #[test]
    fn what_is_far_smaller_stays_apart() {
        let mut b = Builder::new("g");
        let inputs = ["small", "great", "middling", "dead end"].map(|name| b.input(name, DType::Float32, &[1, 2]));
        let axis = [("axis", Attribute::Int(1))];
        let y = b.node("Concat", "join", &inputs, &axis).expect("fits");
        b.output("y", y);
        for (name, id) in ["a", "b", "c"].iter().zip(inputs) {
            let other = b.node("Relu", name, &[id], &[]).expect("fits");
            b.output(name, other);
        }
        let graph = b.finish().expect("a graph").into_inner();
        let sets: Vec<usize> = (0..graph.values().count()).collect();
        let of = |id: ValueId, max: f32| (graph.index_of(id), Range { min: -max, max });
        let ranges = [of(inputs[0], 1.0), of(inputs[1], 10.0), of(inputs[2], 1.5), of(inputs[3], 0.1)].into();
        let joined = joined(&graph);
        assert_eq!(joined.len(), 4);
        assert_eq!(apart(&graph, &joined, &sets, &ranges), Apart::from([(0, 0)]));
    }

    #[test]
    fn a_conversion_stands_before_the_join() {
        let precision = edge_spec::Target::find("qnn").expect("built in").precision.expect("integers");
        let settings = crate::Settings::of(edge_spec::Scheme::W8a16, &precision, 21);
        let quantized = |most: f32| {
            let mut b = Builder::new("g");
            let [skip, below] = ["skip", "below"].map(|name| b.input(name, DType::Float32, &[1, 2]));
            let up = b.node("Mul", "up", &[below, below], &[]).expect("fits");
            let join = b.node("Concat", "join", &[skip, up], &[("axis", Attribute::Int(1))]).expect("fits");
            let other = b.node("Relu", "other", &[skip], &[]).expect("fits");
            b.output("join", join);
            b.output("other", other);
            let ranges = |name: &str, _: DType| {
                let max = if name == "up" { most } else { 1.0 };
                Some(Range { min: -max, max })
            };
            let graph = b.finish().expect("a graph");
            let done = crate::quantize(&graph, &settings, &ranges, &mut crate::SharedWeights::default());
            done.expect("ranges are known").graph
        };
        // The scales in which the two readers of `skip` have it, and that of the other input of the join.
        let scales = |graph: &Graph| {
            let read = |op: &str, index: usize| {
                let node = graph.nodes.iter().find(|n| n.op.name == op).expect("is there");
                let maker = graph.nodes.iter().find(|n| n.outputs.contains(&node.inputs[index].expect("an input")));
                edge_ir::ops::quantize::encoding(graph, maker.expect("a pair")).expect("linear").scales[0]
            };
            [read("Relu", 0), read("Concat", 0), read("Concat", 1)]
        };
        let [own, as_joined, joined] = scales(&quantized(100.0));
        assert!(as_joined.to_bits() == joined.to_bits() && (joined / own - 100.0).abs() < 1e-2, "{own} {joined}");
        let [own, as_joined, joined] = scales(&quantized(4.0));
        assert!(own.to_bits() == joined.to_bits() && as_joined.to_bits() == joined.to_bits(), "{own} {joined}");
    }
}
