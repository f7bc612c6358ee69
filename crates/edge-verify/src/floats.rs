//! What if some layers of a quantized model were in float: a graph without the integers of these layers.

use std::collections::BTreeMap;

use edge_ir::ops::quantize::encoding;
use edge_ir::{Checked, DType, Data, Graph, Node, TensorType, Value, ValueId, View};

use crate::drawing::aligned_to;
use crate::metrics::tensors::sqnr_db;
use crate::place::place;

/// Weights whose numbers are farther from the reference's are others: a lowering put a factor into them.
const SAME_DB: f64 = 6.0;

/// Why layers cannot be in float.
#[derive(Debug, thiserror::Error)]
pub enum FloatError {
    /// The reference does not have the weights as they were before they became integers.
    #[error("`{node}`: the reference has no float weights of {ty} that become this layer's integers")]
    Weights {
        /// The layer.
        node: String,
        /// What was expected.
        ty: TensorType,
    },
    /// What comes out is no graph: a fault of this crate.
    #[error(transparent)]
    Ir(#[from] edge_ir::Error),
}

/// The constants of a model's nodes, by place, whatever the step.
#[derive(Clone, Debug, Default)]
pub struct Weights(BTreeMap<(String, String), Vec<(TensorType, Data)>>);

impl Weights {
    /// Takes note of a component's.
    pub fn add(&mut self, component: &str, graph: &Graph) {
        let view = View::new(graph);
        for node in &graph.nodes {
            let constants = node.inputs.iter().flatten().filter_map(|id| {
                let id = view.maker(*id, "Cast").and_then(|(_, cast)| *cast.inputs.first()?).unwrap_or(*id);
                let Value { ty, data, .. } = graph.value(id);
                let data = data.clone()?.cast(ty.dtype, DType::Float32)?;
                Some((TensorType::new(DType::Float32, ty.shape.clone()), data))
            });
            self.0.insert(key(component, node), constants.collect());
        }
    }

    /// The numbers, in this shape, of which these are what integers left.
    fn find(&self, key: &(String, String), shape: &[usize], left: &[f32]) -> Option<Vec<f32>> {
        let mut best: Option<(f64, Vec<f32>)> = None;
        for (ty, data) in self.0.get(key).into_iter().flatten().filter(|(ty, _)| ty.elements() == left.len() as u64) {
            let numbers = data.to_f32s();
            let plain = aligned_to(&numbers, &ty.shape, shape).map(std::borrow::Cow::into_owned);
            for numbers in plain.into_iter().chain(turned(&numbers, &ty.shape)) {
                let db = sqnr_db(left, &numbers).unwrap_or(f64::NEG_INFINITY);
                if db >= SAME_DB && best.as_ref().is_none_or(|(most, _)| db > *most) {
                    best = Some((db, numbers));
                }
            }
        }
        best.map(|(_, numbers)| numbers)
    }
}

/// A square matrix, rows and columns exchanged: its shape does not say which it has.
fn turned(numbers: &[f32], shape: &[usize]) -> Option<Vec<f32>> {
    let plain: Vec<usize> = shape.iter().copied().filter(|d| *d != 1).collect();
    let [rows, columns] = plain[..] else { return None };
    (rows == columns).then(|| (0..rows * columns).map(|i| numbers[(i % rows) * rows + i / rows]).collect())
}

/// The graph with these modules, or operators, in float, and how many nodes they are: their weights are the reference's
/// but biases in 32 bits, what they read is not made integers before, and what they give is not after.
///
/// # Errors
/// If the reference does not have their weights.
pub fn in_float(
    component: &str,
    graph: &Checked<Graph>,
    parts: &[String],
    weights: &Weights,
) -> Result<(Checked<Graph>, usize), FloatError> {
    let view = View::new(graph);
    let named: Vec<bool> =
        graph.nodes.iter().map(|node| !is_border(node) && parts.iter().any(|p| is_of(node, p))).collect();
    let mut new = Graph::clone(graph);
    let mut floats: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for (place, id) in node.inputs.iter().enumerate().filter_map(|(place, id)| Some((place, (*id)?))) {
            let origin = origin(&view, id);
            let from_named = view.any_maker(origin).is_some_and(|(maker, _)| named[maker]);
            // A bias in 32 bits is as good as in float, and may have the time embedding in it, which the reference's has not.
            let coarse = |integers| graph.value(integers).data.is_some() && graph.ty(integers).dtype != DType::Int32;
            let dequantize = view.maker(id, "DequantizeLinear").map(|(_, node)| node);
            let dequantize = dequantize.filter(|node| named[index] && node.inputs[0].is_some_and(coarse));
            let read = match (dequantize, floats.get(&id)) {
                (Some(_), Some(there)) => *there,
                (Some(dequantize), None) => {
                    let made = float(&mut new, &view, (component, node), dequantize, weights)?;
                    floats.insert(id, made);
                    made
                }
                _ if named[index] || (from_named && !is_border(node)) => origin,
                _ => id,
            };
            new.nodes[index].inputs[place] = Some(read);
        }
    }
    for (place, id) in graph.outputs.iter().copied().enumerate() {
        let origin = origin(&view, id);
        if origin != id && view.any_maker(origin).is_some_and(|(maker, _)| named[maker]) {
            let name = graph.value(id).name.clone();
            new.value_mut(id).name = format!("{name}__integers");
            new.value_mut(origin).name = name;
            new.outputs[place] = origin;
        }
    }
    new.prune();
    Ok((new.check()?, named.into_iter().filter(|named| *named).count()))
}

/// Whether a node is of a part: a module, with all in it, or an operator.
fn is_of(node: &Node, part: &str) -> bool {
    node.op.name == part || format!(".{}.", node.module()).contains(&format!(".{part}."))
}

