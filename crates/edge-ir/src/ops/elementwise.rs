//! Operators that work element by element: arithmetic with broadcasting, activations, casts.

use super::{Context, Kind, Need, Operator, no_macs};
use crate::DType;
use crate::graph::TensorType;

/// The rows.
pub(super) static OPERATORS: &[Operator] = &[
    binary("Add", 14),
    binary("Sub", 14),
    binary("Mul", 14),
    binary("Div", 14),
    unary("Sigmoid", 13),
    unary("Tanh", 13),
    unary("Relu", 14),
    unary("Erf", 13),
    unary("Sin", 7),
    unary("Cos", 7),
    unary("Round", 11),
    unary("Exp", 13),
    unary("Neg", 13),
    unary("Sqrt", 13),
    Operator {
        name: "Gelu",
        domain: "",
        since: 20,
        inputs: (1, 1),
        attributes: &[("approximate", Kind::String, Need::Optional)],
        infer: gelu,
        macs: no_macs,
    },
    Operator {
        name: "Clip",
        domain: "",
        since: 13,
        inputs: (1, 3),
        attributes: &[],
        infer: |c| {
            c.same_dtype(3)?;
            c.same_as_first()
        },
        macs: no_macs,
    },
    Operator {
        name: "Cast",
        domain: "",
        since: 13,
        inputs: (1, 1),
        attributes: &[("to", Kind::Int, Need::Required)],
        infer: cast,
        macs: no_macs,
    },
    Operator {
        name: "Softmax",
        domain: "",
        since: 13,
        inputs: (1, 1),
        attributes: &[("axis", Kind::Int, Need::Optional)],
        infer: |c| {
            super::axis(c.node.int("axis", -1), c.shape(0)?.len())?;
            c.same_as_first()
        },
        macs: no_macs,
    },
];

const fn unary(name: &'static str, since: u32) -> Operator {
    Operator { name, domain: "", since, inputs: (1, 1), attributes: &[], infer: |c| c.same_as_first(), macs: no_macs }
}

const fn binary(name: &'static str, since: u32) -> Operator {
    Operator { name, domain: "", since, inputs: (2, 2), attributes: &[], infer: broadcast, macs: no_macs }
}

fn broadcast(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let dtype = c.same_dtype(2)?;
    Ok(vec![TensorType::new(dtype, broadcast_shapes(c.shape(0)?, c.shape(1)?)?)])
}

/// The shape that both shapes stretch to (ONNX's multidirectional broadcasting).
pub(super) fn broadcast_shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let padded = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (padded(a, i), padded(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

fn gelu(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    match c.node.string("approximate", "none") {
        "none" | "tanh" => c.same_as_first(),
        other => Err(format!("`approximate` must be `none` or `tanh`, got `{other}`")),
    }
}

fn cast(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let code = c.node.int("to", 0);
    let to = i32::try_from(code).ok().and_then(DType::from_onnx).ok_or_else(|| format!("unknown type code {code}"))?;
    Ok(vec![TensorType::new(to, c.shape(0)?)])
}
