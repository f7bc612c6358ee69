//! A graph in pieces that run one after the other: one can be changed while the others stay loaded, and what those before
//! it gave can be kept.

use std::collections::BTreeSet;
use std::ops::Range;

use edge_ir::{Checked, Error, Graph, ValueId};

use crate::insert::fold_casts;

/// Pieces of paths that end a piece's name; the one behind them belongs to it.
const MODULES: &[&str] = &["resnets", "attentions", "downsamplers", "upsamplers"];

/// The graph in pieces, which read tensors of each other by their names: what follows one another within a ResNet, a
/// transformer or a resampler is one, and so is what lies between those. Together they have the graph's nodes, but for casts
/// of weights, which are part of the weights then.
///
/// # Errors
/// If a piece is no sound graph.
pub fn pieces(graph: &Graph) -> Result<Vec<Checked<Graph>>, Error> {
    let graph = &fold_casts(graph);
    let made: BTreeSet<ValueId> = graph.nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
    if !graph.outputs.iter().all(|id| made.contains(id)) {
        return Ok(vec![graph.clone().check()?]);
    }
    let readers = graph.consumers();
    let piece = |range: Range<usize>| {
        let mut piece = graph.clone();
        piece.nodes.truncate(range.end);
        piece.nodes.drain(..range.start);
        let own: BTreeSet<ValueId> = piece.nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
        let read: BTreeSet<ValueId> =
            piece.nodes.iter().flat_map(|node| node.inputs.iter().flatten().copied()).collect();
        let is_fed = |id: &ValueId| graph.value(*id).data.is_none() && !own.contains(id);
        let is_read = |id: &ValueId| {
            graph.outputs.contains(id) || readers[graph.index_of(*id)].iter().any(|reader| !range.contains(reader))
        };
        piece.inputs = read.into_iter().filter(is_fed).collect();
        piece.outputs = own.into_iter().filter(is_read).collect();
        piece.prune();
        piece.check()
    };
    stretches(graph).into_iter().map(piece).collect()
}

/// Nodes that follow one another in one module.
fn stretches(graph: &Graph) -> Vec<Range<usize>> {
    let mut start = 0;
    let same = graph.nodes.chunk_by(|a, b| module(a.module()) == module(b.module()));
    let range = |nodes: &[edge_ir::Node]| {
        let range = start..start + nodes.len();
        start = range.end;
        range
    };
    same.map(range).collect()
}

/// The module that makes a piece; none for what lies between.
fn module(path: &str) -> Option<&str> {
    let mut pieces = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    let mut start = 0;
    while let Some(end) = pieces.next() {
        if MODULES.contains(&&path[start..end]) {
            return Some(&path[..pieces.next().unwrap_or(end)]);
        }
        start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType};

    use super::*;

    #[test]
    fn pieces_are_of_one_module_and_read_what_others_give() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2]);
        let two = b.floats("two", &[1], &[2.0]);
        let y = b.node("Mul", "conv_in", &[x, two], &[]).unwrap();
        let z = b.node("Mul", "a.resnets.0.norm1", &[y, two], &[]).unwrap();
        let z = b.node("Add", "a.resnets.0/Add", &[z, y], &[]).unwrap();
        let z = b.node("Add", "a.resnets.1.conv1", &[z, two], &[]).unwrap();
        let z = b.node("Add", "conv_norm_out", &[z, y], &[]).unwrap();
        let z = b.node("Add", "conv_out", &[z, x], &[]).unwrap();
        b.output("z", z);
        let graph = b.finish().unwrap();
        let found = pieces(&graph).unwrap();
        let names = |piece: &Graph, ids: &[ValueId]| -> Vec<String> {
            ids.iter().map(|id| piece.value(*id).name.clone()).collect()
        };
        let ports: Vec<_> = found.iter().map(|p| (p.nodes.len(), names(p, &p.inputs), names(p, &p.outputs))).collect();
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            ports,
            [
                (1, words(&["x"]), words(&["conv_in"])),
                (2, words(&["conv_in"]), words(&["a_resnets_0_Add"])),
                (1, words(&["a_resnets_0_Add"]), words(&["a_resnets_1_conv1"])),
                (2, words(&["x", "conv_in", "a_resnets_1_conv1"]), words(&["z"])),
            ]
        );
        assert!(found.iter().all(|piece| piece.name == "g"));
    }
}
