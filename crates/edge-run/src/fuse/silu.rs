//! Activations that are gated by a sigmoid.

use edge_ir::{Attribute, ValueId};

use super::Found;
use super::rows::{EDGE_QUICK_GELU, EDGE_SILU};
use edge_ir::{View, pair, replacement};

const NO_ATTRIBUTES: [(&str, Attribute); 0] = [];

/// `x * sigmoid(x)`.
pub(super) fn silu(view: &View<'_>, index: usize) -> Option<Found> {
    let (x, argument, sigmoid_at) = gated(view, index)?;
    let node = replacement(&EDGE_SILU, &view.graph.nodes[index], vec![x], NO_ATTRIBUTES);
    (x == argument).then_some(Found { gone: vec![index, sigmoid_at], node })
}

/// `x * sigmoid(1.702 x)`.
pub(super) fn quick_gelu(view: &View<'_>, index: usize) -> Option<Found> {
    let (x, argument, sigmoid_at) = gated(view, index)?;
    let (scale_at, scale) = view.only_maker(argument, "Mul")?;
    let (scaled, factor) = view.with_number(scale)?;
    let node = replacement(&EDGE_QUICK_GELU, &view.graph.nodes[index], vec![x], NO_ATTRIBUTES);
    let fits = scaled == x && factor.to_bits() == 1.702_f32.to_bits();
    fits.then_some(Found { gone: vec![index, sigmoid_at, scale_at], node })
}

/// For `x * sigmoid(y)`: x, y, and where the sigmoid is.
fn gated(view: &View<'_>, index: usize) -> Option<(ValueId, ValueId, usize)> {
    let (x, gate) = pair(view.node(index, "Mul")?)?;
    let (at, sigmoid) = view.only_maker(gate, "Sigmoid")?;
    Some((x, sigmoid.inputs[0]?, at))
}
