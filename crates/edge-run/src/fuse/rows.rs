//! The rows of this crate's operators for the graph's operator table. Their names are those under which the kernels are
//! registered with tract.

use edge_ir::TensorType;
use edge_ir::ops::{Context, Kind, Need, Operator, no_macs};

/// The domain of these operators.
const DOMAIN: &str = "ai.edgetool";

pub(super) static EDGE_CONV: Operator = Operator {
    name: "EdgeConv",
    domain: DOMAIN,
    since: 1,
    inputs: (2, 3),
    attributes: &[
        ("kernel_shape", Kind::Ints, Need::Required),
        ("strides", Kind::Ints, Need::Required),
        ("pads", Kind::Ints, Need::Required),
    ],
    infer: |c| standard(c, "Conv"),
    macs: no_macs,
};

pub(super) static EDGE_LINEAR: Operator = Operator {
    name: "EdgeLinear",
    domain: DOMAIN,
    since: 1,
    inputs: (2, 3),
    attributes: &[],
    infer: |c| {
        let ([rows, _], [out, _]) = (c.dims::<2>(0)?, c.dims::<2>(1)?);
        Ok(vec![TensorType::new(c.same_dtype(3)?, [rows, out])])
    },
    macs: no_macs,
};

pub(super) static EDGE_ATTENTION: Operator = Operator {
    name: "EdgeAttention",
    domain: DOMAIN,
    since: 1,
    inputs: (3, 4),
    attributes: &[
        ("scale", Kind::Float, Need::Required),
        ("k_transposed", Kind::Int, Need::Required),
        ("heads_last", Kind::Int, Need::Required),
    ],
    infer: |c| c.same_as_first(),
    macs: no_macs,
};

pub(super) static EDGE_GROUP_NORM: Operator = Operator {
    name: "EdgeGroupNorm",
    domain: DOMAIN,
    since: 1,
    inputs: (3, 3),
    attributes: &[
        ("groups", Kind::Int, Need::Required),
        ("epsilon", Kind::Float, Need::Required),
        ("silu", Kind::Int, Need::Required),
    ],
    infer: |c| c.same_as_first(),
    macs: no_macs,
};

pub(super) static EDGE_LAYER_NORM: Operator = Operator {
    name: "EdgeLayerNorm",
    domain: DOMAIN,
    since: 1,
    inputs: (3, 3),
    attributes: &[("epsilon", Kind::Float, Need::Required)],
    infer: |c| c.same_as_first(),
    macs: no_macs,
};

pub(super) static EDGE_GEGLU: Operator = Operator {
    name: "EdgeGeglu",
    domain: DOMAIN,
    since: 1,
    inputs: (1, 1),
    attributes: &[],
    infer: |c| {
        let [rows, both] = c.dims::<2>(0)?;
        Ok(vec![TensorType::new(c.ty(0)?.dtype, [rows, both / 2])])
    },
    macs: no_macs,
};

pub(super) static EDGE_GELU: Operator = unary("EdgeGelu");
pub(super) static EDGE_SILU: Operator = unary("EdgeSilu");
pub(super) static EDGE_QUICK_GELU: Operator = unary("EdgeQuickGelu");

const fn unary(name: &'static str) -> Operator {
    Operator {
        name,
        domain: DOMAIN,
        since: 1,
        inputs: (1, 1),
        attributes: &[],
        infer: |c| c.same_as_first(),
        macs: no_macs,
    }
}

/// What the standard operator would give.
fn standard(c: &Context<'_>, op: &str) -> Result<Vec<TensorType>, String> {
    let row = edge_ir::ops::find("", op).ok_or("no such operator")?;
    (row.infer)(c)
}
