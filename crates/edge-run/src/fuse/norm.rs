//! Group norm in its form of seven operators, and layer norm.

use edge_ir::{Attribute, ValueId};

use super::Found;
use super::rows::{EDGE_GROUP_NORM, EDGE_LAYER_NORM};
use edge_ir::{View, pair, replacement};

/// Reshape, instance norm with unit gain, reshape, gain and shift per channel.
pub(super) fn group_norm(view: &View<'_>, index: usize) -> Option<Found> {
    let add = view.node(index, "Add")?;
    let (scaled, shift) = pair(add)?;
    let (mul_at, mul) = view.only_maker(scaled, "Mul")?;
    let (image, gain) = pair(mul)?;
    let (back_at, back) = view.only_maker(image, "Reshape")?;
    let (norm_at, norm) = view.only_maker(back.inputs[0]?, "InstanceNormalization")?;
    let [Some(grouped), Some(ones), Some(zeros)] = norm.inputs[..] else { return None };
    let (split_at, split) = view.only_maker(grouped, "Reshape")?;
    let x = split.inputs[0]?;
    let channels = *view.shape(x).get(1)?;
    let per_channel = |id: ValueId| view.shape(id) == [1, channels, 1, 1] && view.graph.value(id).data.is_some();
    let whole = view.shape(x) == view.shape(image) && view.shape(x).len() == 4;
    if !whole || !per_channel(gain) || !per_channel(shift) || !view.is_all(ones, 1.0) || !view.is_all(zeros, 0.0) {
        return None;
    }
    let groups = i64::try_from(view.shape(grouped)[1]).ok()?;
    let attributes = [
        ("groups", Attribute::Int(groups)),
        ("epsilon", Attribute::Float(norm.float("epsilon", 1e-5))),
        ("silu", Attribute::Int(0)),
    ];
    let node = replacement(&EDGE_GROUP_NORM, add, vec![x, gain, shift], attributes);
    Some(Found { gone: vec![index, mul_at, back_at, norm_at, split_at], node })
}

/// The operator of opset 21, which has gain and shift for each channel, as this crate's own has.
pub(super) fn group_norm_operator(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "GroupNormalization")?;
    let attributes = [
        ("groups", Attribute::Int(node.int("num_groups", 1))),
        ("epsilon", Attribute::Float(node.float("epsilon", 1e-5))),
        ("silu", Attribute::Int(0)),
    ];
    let inputs = node.inputs.iter().copied().flatten().collect();
    Some(Found { gone: vec![index], node: replacement(&EDGE_GROUP_NORM, node, inputs, attributes) })
}

/// Group norm followed by SiLU.
pub(super) fn group_norm_silu(view: &View<'_>, index: usize) -> Option<Found> {
    let silu = view.node(index, "EdgeSilu")?;
    let (at, norm) = view.only_maker(silu.inputs[0]?, "EdgeGroupNorm")?;
    let mut node =
        replacement(&EDGE_GROUP_NORM, silu, norm.inputs.iter().copied().flatten().collect(), norm.attributes.clone());
    node.attributes.insert("silu", Attribute::Int(1));
    Some(Found { gone: vec![index, at], node })
}

/// Layer norm over the last axis, with gain and shift.
pub(super) fn layer_norm(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "LayerNormalization")?;
    let inputs: Vec<_> = node.inputs.iter().copied().flatten().collect();
    let rank = i64::try_from(view.shape(*inputs.first()?).len()).ok()?;
    if inputs.len() != 3 || !(node.int("axis", -1) == -1 || node.int("axis", -1) == rank - 1) {
        return None;
    }
    let epsilon = [("epsilon", Attribute::Float(node.float("epsilon", 1e-5)))];
    Some(Found { gone: vec![index], node: replacement(&EDGE_LAYER_NORM, node, inputs, epsilon) })
}
