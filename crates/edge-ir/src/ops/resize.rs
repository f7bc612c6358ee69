//! Resize: nearest neighbour to a constant size.

use super::{Context, Kind, Need, Operator, no_macs};
use crate::graph::TensorType;

/// The rows. Inputs are the image, an empty `roi`, an empty `scales` or the scales, and the sizes.
pub(super) static OPERATORS: &[Operator] = &[Operator {
    name: "Resize",
    domain: "",
    since: 13,
    inputs: (1, 4),
    attributes: &[
        ("mode", Kind::String, Need::Required),
        ("coordinate_transformation_mode", Kind::String, Need::Required),
        ("nearest_mode", Kind::String, Need::Required),
    ],
    infer,
    macs: no_macs,
}];

fn infer(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    for (name, only) in
        [("mode", "nearest"), ("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")]
    {
        let value = c.node.string(name, "");
        if value != only {
            return Err(format!("`{name}` must be `{only}`, got `{value}`"));
        }
    }
    let from = c.ty(0)?;
    if c.types.get(3).copied().flatten().is_some() {
        let sizes = c.constant_ints(3)?.into_iter().filter_map(|d| usize::try_from(d).ok()).collect::<Vec<_>>();
        return same_rank(from, sizes);
    }
    let scales = c.data.get(2).copied().flatten().ok_or("the scales must be constant")?.to_f32s();
    let scaled = |(d, s): (&usize, &f32)| whole(*d, *s);
    same_rank(from, from.shape.iter().zip(&scales).map(scaled).collect::<Result<Vec<_>, _>>()?)
}

/// `size * scale`, where the scale is a whole number.
fn whole(size: usize, scale: f32) -> Result<usize, String> {
    (1..=16_u16)
        .find(|n| f32::from(*n).to_bits() == scale.to_bits())
        .map(|n| size.saturating_mul(usize::from(n)))
        .ok_or_else(|| format!("a scale must be a whole number up to 16, got {scale}"))
}

fn same_rank(from: &TensorType, shape: Vec<usize>) -> Result<Vec<TensorType>, String> {
    if shape.len() != from.shape.len() {
        return Err(format!("expected {} sizes, got {}", from.shape.len(), shape.len()));
    }
    Ok(vec![TensorType::new(from.dtype, shape)])
}
