//! Operators that move or select elements.

use super::{Context, Kind, Need, Operator, axis, no_macs};
use crate::DType;
use crate::graph::TensorType;

/// The rows.
pub(super) static OPERATORS: &[Operator] = &[
    Operator { name: "Reshape", domain: "", since: 14, inputs: (2, 2), attributes: &[], infer: reshape, macs: no_macs },
    Operator {
        name: "Transpose",
        domain: "",
        since: 13,
        inputs: (1, 1),
        attributes: &[("perm", Kind::Ints, Need::Required)],
        infer: transpose,
        macs: no_macs,
    },
    Operator {
        name: "Concat",
        domain: "",
        since: 13,
        inputs: (1, usize::MAX),
        attributes: &[("axis", Kind::Int, Need::Required)],
        infer: concat,
        macs: no_macs,
    },
    Operator {
        name: "Split",
        domain: "",
        since: 13,
        inputs: (2, 2),
        attributes: &[("axis", Kind::Int, Need::Required)],
        infer: split,
        macs: no_macs,
    },
    Operator {
        name: "Gather",
        domain: "",
        since: 13,
        inputs: (2, 2),
        attributes: &[("axis", Kind::Int, Need::Optional)],
        infer: gather,
        macs: no_macs,
    },
    Operator { name: "Slice", domain: "", since: 13, inputs: (4, 4), attributes: &[], infer: slice, macs: no_macs },
    Operator {
        name: "DepthToSpace",
        domain: "",
        since: 13,
        inputs: (1, 1),
        attributes: &[("blocksize", Kind::Int, Need::Required), ("mode", Kind::String, Need::Optional)],
        infer: depth_to_space,
        macs: no_macs,
    },
];

/// The target shape is a constant without 0 or -1: shapes are static.
fn reshape(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let shape = c
        .constant_ints(1)?
        .iter()
        .map(|d| {
            usize::try_from(*d).ok().filter(|d| *d > 0).ok_or_else(|| format!("expected a positive size, got {d}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (from, to) = (c.ty(0)?, TensorType::new(c.ty(0)?.dtype, shape));
    if from.elements() != to.elements() {
        return Err(format!("{:?} has not as many elements as {:?}", from.shape, to.shape));
    }
    Ok(vec![to])
}

fn transpose(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let shape = c.shape(0)?;
    let perm = c.node.ints("perm").unwrap_or_default();
    let order: Vec<usize> = perm.iter().filter_map(|p| usize::try_from(*p).ok()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..shape.len()) {
        return Err(format!("perm {perm:?} is not a permutation of {} dimensions", shape.len()));
    }
    Ok(vec![TensorType::new(c.ty(0)?.dtype, order.iter().map(|i| shape[*i]).collect::<Vec<_>>())])
}

fn concat(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let dtype = c.same_dtype(c.types.len())?;
    let mut shape = c.shape(0)?.to_vec();
    let axis = axis(c.node.int("axis", 0), shape.len())?;
    for index in 1..c.types.len() {
        let other = c.shape(index)?;
        let alike = other.len() == shape.len() && (0..shape.len()).all(|i| i == axis || other[i] == shape[i]);
        if !alike {
            return Err(format!("{other:?} cannot be joined to {shape:?} along axis {axis}"));
        }
        shape[axis] = shape[axis].saturating_add(other[axis]);
    }
    Ok(vec![TensorType::new(dtype, shape)])
}

fn split(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let shape = c.shape(0)?;
    let axis = axis(c.node.int("axis", 0), shape.len())?;
    let sizes = c.constant_ints(1)?;
    if usize::try_from(sizes.iter().fold(0_i64, |sum, size| sum.saturating_add(*size))) != Ok(shape[axis]) {
        return Err(format!("the parts {sizes:?} do not add up to {}", shape[axis]));
    }
    let part = |size: i64| {
        let mut part = shape.to_vec();
        part[axis] = usize::try_from(size).map_err(|_| format!("expected a positive size, got {size}"))?;
        Ok(TensorType::new(c.ty(0)?.dtype, part))
    };
    sizes.into_iter().map(part).collect()
}

fn gather(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let (table, indices) = (c.ty(0)?, c.ty(1)?);
    if !matches!(indices.dtype, DType::Int64 | DType::Int32) {
        return Err(format!("input 1 must be int64 or int32, got {}", indices.dtype));
    }
    let axis = axis(c.node.int("axis", 0), table.shape.len())?;
    let shape = [&table.shape[..axis], &indices.shape, &table.shape[axis + 1..]].concat();
    Ok(vec![TensorType::new(table.dtype, shape)])
}

/// Starts, ends and axes are constants within the tensor; the step is 1.
fn slice(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let mut shape = c.shape(0)?.to_vec();
    let (starts, ends, axes) = (c.constant_ints(1)?, c.constant_ints(2)?, c.constant_ints(3)?);
    if starts.len() != axes.len() || ends.len() != axes.len() {
        return Err(format!("{} starts and {} ends for {} axes", starts.len(), ends.len(), axes.len()));
    }
    for ((start, end), place) in starts.iter().zip(&ends).zip(axes) {
        let axis = axis(place, shape.len())?;
        match (usize::try_from(*start), usize::try_from(*end)) {
            (Ok(start), Ok(end)) if start < end && end <= shape[axis] => shape[axis] = end - start,
            _ => return Err(format!("{start}..{end} is not within 0..{}", shape[axis])),
        }
    }
    Ok(vec![TensorType::new(c.ty(0)?.dtype, shape)])
}

/// `[n,c,h,w]` gives `[n,c/b^2,h*b,w*b]`.
fn depth_to_space(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let [n, channels, h, w] = c.dims::<4>(0)?;
    let block = usize::try_from(c.node.int("blocksize", 0)).unwrap_or(0);
    let mode = c.node.string("mode", "DCR");
    if !matches!(mode, "DCR" | "CRD") {
        return Err(format!("`mode` must be `DCR` or `CRD`, got `{mode}`"));
    }
    match block.checked_mul(block) {
        Some(area) if area > 0 && channels % area == 0 => {
            let shape = [n, channels / area, h.saturating_mul(block), w.saturating_mul(block)];
            Ok(vec![TensorType::new(c.ty(0)?.dtype, shape)])
        }
        _ => Err(format!("{channels} channels do not make blocks of {block}")),
    }
}
