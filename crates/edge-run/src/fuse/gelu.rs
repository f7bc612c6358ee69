//! The exact GELU, and the gate that uses it.

use edge_ir::Attribute;

use super::Found;
use super::rows::{EDGE_GEGLU, EDGE_GELU};
use edge_ir::{View, pair, replacement};

const NO_ATTRIBUTES: [(&str, Attribute); 0] = [];

/// `0.5 * (x * (erf(x / sqrt 2) + 1))`.
pub(super) fn gelu(view: &View<'_>, index: usize) -> Option<Found> {
    let half = view.node(index, "Mul")?;
    let (product, _) = view.with_number(half).filter(|(_, n)| is(*n, 0.5))?;
    let (product_at, product) = view.only_maker(product, "Mul")?;
    let (x, sum) = pair(product)?;
    let (sum_at, sum) = view.only_maker(sum, "Add")?;
    let (erf, _) = view.with_number(sum).filter(|(_, n)| is(*n, 1.0))?;
    let (erf_at, erf) = view.only_maker(erf, "Erf")?;
    let (div_at, div) = view.only_maker(erf.inputs[0]?, "Div")?;
    let (scaled, _) = view.with_number(div).filter(|(_, n)| is(*n, std::f32::consts::SQRT_2))?;
    let node = replacement(&EDGE_GELU, half, vec![x], NO_ATTRIBUTES);
    (scaled == x).then_some(Found { gone: vec![index, product_at, sum_at, erf_at, div_at], node })
}

/// The operator of opset 20, in its exact form.
pub(super) fn gelu_operator(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "Gelu").filter(|n| n.string("approximate", "none") == "none")?;
    Some(Found { gone: vec![index], node: replacement(&EDGE_GELU, node, vec![node.inputs[0]?], NO_ATTRIBUTES) })
}

/// `a * gelu(b)` where `a` and `b` are the two halves of one tensor's last axis.
pub(super) fn geglu(view: &View<'_>, index: usize) -> Option<Found> {
    let mul = view.node(index, "Mul")?;
    let (a, gate) = pair(mul)?;
    let (gelu_at, gelu) = view.only_maker(gate, "EdgeGelu")?;
    let b = gelu.inputs[0]?;
    let (split_at, split) = view.only_maker(a, "Split")?;
    let both = split.inputs[0]?;
    let rank = i64::try_from(view.shape(both).len()).ok()?;
    let last = split.int("axis", 0) == -1 || split.int("axis", 0) == rank - 1;
    let halves = split.outputs == [a, b] && view.shape(a) == view.shape(b) && view.uses(b) == 1;
    let node = replacement(&EDGE_GEGLU, mul, vec![both], NO_ATTRIBUTES);
    (last && halves).then_some(Found { gone: vec![index, gelu_at, split_at], node })
}

fn is(number: f32, expected: f32) -> bool {
    number.to_bits() == expected.to_bits()
}
