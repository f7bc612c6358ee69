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
    // Before opset 21 scale and bias were per group.
    Operator {
        name: "GroupNormalization",
        domain: "",
        since: 21,
        inputs: (3, 3),
        attributes: &[("num_groups", Kind::Int, Need::Required), ("epsilon", Kind::Float, Need::Optional)],
        infer: group,
        macs: no_macs,
    },
    // Before opset 18 the axes were an attribute.
    Operator {
        name: "ReduceMean",
        domain: "",
        since: 18,
        inputs: (2, 2),
        attributes: &[("keepdims", Kind::Int, Need::Optional)],
        infer: mean,
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

/// `[n,c,...]` in groups of channels, with `[c]` and `[c]`.
fn group(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let groups = c.node.int("num_groups", 0);
    let channels = c.shape(0)?.get(1).copied().unwrap_or(0);
    match usize::try_from(groups) {
        Ok(groups) if groups > 0 && channels % groups == 0 => instance(c),
        _ => Err(format!("{channels} channels do not make {groups} groups")),
    }
}

/// The axes are constant.
fn mean(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let mut shape = c.shape(0)?.to_vec();
    let axes = c.constant_ints(1)?.into_iter().map(|a| super::axis(a, shape.len())).collect::<Result<Vec<_>, _>>()?;
    for axis in &axes {
        shape[*axis] = 1;
    }
    if c.node.int("keepdims", 1) == 0 {
        shape = shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d).collect();
    }
    Ok(vec![TensorType::new(c.ty(0)?.dtype, shape)])
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
