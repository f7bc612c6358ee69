//! Matrix products.

use super::elementwise::broadcast_shapes;
use super::{Context, Kind, Need, Operator};
use crate::graph::TensorType;

/// The rows.
pub(super) static OPERATORS: &[Operator] = &[
    Operator {
        name: "MatMul",
        domain: "",
        since: 13,
        inputs: (2, 2),
        attributes: &[],
        infer: matmul,
        macs: matmul_macs,
    },
    Operator {
        name: "Gemm",
        domain: "",
        since: 13,
        inputs: (2, 3),
        attributes: &[
            ("alpha", Kind::Float, Need::Optional),
            ("beta", Kind::Float, Need::Optional),
            ("transA", Kind::Int, Need::Optional),
            ("transB", Kind::Int, Need::Optional),
        ],
        infer: gemm,
        macs: gemm_macs,
    },
];

/// `[..., m, k]` by `[..., k, n]` gives `[..., m, n]`.
fn matmul(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let dtype = c.same_dtype(2)?;
    let (a, b) = (c.shape(0)?, c.shape(1)?);
    let ([batch_a @ .., m, ka], [batch_b @ .., kb, n]) = (a, b) else {
        return Err(format!("both inputs must have two dimensions or more, got {a:?} and {b:?}"));
    };
    if ka != kb {
        return Err(format!("inner dimensions of {a:?} and {b:?} differ"));
    }
    let mut shape = broadcast_shapes(batch_a, batch_b)?;
    shape.extend([*m, *n]);
    Ok(vec![TensorType::new(dtype, shape)])
}

fn matmul_macs(c: &Context<'_>, outputs: &[TensorType]) -> u64 {
    let inner = c.shape(0).ok().and_then(|s| s.last().copied()).unwrap_or(0) as u64;
    outputs.first().map_or(0, |o| o.elements() * inner)
}

/// `[m,k]`, `[n,k]` (transB) and `[n]` give `[m,n]`.
fn gemm(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    let dtype = c.same_dtype(3)?;
    let ([m, ka], [kb, n]) = (oriented(c, 0, "transA")?, oriented(c, 1, "transB")?);
    if ka != kb {
        return Err(format!("inner dimensions of {:?} and {:?} differ", c.shape(0)?, c.shape(1)?));
    }
    if c.types.get(2).copied().flatten().is_some() && broadcast_shapes(c.shape(2)?, &[m, n])? != [m, n] {
        return Err(format!("the bias {:?} does not broadcast to [{m}, {n}]", c.shape(2)?));
    }
    Ok(vec![TensorType::new(dtype, [m, n])])
}

fn oriented(c: &Context<'_>, index: usize, attribute: &str) -> Result<[usize; 2], String> {
    let [a, b] = c.dims::<2>(index)?;
    Ok(if c.node.int(attribute, 0) == 0 { [a, b] } else { [b, a] })
}

fn gemm_macs(c: &Context<'_>, outputs: &[TensorType]) -> u64 {
    let inner = oriented(c, 0, "transA").map_or(0, |[_, k]| k as u64);
    outputs.first().map_or(0, |o| o.elements() * inner)
}
