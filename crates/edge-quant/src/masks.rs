//! Masks of attention: constants that hide scores from a `Softmax` by a number far below all others, as -10000. Integers
//! over such a span have none left for the scores, so that a mask gets a span that hides just as well.

use std::collections::BTreeMap;

use edge_ir::{DType, Data, Graph, ValueId};

use crate::Range;
use crate::plan::Ranges;

/// What is at least so far below is a mask.
const MASKED: f32 = -1000.0;
/// How far below the least score what is hidden has to be: of the sum of a softmax it is at most 1.2e-7 then, and the finest
/// integers are 1.5e-5.
const BELOW: f32 = 16.0;

/// The ranges of masks, and of the sums of masks and scores.
pub(crate) fn masks(graph: &Graph, dtype: DType, ranges: Ranges<'_>) -> BTreeMap<ValueId, Range> {
    let readers = graph.consumers();
    let mut sums: BTreeMap<ValueId, Vec<(ValueId, Range)>> = BTreeMap::new();
    for (mask, value, data) in graph.initializers() {
        let all = &readers[graph.index_of(mask)];
        let is_mask = value.ty.dtype == DType::Float32 && !all.is_empty() && least(data) <= MASKED;
        let sum = |index: &usize| {
            let node = &graph.nodes[*index];
            let [Some(a), Some(b)] = node.inputs[..] else { return None };
            let scores = if a == mask { b } else { a };
            let to = *node.outputs.first()?;
            let hides = readers[graph.index_of(to)].iter().all(|i| graph.nodes[*i].op.name == "Softmax");
            let alone = hides && !graph.outputs.contains(&to) && !readers[graph.index_of(to)].is_empty();
            Some((to, ranges(&graph.value(scores).name, dtype)?)).filter(|_| node.op.name == "Add" && alone)
        };
        if is_mask && let Some(found) = all.iter().map(sum).collect::<Option<Vec<_>>>() {
            sums.insert(mask, found);
        }
    }
    let mut limited = BTreeMap::new();
    for (mask, sums) in sums {
        let span = sums.iter().map(|(_, scores)| scores.max - scores.min).fold(0.0, f32::max);
        let hidden = -(span + BELOW);
        limited.insert(mask, Range { min: hidden, max: 0.0 });
        limited.extend(sums.iter().map(|(to, scores)| (*to, Range { min: scores.min + hidden, max: scores.max })));
    }
    limited
}

/// The least number of a mask, which has nothing above 0; infinity of another constant.
fn least(data: &Data) -> f32 {
    match Range::of(&data.to_f32s()) {
        Some(Range { min, max }) if max <= 0.0 => min,
        _ => f32::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder};

    use super::*;

    fn attention(lowest: f32, read_twice: bool) -> Graph {
        let mut b = Builder::new("g");
        let scores = b.input("scores", DType::Float32, &[1, 2, 2]);
        let mask = b.floats("mask", &[2, 2], &[0.0, lowest, 0.0, 0.0]);
        let sum = b.node("Add", "sum", &[scores, mask], &[]).unwrap();
        let y = b.node("Softmax", "softmax", &[sum], &[("axis", Attribute::Int(-1))]).unwrap();
        b.output("y", y);
        if read_twice {
            b.output("sum", sum);
        }
        b.finish().unwrap().into_inner()
    }

    #[test]
    fn a_mask_hides_with_the_span_that_it_needs() {
        let ranges = |name: &str, _: DType| (name == "scores").then_some(Range { min: -3.0, max: 5.0 });
        let graph = attention(-10_000.0, false);
        let found: Vec<_> = masks(&graph, DType::Uint16, &ranges)
            .into_iter()
            .map(|(id, r)| (graph.value(id).name.clone(), r))
            .collect();
        let names: Vec<_> = found.iter().map(|(name, _)| name.split('_').next().unwrap()).collect();
        assert_eq!(names, ["mask", "sum"]);
        assert_eq!((found[0].1.min, found[0].1.max), (-24.0, 0.0));
        assert_eq!((found[1].1.min, found[1].1.max), (-27.0, 5.0));
        // A bias is no mask, and what somebody else reads stays as it is.
        assert!(masks(&attention(-20.0, false), DType::Uint16, &ranges).is_empty());
        assert!(masks(&attention(-10_000.0, true), DType::Uint16, &ranges).is_empty());
        assert!(masks(&graph, DType::Uint16, &|_, _| None).is_empty());
    }
}
