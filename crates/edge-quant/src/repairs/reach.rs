//! Where the channels of a tensor go: which layers read them, if nothing but moves lies in between.

use edge_ir::{Graph, Node, ValueId};

use crate::layers::Layer;

/// What reads the channels that lie along an axis of a tensor: places in a list of layers; `None` if others read them
/// too, or mix them.
pub(super) fn layers_behind(
    graph: &Graph,
    layers: &[Layer],
    consumers: &[Vec<usize>],
    (from, axis): (ValueId, usize),
) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    let mut left = vec![(from, axis)];
    while let Some((id, axis)) = left.pop() {
        if graph.outputs.contains(&id) {
            return None;
        }
        for reader in &consumers[graph.index_of(id)] {
            let node = &graph.nodes[*reader];
            if let Some(layer) = layers.iter().position(|l| l.node == *reader && l.input == id) {
                let own = if node.op.name == "Conv" { 1 } else { graph.ty(id).shape.len() - 1 };
                let once = node.inputs.iter().filter(|input| **input == Some(id)).count() == 1;
                if own != axis || layers[layer].patches.groups() > 1 || !once {
                    return None;
                }
                found.push(layer);
            } else {
                left.push((*node.outputs.first()?, moved(graph, node, id, axis)?));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then_some(found)
}

/// The axis of the channels after a node that keeps them apart, and their factors.
fn moved(graph: &Graph, node: &Node, id: ValueId, axis: usize) -> Option<usize> {
    let (from, to) = (&graph.ty(id).shape, &graph.ty(*node.outputs.first()?).shape);
    match node.op.name {
        "Transpose" => node.ints("perm")?.iter().position(|p| usize::try_from(*p) == Ok(axis)),
        "Reshape" => {
            let before = |shape: &[usize], axis: usize| shape[..axis].iter().product::<usize>();
            (0..to.len()).find(|k| to[*k] == from[axis] && before(to, *k) == before(from, axis))
        }
        // A product with another tensor of the same shape.
        "Mul" => {
            let whole = node.inputs.iter().flatten().all(|other| graph.ty(*other).shape == *to);
            (whole && node.inputs[0] != node.inputs[1]).then_some(axis)
        }
        _ => None,
    }
}
