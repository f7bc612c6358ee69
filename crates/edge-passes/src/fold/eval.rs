//! Runs the few nodes that make up a time embedding, before there is anything to run them on.
//!
//! Every node's result is rounded to `float32`, as the graph declares it; within a node the arithmetic is in `float64`,
//! and the functions are those of `libm`: the same on every machine. A sum over a thousand products is then rounded
//! once, where a runtime rounds a thousand times.

use std::collections::BTreeMap;
use std::rc::Rc;

use edge_ir::{DType, Graph, Node, TensorType, ValueId};

use super::error::FoldError;

/// A tensor of numbers: those of every type used here fit into `float64`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// The values known so far in a graph; others are computed when they are asked for.
pub(super) struct Evaluation<'a> {
    graph: &'a Graph,
    maker: BTreeMap<ValueId, &'a Node>,
    known: BTreeMap<ValueId, Rc<Numbers>>,
}

impl<'a> Evaluation<'a> {
    /// An evaluation with these contents of inputs.
    pub(super) fn new(graph: &'a Graph, inputs: BTreeMap<ValueId, Numbers>) -> Self {
        let maker = graph.nodes.iter().flat_map(|n| n.outputs.iter().map(move |id| (*id, n))).collect();
        let known = inputs.into_iter().map(|(id, numbers)| (id, Rc::new(numbers))).collect();
        Self { graph, maker, known }
    }

    /// The content of a value.
    pub(super) fn get(&mut self, id: ValueId) -> Result<Rc<Numbers>, FoldError> {
        if let Some(numbers) = self.known.get(&id) {
            return Ok(Rc::clone(numbers));
        }
        let numbers = match (self.constant(id), self.maker.get(&id).copied()) {
            (Some(numbers), _) => numbers,
            (None, Some(node)) => self.run(node)?,
            (None, None) => return Err(FoldError::Unknown { value: self.graph.value(id).name.clone() }),
        };
        let numbers = Rc::new(numbers);
        self.known.insert(id, Rc::clone(&numbers));
        Ok(numbers)
    }

    fn constant(&self, id: ValueId) -> Option<Numbers> {
        let value = self.graph.value(id);
        let data = value.data.clone()?;
        let values = match value.ty.dtype {
            DType::Int64 => data.to_i64s().into_iter().map(exact).collect(),
            other => data.cast(other, DType::Float32)?.to_f32s().into_iter().map(f64::from).collect(),
        };
        Some(Numbers { shape: value.ty.shape.clone(), values })
    }

    fn run(&mut self, node: &Node) -> Result<Numbers, FoldError> {
        let refuse = || FoldError::Operator { node: node.name.clone(), op: node.op.name };
        let (_, function) = FUNCTIONS.iter().find(|(op, _)| *op == node.op.name).ok_or_else(refuse)?;
        let inputs = node.inputs.iter().flatten().map(|id| self.get(*id)).collect::<Result<Vec<_>, _>>()?;
        let ty = self.graph.ty(node.outputs[0]);
        let values = function(node, ty, &inputs).ok_or_else(refuse)?;
        let values = if ty.dtype == DType::Float32 { values.into_iter().map(rounded).collect() } else { values };
        Ok(Numbers { shape: ty.shape.clone(), values })
    }
}

/// The values of a node's output, given its type and the node's inputs; nothing for a form that does not occur.
type Function = fn(&Node, &TensorType, &[Rc<Numbers>]) -> Option<Vec<f64>>;

const FUNCTIONS: &[(&str, Function)] = &[
    ("Add", |_, ty, x| broadcast(ty, x, |a, b| a + b)),
    ("Cast", |_, _, x| Some(x.first()?.values.clone())),
    ("Concat", concat),
    ("Cos", |_, _, x| each(x, libm::cos)),
    ("Gemm", gemm),
    ("Mul", |_, ty, x| broadcast(ty, x, |a, b| a * b)),
    ("Reshape", |_, _, x| Some(x.first()?.values.clone())),
    ("Sigmoid", |_, _, x| each(x, |v| 1.0 / (1.0 + libm::exp(-v)))),
    ("Sin", |_, _, x| each(x, libm::sin)),
];

fn each(inputs: &[Rc<Numbers>], f: fn(f64) -> f64) -> Option<Vec<f64>> {
    Some(inputs.first()?.values.iter().map(|v| f(*v)).collect())
}

fn broadcast(ty: &TensorType, inputs: &[Rc<Numbers>], f: fn(f64, f64) -> f64) -> Option<Vec<f64>> {
    let [a, b] = inputs else { return None };
    let count: usize = ty.shape.iter().product();
    Some((0..count).map(|i| f(a.at(i, &ty.shape), b.at(i, &ty.shape))).collect())
}

/// Rows side by side.
fn concat(node: &Node, ty: &TensorType, inputs: &[Rc<Numbers>]) -> Option<Vec<f64>> {
    let [rows, _] = ty.shape[..] else { return None };
    if node.int("axis", 0) != 1 {
        return None;
    }
    let row = |r: usize| inputs.iter().flat_map(move |x| x.values.chunks(x.values.len() / rows).nth(r).unwrap_or(&[]));
    Some((0..rows).flat_map(row).copied().collect())
}

/// `x w^T + b`.
fn gemm(node: &Node, ty: &TensorType, inputs: &[Rc<Numbers>]) -> Option<Vec<f64>> {
    let ([rows, out], [x, w, rest @ ..]) = (&ty.shape[..], inputs) else { return None };
    let plain = node.int("transA", 0) == 0 && node.int("transB", 0) == 1;
    if !plain || node.attributes.contains_key("alpha") || node.attributes.contains_key("beta") {
        return None;
    }
    let width = x.values.len() / rows;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let products = x.values.chunks(width).flat_map(|a| w.values.chunks(width).map(move |b| dot(a, b)));
    let bias = rest.first().map_or(&[][..], |b| &b.values);
    Some(products.enumerate().map(|(i, p)| p + bias.get(i % out).unwrap_or(&0.0)).collect())
}

impl Numbers {
    /// Element `index` of this tensor stretched to `shape`.
    fn at(&self, index: usize, shape: &[usize]) -> f64 {
        let (mut rest, mut place, mut stride) = (index, 0, 1);
        for (axis, size) in shape.iter().enumerate().rev() {
            let own = (axis + self.shape.len()).checked_sub(shape.len()).map_or(1, |axis| self.shape[axis]);
            if own > 1 {
                place += rest % size * stride;
                stride *= own;
            }
            rest /= size;
        }
        self.values[place]
    }
}

/// To the nearest `float32`.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the point")]
pub(super) fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
}

#[expect(clippy::cast_precision_loss, reason = "shapes and timesteps are far below 2^53")]
fn exact(value: i64) -> f64 {
    value as f64
}
