//! Normalizations.

use super::{Context, Kind, Need, Operator, no_macs};
use crate::graph::TensorType;

/// The rows.
pub(super) static OPERATORS: &[Operator] = &[
    Operator {
        name: "InstanceNormalization",
        domain: "",
        since: 6,
        inputs: (3, 3),
        attributes: &[("epsilon", Kind::Float, Need::Optional)],
        infer: instance,
        macs: no_macs,
    },
    Operator {
        name: "LayerNormalization",
        domain: "",
        since: 17,
        inputs: (2, 3),
        attributes: &[("axis", Kind::Int, Need::Optional), ("epsilon", Kind::Float, Need::Optional)],
        infer: layer,
        macs: no_macs,
    },
];

/// `[n,c,...]` with `[c]` and `[c]`.
fn instance(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    c.same_dtype(3)?;
    let channels = *c.shape(0)?.get(1).ok_or("input 0 must have two dimensions or more")?;
    for index in [1, 2] {
        if c.dims::<1>(index)? != [channels] {
            return Err(format!("input {index} must have shape [{channels}], got {:?}", c.shape(index)?));
        }
    }
    c.same_as_first()
}

/// Normalizes over the dimensions from `axis` on; scale and bias have their shape.
fn layer(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    c.same_dtype(3)?;
    let shape = c.shape(0)?;
    let normalized = &shape[super::axis(c.node.int("axis", -1), shape.len())?..];
    for (index, ty) in c.types.iter().enumerate().skip(1) {
        if ty.is_some_and(|t| t.shape != normalized) {
            return Err(format!("input {index} must have shape {normalized:?}, got {:?}", c.shape(index)?));
        }
    }
    c.same_as_first()
}
