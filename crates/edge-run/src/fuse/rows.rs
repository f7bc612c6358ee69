//! The rows of this crate's operators for the graph's operator table. Their names are those under which the kernels are
//! registered with tract.

use edge_ir::ops::{Context, Kind, Need, Operator, no_macs};
use edge_ir::{DType, TensorType};

pub(super) static EDGE_CONV: Operator = row(
    "EdgeConv",
    (2, 3),
    &[
        ("kernel_shape", Kind::Ints, Need::Required),
        ("strides", Kind::Ints, Need::Required),
        ("pads", Kind::Ints, Need::Required),
    ],
    |c| standard(c, "Conv"),
);

pub(super) static EDGE_LINEAR: Operator = row("EdgeLinear", (2, 3), &[], |c| {
    let ([rows, _], [out, _]) = (c.dims::<2>(0)?, c.dims::<2>(1)?);
    Ok(vec![TensorType::new(c.same_dtype(3)?, [rows, out])])
});

pub(super) static EDGE_ATTENTION: Operator = row(
    "EdgeAttention",
    (3, 4),
    &[
        ("scale", Kind::Float, Need::Required),
        ("k_transposed", Kind::Int, Need::Required),
        ("heads_last", Kind::Int, Need::Required),
        ("scores", Kind::String, Need::Optional),
    ],
    same,
);

pub(super) static EDGE_GROUP_NORM: Operator = row(
    "EdgeGroupNorm",
    (3, 3),
    &[
        ("groups", Kind::Int, Need::Required),
        ("epsilon", Kind::Float, Need::Required),
        ("silu", Kind::Int, Need::Required),
    ],
    same,
);

pub(super) static EDGE_LAYER_NORM: Operator =
    row("EdgeLayerNorm", (3, 3), &[("epsilon", Kind::Float, Need::Required)], same);

pub(super) static EDGE_GEGLU: Operator = row("EdgeGeglu", (1, 1), &[], |c| {
    let [rows, both] = c.dims::<2>(0)?;
    Ok(vec![TensorType::new(c.ty(0)?.dtype, [rows, both / 2])])
});

pub(super) static EDGE_FAKE_QUANT: Operator = row(
    "EdgeFakeQuant",
    (1, 1),
    &[
        ("scale", Kind::Float, Need::Required),
        ("low", Kind::Float, Need::Required),
        ("high", Kind::Float, Need::Required),
    ],
    same,
);

pub(super) static EDGE_QUANTIZE: Operator = row("EdgeQuantize", (3, 3), CODE, |c| {
    let code = i32::try_from(c.node.int("dtype", 0)).ok().and_then(DType::from_onnx).ok_or("no such type")?;
    Ok(vec![TensorType::new(super::held(code), c.shape(0)?)])
});

pub(super) static EDGE_DEQUANTIZE: Operator =
    row("EdgeDequantize", (3, 3), CODE, |c| Ok(vec![TensorType::new(DType::Float32, c.shape(0)?)]));

/// The type of the integers by ONNX's code, and which elements share a scale: all if the axis is negative.
const CODE: Attributes = &[
    ("dtype", Kind::Int, Need::Required),
    ("axis", Kind::Int, Need::Required),
    ("block_size", Kind::Int, Need::Required),
];

/// Shows its input to an observer.
pub(crate) static EDGE_OBSERVE: Operator =
    row("EdgeObserve", (1, 1), &[("tensor", Kind::String, Need::Required), ("parts", Kind::Int, Need::Required)], same);

pub(super) static EDGE_GELU: Operator = unary("EdgeGelu");
pub(super) static EDGE_SILU: Operator = unary("EdgeSilu");
pub(super) static EDGE_QUICK_GELU: Operator = unary("EdgeQuickGelu");

const fn unary(name: &'static str) -> Operator {
    row(name, (1, 1), &[], same)
}

type Attributes = &'static [(&'static str, Kind, Need)];
type Infer = fn(&Context<'_>) -> Result<Vec<TensorType>, String>;

const fn row(name: &'static str, inputs: (usize, usize), attributes: Attributes, infer: Infer) -> Operator {
    Operator { name, domain: "ai.edgetool", since: 1, inputs, attributes, infer, macs: no_macs }
}

/// The type and shape of the first input.
fn same(c: &Context<'_>) -> Result<Vec<TensorType>, String> {
    c.same_as_first()
}

/// What the standard operator would give.
fn standard(c: &Context<'_>, op: &str) -> Result<Vec<TensorType>, String> {
    let row = edge_ir::ops::find("", op).ok_or("no such operator")?;
    (row.infer)(c)
}
