//! Convolutions and linear layers.

use edge_ir::Attribute;

use super::Found;
use super::rows::{EDGE_CONV, EDGE_LINEAR};
use edge_ir::{View, replacement};

/// A dense convolution.
pub(super) fn conv(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "Conv")?;
    let dense = node.int("group", 1) == 1 && node.ints("dilations").is_none_or(|d| d.iter().all(|d| *d == 1));
    if !dense {
        return None;
    }
    let keep =
        ["kernel_shape", "strides", "pads"].into_iter().filter_map(|k| node.attributes.get(k).map(|v| (k, v.clone())));
    Some(Found {
        gone: vec![index],
        node: replacement(&EDGE_CONV, node, node.inputs.iter().copied().flatten().collect(), keep),
    })
}

/// `x w^T + b`.
pub(super) fn linear(view: &View<'_>, index: usize) -> Option<Found> {
    let node = view.node(index, "Gemm")?;
    let is_one = |name| (node.float(name, 1.0) - 1.0).abs() < f32::EPSILON;
    let plain = node.int("transA", 0) == 0 && node.int("transB", 0) == 1 && is_one("alpha") && is_one("beta");
    let inputs: Vec<_> = node.inputs.iter().copied().flatten().collect();
    let bias_is_row = inputs.get(2).is_none_or(|b| view.shape(*b).len() == 1);
    let none: [(&str, Attribute); 0] = [];
    (plain && bias_is_row).then(|| Found { gone: vec![index], node: replacement(&EDGE_LINEAR, node, inputs, none) })
}
