//! Quantized tensors: pairs of Q and DQ become one operator, the others operators of this crate's own. Nothing in a
//! graph has 4 bits then: its tensors have 8, with the same integers.

use edge_ir::encoding::{limits, pack, unpack};
use edge_ir::ops::quantize::{encoding, is_linear};
use edge_ir::{Attribute, DType, Data, Encoding, Granularity, Graph, Node, TensorType, Value, ValueId, View};

use super::Found;
use super::rows::{EDGE_DEQUANTIZE, EDGE_FAKE_QUANT, EDGE_QUANTIZE};
use edge_ir::replacement;

const QUANTIZE: &str = "QuantizeLinear";
const DEQUANTIZE: &str = "DequantizeLinear";

/// The type whose tensors hold the integers of a type while a graph runs.
pub(crate) fn held(dtype: DType) -> DType {
    match dtype {
        DType::Int4 => DType::Int8,
        DType::Uint4 => DType::Uint8,
        other => other,
    }
}

/// `DequantizeLinear(QuantizeLinear(x))` with one scale.
pub(super) fn pair(view: &View<'_>, index: usize) -> Option<Found> {
    let back = view.graph.nodes.get(index).filter(|n| is_linear(n, DEQUANTIZE))?;
    let q = back.inputs[0]?;
    let (at, forth) = view.maker(q, QUANTIZE)?;
    let code = encoding(view.graph, forth).filter(|e| e.granularity == Granularity::Tensor)?;
    if encoding(view.graph, back)? != code {
        return None;
    }
    let (low, high) = limits(code.dtype)?;
    let (scale, zero) = (code.scales[0], code.zero_points[0]);
    let attributes = [
        ("scale", Attribute::Float(scale)),
        ("low", Attribute::Float(small(low - zero))),
        ("high", Attribute::Float(small(high - zero))),
    ];
    let mut gone = vec![index];
    gone.extend((view.uses(q) == 1).then_some(at));
    Some(Found { gone, node: replacement(&EDGE_FAKE_QUANT, back, vec![forth.inputs[0]?], attributes) })
}

/// The operators that are left, and tensors of 4 bits.
pub(super) fn widen(mut graph: Graph) -> Graph {
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let is_q = is_linear(node, QUANTIZE);
        if (is_q || is_linear(node, DEQUANTIZE))
            && let Some(code) = encoding(&graph, node)
        {
            graph.nodes[index] = own(&mut graph, index, is_q, &code);
        }
    }
    let narrow: Vec<ValueId> =
        graph.values().filter(|(_, v)| held(v.ty.dtype) != v.ty.dtype).map(|(id, _)| id).collect();
    for id in narrow {
        let value = graph.value_mut(id);
        let (from, to) = (value.ty.dtype, held(value.ty.dtype));
        value.ty.dtype = to;
        if let Some(data) = &value.data {
            let mut bytes = Vec::new();
            pack(&unpack(&data.bytes(), from, usize::try_from(value.ty.elements()).unwrap_or(0)), to, &mut bytes);
            value.data = Some(Data::owned(bytes));
        }
    }
    graph
}

/// A node of this crate's own, with scales and zero points as numbers.
fn own(graph: &mut Graph, index: usize, is_q: bool, code: &Encoding) -> Node {
    let node = graph.nodes[index].clone();
    let name = graph.value(node.outputs[0]).name.clone();
    let zeros: Vec<f32> = code.zero_points.iter().map(|z| small(*z)).collect();
    let mut constant = |part: &str, numbers: &[f32]| {
        let ty = TensorType::new(DType::Float32, [numbers.len()]);
        graph.add_value(Value { name: format!("{name}_edge_{part}"), ty, data: Some(Data::f32s(numbers)) })
    };
    let constants = [constant("scales", &code.scales), constant("zero_points", &zeros)];
    let inputs: Vec<ValueId> = node.inputs[0].into_iter().chain(constants).collect();
    let (axis, block) = match code.granularity {
        Granularity::Tensor => (-1, 0),
        Granularity::Axis(axis) => (signed(axis), 0),
        Granularity::Blocks { axis, size } => (signed(axis), signed(size)),
    };
    let attributes = [
        ("dtype", Attribute::Int(i64::from(code.dtype.onnx()))),
        ("axis", Attribute::Int(axis)),
        ("block_size", Attribute::Int(block)),
    ];
    replacement(if is_q { &EDGE_QUANTIZE } else { &EDGE_DEQUANTIZE }, &node, inputs, attributes)
}

/// Zero points and limits have 16 bits, but for zero points of `int32`, which are 0.
#[expect(clippy::cast_precision_loss, reason = "below 2^22")]
fn small(integer: i32) -> f32 {
    integer as f32
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
