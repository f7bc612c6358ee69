//! Convolution.

use super::{Context, Kind, Need, Operator};
use crate::graph::TensorType;

/// The rows.
pub(super) static OPERATORS: &[Operator] =
    &[Operator { name: "Conv", domain: "", since: 11, inputs: (2, 3), attributes: ATTRIBUTES, infer, macs }];

/// Attributes of a 2-D convolution. `pads` is top, left, bottom, right.
pub(super) const ATTRIBUTES: &[(&str, Kind, Need)] = &[
    ("kernel_shape", Kind::Ints, Need::Required),
    ("strides", Kind::Ints, Need::Required),
    ("pads", Kind::Ints, Need::Required),
    ("dilations", Kind::Ints, Need::Optional),
    ("group", Kind::Int, Need::Optional),
];

/// `[n,c,h,w]`, `[m,c/group,kh,kw]`, `[m]` give `[n,m,h',w']`.
pub(super) fn infer(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let dtype = c.same_dtype(3)?;
    let [n, channels, h, w] = c.dims::<4>(0)?;
    let [m, per_group, kh, kw] = c.dims::<4>(1)?;
    let group = usize::try_from(c.node.int("group", 1)).map_err(|e| e.to_string())?;
    let read = per_group.saturating_mul(group);
    if read != channels {
        return Err(format!("the weight reads {read} channels, the input has {channels}"));
    }
    if c.types.get(2).copied().flatten().is_some() && c.dims::<1>(2)? != [m] {
        return Err(format!("the bias must have shape [{m}], got {:?}", c.shape(2)?));
    }
    let kernel = list(c, "kernel_shape", &[])?;
    if kernel != [kh, kw] {
        return Err(format!("kernel_shape {kernel:?} is not that of the weight, [{kh}, {kw}]"));
    }
    let (strides, pads, dilations) = (list(c, "strides", &[])?, list(c, "pads", &[])?, list(c, "dilations", &[1, 1])?);
    let ([sh, sw], [top, left, bottom, right], [dh, dw]) = (fixed(&strides)?, fixed(&pads)?, fixed(&dilations)?);
    let h = extent([h, top, bottom], kh, sh, dh)?;
    let w = extent([w, left, right], kw, sw, dw)?;
    Ok(vec![TensorType::new(dtype, [n, m, h, w])])
}

/// Outputs along one side, from the image's size and its two pads. The sizes may come from a damaged file.
fn extent(sizes: [usize; 3], kernel: usize, stride: usize, dilation: usize) -> Result<usize, String> {
    let padded = sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size));
    let reach = kernel.checked_sub(1).and_then(|gaps| gaps.checked_mul(dilation)?.checked_add(1));
    match (padded, reach) {
        (Some(padded), Some(reach)) if stride > 0 && padded >= reach => Ok((padded - reach) / stride + 1),
        _ => Err(format!(
            "a kernel of {kernel} with stride {stride} and dilation {dilation} does not fit {sizes:?}, pixels and pads"
        )),
    }
}

fn list(c: &Context<'_>, name: &str, default: &[usize]) -> Result<Vec<usize>, String> {
    let Some(values) = c.node.ints(name) else { return Ok(default.to_vec()) };
    values
        .iter()
        .map(|v| usize::try_from(*v).map_err(|_| format!("`{name}` must not be negative, got {values:?}")))
        .collect()
}

fn fixed<const N: usize>(values: &[usize]) -> Result<[usize; N], String> {
    values.try_into().map_err(|_| format!("expected {N} numbers, got {values:?}"))
}

pub(super) fn macs(c: &Context<'_>, outputs: &[TensorType]) -> u64 {
    let per_output: u64 = c.shape(1).map_or(0, |w| w[1..].iter().map(|d| *d as u64).product());
    outputs.first().map_or(0, |o| o.elements() * per_output)
}
