//! `softmax(scale q k^T + mask) v`, with or without a factor and a mask.

use edge_ir::Attribute;

use super::Found;
use super::rows::{EDGE_ATTENTION, EDGE_OBSERVE};
use crate::observe::{PARTS, TENSOR};
use edge_ir::{View, pair, replacement};

/// The product with the values, and all that leads to it from queries and transposed keys.
pub(super) fn attention(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "MatMul")?;
    let (shares, values) = pair(node)?;
    let (softmax_at, softmax) = view.only_maker(shares, "Softmax")?;
    if !matches!(softmax.int("axis", -1), -1 | 3) {
        return None;
    }
    let mut gone = vec![index, softmax_at];
    let mut scores = softmax.inputs[0]?;
    let mut mask = None;
    let shown = view.only_maker(scores, EDGE_OBSERVE.name).filter(|(_, observe)| observe.int(PARTS, 0) != 0);
    if let Some((at, observe)) = shown {
        gone.push(at);
        scores = observe.inputs[0]?;
    } else if let Some((at, add)) = view.only_maker(scores, "Add") {
        let (a, b) = pair(add)?;
        gone.push(at);
        (scores, mask) = (a, Some(b));
    }
    let (at, product) = view.only_maker(scores, "MatMul")?;
    gone.push(at);
    let (scaled, keys) = pair(product)?;
    // The factor may be in the weights.
    let mul = view.only_maker(scaled, "Mul").and_then(|(at, mul)| Some((at, view.with_number(mul)?)));
    gone.extend(mul.map(|(at, _)| at));
    let (queries, scale) = mul.map_or((scaled, 1.0), |(_, factors)| factors);
    if view.shape(queries).len() != 4 || mask.is_some_and(|m| !is_plane(view.shape(m), view.shape(scores))) {
        return None;
    }
    let inputs = [queries, keys, values].into_iter().chain(mask).collect();
    let shown = shown.map(|(_, observe)| ("scores", Attribute::String(observe.string(TENSOR, "").to_owned())));
    let attributes =
        [("scale", Attribute::Float(scale)), ("k_transposed", Attribute::Int(1)), ("heads_last", Attribute::Int(0))];
    let attributes = attributes.into_iter().chain(shown);
    Some(Found { gone, node: replacement(&EDGE_ATTENTION, node, inputs, attributes) })
}

/// An attention whose operands and result are transposed to put heads in front: it can take them as they are.
pub(super) fn heads_last(view: &View<'_>, index: usize) -> Option<Found> {
    let out = view.node(index, "Transpose").filter(|n| n.ints("perm") == Some(&[0, 2, 1, 3]))?;
    let (attention_at, attention) = view.only_maker(out.inputs[0]?, "EdgeAttention")?;
    let mut gone = vec![index, attention_at];
    let mut inputs = Vec::new();
    for (input, perm) in attention.inputs.iter().zip([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]) {
        let (at, transpose) = view.only_maker((*input)?, "Transpose")?;
        if transpose.ints("perm") != Some(&perm) {
            return None;
        }
        gone.push(at);
        inputs.push(transpose.inputs[0]?);
    }
    inputs.extend(attention.inputs.get(3).copied().flatten());
    let mut node = replacement(&EDGE_ATTENTION, out, inputs, attention.attributes.clone());
    node.attributes.extend([("k_transposed", Attribute::Int(0)), ("heads_last", Attribute::Int(1))]);
    Some(Found { gone, node })
}

/// `[1,1,s,t]` for scores `[b,h,s,t]`.
fn is_plane(mask: &[usize], scores: &[usize]) -> bool {
    mask.len() == 4 && mask[..2] == [1, 1] && mask[2..] == scores[2..]
}
