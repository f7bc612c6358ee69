//! What rules name in a graph.

use std::collections::BTreeSet;

use edge_ir::{Graph, Node};
use edge_spec::PrecisionRule;

use crate::rules::{Operand, Rule};
use crate::settings::is_part;

/// How many near names are given.
const NEAR: usize = 3;

/// Whether a rule changes a layer of the graph: one that it names can be quantized and, if it says something of weights
/// alone, has weights.
pub fn applies(rule: &PrecisionRule, graph: &Graph) -> bool {
    let named = |node: &&Node| is_part(node, &rule.of) && Rule::of(node).is_some();
    let mut nodes = graph.nodes.iter().filter(named);
    nodes.any(|node| rule.activations.is_some() || has_weights(graph, node))
}

/// Whether a node is a layer with weights.
pub fn has_weights(graph: &Graph, node: &Node) -> bool {
    let Some(rule) = Rule::of(node) else { return false };
    (0..node.inputs.len()).any(|index| matches!(rule.operand(graph, node, index), Some(Operand::Weight(_))))
}

/// Names in these graphs that are nearest to one that is in none: operators, modules, and single words of their paths.
pub fn near<'a>(of: &str, graphs: impl Iterator<Item = &'a Graph>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for node in graphs.flat_map(|graph| &graph.nodes).filter(|node| Rule::of(node).is_some()) {
        names.insert(node.op.name.to_owned());
        let module = node.module();
        let ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
        names.extend(ends.map(|end| module[..end].to_owned()));
        names.extend(module.split('.').filter(|word| word.parse::<usize>().is_err()).map(str::to_owned));
    }
    let far = (of.chars().count() / 2).max(2);
    let mut near: Vec<(usize, String)> = names.into_iter().map(|name| (distance(of, &name), name)).collect();
    near.retain(|(distance, _)| *distance <= far);
    near.sort();
    near.into_iter().take(NEAR).map(|(_, name)| name).collect()
}

/// How many characters have to be put in, taken out or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType};
    use edge_spec::{ActivationType, WeightType};

    use super::*;

    fn graph() -> edge_ir::Checked<Graph> {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 1, 2, 2]);
        let w = b.floats("w", &[1, 1, 1, 1], &[2.0]);
        let ones = || edge_ir::Attribute::Ints(vec![1, 1]);
        let attributes = [
            ("dilations", ones()),
            ("group", edge_ir::Attribute::Int(1)),
            ("kernel_shape", ones()),
            ("pads", edge_ir::Attribute::Ints(vec![0; 4])),
            ("strides", ones()),
        ];
        let y = b.node("Conv", "up_blocks.0.conv1", &[x, w], &attributes).expect("a node");
        let z = b.node("Add", "up_blocks.0/Add", &[x, y], &[]).expect("a node");
        b.output("z", z);
        b.finish().expect("a graph")
    }

    #[test]
    fn a_rule_names_operators_modules_pieces_and_nodes() {
        let graph = graph();
        let check = |of: &str, weights: bool, activations: bool| {
            let rule = |w, a| PrecisionRule { of: of.into(), weights: w, activations: a };
            let found = [rule(Some(WeightType::Int8), None), rule(None, Some(ActivationType::Float))];
            assert_eq!(found.map(|rule| applies(&rule, &graph)), [weights, activations], "{of}");
        };
        for of in ["Conv", "up_blocks", "up_blocks.0", "conv1", "0.conv1", "up_blocks.0.conv1/"] {
            check(of, true, true);
        }
        for of in ["Add", "up_blocks.0/", "up_blocks.0/Add"] {
            check(of, false, true);
        }
        for of in ["conv", "blocks", "Mul", "up_blocks/", "up_blocks.0.conv", ""] {
            check(of, false, false);
        }
    }

    #[test]
    fn near_names_are_given() {
        let graph = graph();
        assert_eq!(near("conv2", [&*graph].into_iter()), ["conv1", "Conv"]);
        assert_eq!(near("up_block.0", [&*graph].into_iter()), ["up_blocks.0", "up_blocks"]);
        assert!(near("zzzzzz", [&*graph].into_iter()).is_empty());
    }
}
