//! `QuantizeLinear` and `DequantizeLinear`: per tensor, per axis, in blocks.
//!
//! ONNX has 4 and 16 bits and blocks since opset 21 ([`since`]); onnxruntime has 16 bits in a domain of its own before.

use super::{Context, Kind, Need, Operator, no_macs};
use crate::encoding::{Encoding, limits};
use crate::graph::TensorType;
use crate::{DType, Graph, Node};

/// The domain of onnxruntime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// The first opset with 4 and 16 bits and with blocks.
const NARROW_AND_WIDE: u32 = 21;

const STANDARD: &[(&str, Kind, Need)] = &[
    ("axis", Kind::Int, Need::Optional),
    ("block_size", Kind::Int, Need::Optional),
    ("output_dtype", Kind::Int, Need::Optional),
];
const BACK: &[(&str, Kind, Need)] = &[("axis", Kind::Int, Need::Optional), ("block_size", Kind::Int, Need::Optional)];
const CONTRIBUTED: &[(&str, Kind, Need)] = &[("axis", Kind::Int, Need::Optional)];

/// The rows.
pub(super) static OPERATORS: &[Operator] = &[
    row("QuantizeLinear", "", STANDARD, quantize),
    row("DequantizeLinear", "", BACK, dequantize),
    row("QuantizeLinear", MICROSOFT, CONTRIBUTED, quantize),
    row("DequantizeLinear", MICROSOFT, CONTRIBUTED, dequantize),
];

type Attributes = &'static [(&'static str, Kind, Need)];
type Infer = fn(&Context<'_>) -> Result<Vec<TensorType>, String>;

const fn row(name: &'static str, domain: &'static str, attributes: Attributes, infer: Infer) -> Operator {
    Operator { name, domain, since: 13, inputs: (2, 3), attributes, infer, macs: no_macs }
}

/// Whether a node is of one of the rows.
pub fn is_linear(node: &Node, name: &str) -> bool {
    node.op.name == name && (node.op.domain.is_empty() || node.op.domain == MICROSOFT)
}

/// The first opset that has the node's operator for its types.
pub fn since(graph: &Graph, node: &Node) -> u32 {
    let mut ids = node.inputs.iter().flatten().chain(&node.outputs);
    let types = [DType::Int4, DType::Uint4, DType::Int16, DType::Uint16];
    let late = node.int("block_size", 0) != 0
        || node.attributes.contains_key("output_dtype")
        || ids.any(|id| types.contains(&graph.ty(*id).dtype));
    let standard = node.op.domain.is_empty() && ["QuantizeLinear", "DequantizeLinear"].contains(&node.op.name);
    if standard && late { NARROW_AND_WIDE } else { node.op.since }
}

/// What a node's constants say: `None` if they are not constants, or do not fit the tensor.
pub fn encoding(graph: &Graph, node: &Node) -> Option<Encoding> {
    let constant = |index: usize| {
        let value = graph.value((*node.inputs.get(index)?)?);
        value.data.as_ref().map(|data| (&value.ty, data))
    };
    let zero = if node.inputs.get(2).copied().flatten().is_some() { Some(constant(2)?) } else { None };
    let x = graph.ty((*node.inputs.first()?)?);
    let dtype = if is_linear(node, "QuantizeLinear") { graph.ty(*node.outputs.first()?).dtype } else { x.dtype };
    let axis = super::axis(node.int("axis", 1), x.shape.len()).unwrap_or(0);
    Encoding::of(&x.shape, axis, usize::try_from(node.int("block_size", 0)).ok()?, constant(1)?, zero, dtype)
}

fn quantize(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    if c.ty(0)?.dtype != DType::Float32 {
        return Err(format!("input 0 must be float32, got {}", c.ty(0)?.dtype));
    }
    scales(c)?;
    let named = match c.node.int("output_dtype", 0) {
        0 => None,
        code => Some(i32::try_from(code).ok().and_then(DType::from_onnx).ok_or(format!("unknown type code {code}"))?),
    };
    let zero = c.types.get(2).copied().flatten().map(|t| t.dtype);
    let dtype = match (named, zero) {
        (Some(named), Some(zero)) if named != zero => {
            return Err(format!("`output_dtype` is {named}, and the zero point is {zero}"));
        }
        (named, zero) => named.or(zero).unwrap_or(DType::Uint8),
    };
    if dtype == DType::Int32 {
        return Err("quantizes to int32, which only `DequantizeLinear` takes".to_owned());
    }
    integers(c, dtype)?;
    Ok(vec![TensorType::new(dtype, c.shape(0)?)])
}

fn dequantize(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    scales(c)?;
    let dtype = c.ty(0)?.dtype;
    integers(c, dtype)?;
    match c.types.get(2).copied().flatten() {
        Some(zero) if zero.dtype != dtype => Err(format!("input 2 must be {dtype} as input 0 is, got {}", zero.dtype)),
        _ => Ok(vec![TensorType::new(DType::Float32, c.shape(0)?)]),
    }
}

fn integers(c: &Context<'_>, dtype: DType) -> Result<(), String> {
    let four = matches!(dtype, DType::Int4 | DType::Uint4) && c.node.op.domain == MICROSOFT;
    if limits(dtype).is_none() || four {
        return Err(format!("{dtype} does not stand for numbers here"));
    }
    Ok(())
}

/// The scales are one, one for each index of the axis, or one for each block of it.
fn scales(c: &Context<'_>) -> Result<(), String> {
    let (x, scale) = (c.shape(0)?, c.ty(1)?);
    if scale.dtype != DType::Float32 {
        return Err(format!("input 1 must be float32, got {}", scale.dtype));
    }
    if let Some(zero) = c.types.get(2).copied().flatten()
        && zero.shape != scale.shape
    {
        return Err(format!("input 2 must have shape {:?} as input 1 has, got {:?}", scale.shape, zero.shape));
    }
    let axis = || super::axis(c.node.int("axis", 1), x.len());
    let size = usize::try_from(c.node.int("block_size", 0)).map_err(|e| e.to_string())?;
    let expected = match size {
        0 if matches!(scale.shape[..], [] | [1]) => return Ok(()),
        0 => vec![x[axis()?]],
        size => {
            let axis = axis()?;
            x.iter().enumerate().map(|(i, d)| if i == axis { d.div_ceil(size) } else { *d }).collect()
        }
    };
    if scale.shape != expected {
        return Err(format!("input 1 must have shape {expected:?}, got {:?}", scale.shape));
    }
    Ok(())
}