fn is_border(node: &Node) -> bool {
    ["QuantizeLinear", "DequantizeLinear"].contains(&node.op.name)
}

/// What a value was before it became integers and numbers again, however often.
fn origin(view: &View<'_>, mut id: ValueId) -> ValueId {
    while let Some((_, dequantize)) = view.maker(id, "DequantizeLinear")
        && let Some((_, quantize)) = dequantize.inputs[0].and_then(|q| view.maker(q, "QuantizeLinear"))
        && let Some(before) = quantize.inputs[0]
    {
        id = before;
    }
    id
}

/// A constant that has the reference's numbers in the place of what integers left of them.
fn float(
    new: &mut Graph,
    view: &View<'_>,
    (component, node): (&str, &Node),
    dequantize: &Node,
    weights: &Weights,
) -> Result<ValueId, FloatError> {
    let graph = view.graph;
    let ty = graph.ty(dequantize.outputs[0]).clone();
    let missing = || FloatError::Weights { node: place(component, &node.name).node, ty: ty.clone() };
    let integers = dequantize.inputs[0].ok_or_else(missing)?;
    let code = encoding(graph, dequantize).ok_or_else(missing)?;
    let Value { name, ty: stored, data } = graph.value(integers);
    let count = usize::try_from(ty.elements()).unwrap_or_default();
    let bytes = data.as_ref().ok_or_else(missing)?.bytes();
    let mut left = vec![0.0; count];
    code.dequantize(&ty.shape, 0, &edge_ir::encoding::unpack(&bytes, stored.dtype, count), &mut left);
    let numbers = weights.find(&key(component, node), &ty.shape, &left).ok_or_else(missing)?;
    Ok(new.add_value(Value { name: format!("{name}__float"), ty, data: Some(Data::f32s(&numbers)) }))
}

fn key(component: &str, node: &Node) -> (String, String) {
    let place = place(component, &node.name);
    (place.component, place.node)
}

#[cfg(test)]
mod tests {
    use edge_ir::Builder;

    use super::*;

    /// `fc1` then `fc2`, with weights in int8 and the values between them in uint8.
    fn quantized() -> Checked<Graph> {
        let mut b = Builder::new("unet");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let mut value = x;
        for layer in ["fc1", "fc2"] {
            let q = b.weight(
                &format!("{layer}_weight"),
                TensorType::new(DType::Int8, [2, 2]),
                Data::owned(vec![10, 20, 30, 40]),
            );
            let (scale, zero) = (
                b.floats("weight_scale", &[], &[0.1]),
                b.weight("weight_zero", TensorType::new(DType::Int8, []), Data::owned(vec![0])),
            );
            let w = b.node("DequantizeLinear", &format!("{layer}_weight/DQ"), &[q, scale, zero], &[]).expect("a node");
            let y = b.node("MatMul", layer, &[value, w], &[]).expect("a node");
            let (scale, zero) = (
                b.floats("scale", &[], &[0.5]),
                b.weight("zero", TensorType::new(DType::Uint8, []), Data::owned(vec![0])),
            );
            let q = b.node("QuantizeLinear", &format!("{layer}/Q"), &[y, scale, zero], &[]).expect("a node");
            value = b.node("DequantizeLinear", &format!("{layer}/DQ"), &[q, scale, zero], &[]).expect("a node");
        }
        b.output("y", value);
        b.finish().expect("a graph")
    }

    /// The same as it was, with weights of shape `[out, in]`, turned.
    fn weights(numbers: [f32; 4]) -> Weights {
        let mut b = Builder::new("unet");
        let mut value = b.input("x", DType::Float32, &[1, 2]);
        for layer in ["fc1", "fc2"] {
            let w = b.floats(&format!("{layer}_weight"), &[2, 2], &numbers);
            value = b.node("MatMul", layer, &[value, w], &[]).expect("a node");
        }
        b.output("y", value);
        let mut weights = Weights::default();
        weights.add("unet", &b.finish().expect("a graph"));
        weights
    }

    fn operators(graph: &Graph) -> Vec<&'static str> {
        graph.nodes.iter().map(|node| node.op.name).collect()
    }

    #[test]
    fn a_layer_in_float_has_no_integers_around_it() {
        let turned = weights([1.04, 3.04, 2.04, 4.04]);
        let (graph, nodes) = in_float("unet_step_0", &quantized(), &["fc1".into()], &turned).expect("a graph");
        assert_eq!(nodes, 1);
        assert_eq!(operators(&graph), ["MatMul", "DequantizeLinear", "MatMul", "QuantizeLinear", "DequantizeLinear"]);
        let float = graph.value(graph.nodes[0].inputs[1].expect("a weight"));
        assert_eq!(float.data.as_ref().expect("a weight").to_f32s(), [1.04, 2.04, 3.04, 4.04]);
        let (graph, nodes) = in_float("unet_step_0", &quantized(), &["MatMul".into()], &turned).expect("a graph");
        assert_eq!((nodes, operators(&graph)), (2, vec!["MatMul", "MatMul"]));
        assert_eq!(graph.value(graph.outputs[0]).name, "y");
        let (graph, nodes) = in_float("unet_step_0", &quantized(), &["fc".into()], &turned).expect("a graph");
        assert_eq!((nodes, graph.nodes.len()), (0, quantized().nodes.len()));
    }

    #[test]
    fn other_weights_are_refused() {
        let other = in_float("unet", &quantized(), &["fc2".into()], &weights([-1.0, 7.0, 0.0, -3.0]));
        let expected = "`fc2`: the reference has no float weights of float32[2, 2] that become this layer's integers";
        assert_eq!(other.expect_err("others").to_string(), expected);
    }
}
