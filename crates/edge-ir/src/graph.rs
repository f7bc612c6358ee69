//! The graph: values, nodes, attributes.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::ops::Operator;
use crate::{Checked, DType, Data};

/// A set of named graphs that make up one model (`text_encoder`, `unet`, `vae_decoder`, ...), in the order of use.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The graphs by component name.
    pub components: IndexMap<String, Checked<Graph>>,
}

/// The place of a [`Value`] in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub(crate) usize);

/// Element type and static shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// Number of elements, 2^64 - 1 if there are more.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, d| product.saturating_mul(*d as u64))
    }

    /// Number of bytes, packed.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.elements())
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// A tensor of the graph: an input, a weight (then it has data) or the output of a node.
#[derive(Clone, Debug)]
pub struct Value {
    /// Unique name, a legal C identifier.
    pub name: String,
    /// Type and shape.
    pub ty: TensorType,
    /// The content, if it is known before the graph runs: an ONNX initializer.
    pub data: Option<Data>,
}

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// ONNX `INT`.
    Int(i64),
    /// ONNX `FLOAT`.
    Float(f32),
    /// ONNX `STRING`.
    String(String),
    /// ONNX `INTS`.
    Ints(Vec<i64>),
    /// ONNX `FLOATS`.
    Floats(Vec<f32>),
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique name: the path of the module it came from (`down_blocks.0.resnets.0.conv1`), followed by `/step` where a
    /// module is more than one node.
    pub name: String,
    /// The row of the operator table.
    pub op: &'static Operator,
    /// Inputs in ONNX's order; `None` is an optional input that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs in ONNX's order.
    pub outputs: Vec<ValueId>,
    /// Attributes, by name.
    pub attributes: BTreeMap<&'static str, Attribute>,
}

/// A static dataflow graph: its nodes stand in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The component's name.
    pub name: String,
    /// All tensors; [`ValueId`] is an index into this list.
    pub(crate) values: Vec<Value>,
    /// What the caller feeds, in order.
    pub inputs: Vec<ValueId>,
    /// What the caller gets, in order.
    pub outputs: Vec<ValueId>,
    /// The operations, each after those whose outputs it reads.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The tensor at `id`.
    ///
    /// # Panics
    /// If `id` is of another graph and out of range.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The tensor at `id`, to be changed.
    ///
    /// # Panics
    /// If `id` is of another graph and out of range.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0]
    }

    /// Adds a tensor.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() - 1)
    }

    /// All tensors with their ids, in order of creation.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, v)| (ValueId(i), v))
    }

    /// The tensors whose content is known: weights and constants, in order of creation.
    pub fn initializers(&self) -> impl Iterator<Item = (ValueId, &Value, &Data)> {
        self.values().filter_map(|(id, v)| v.data.as_ref().map(|d| (id, v, d)))
    }

    /// For each value, the indices of the nodes that read it.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for id in node.inputs.iter().flatten() {
                readers[id.0].push(index);
            }
        }
        readers
    }

    /// The place of a value in [`Graph::values`], to index tables kept beside the graph.
    pub fn index_of(&self, id: ValueId) -> usize {
        id.0
    }

    /// The type of the value at `id`.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }
}

impl Node {
    /// An integer attribute, or the operator's default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(v)) => *v,
            _ => default,
        }
    }

    /// A float attribute, or the operator's default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(v)) => *v,
            _ => default,
        }
    }

    /// A list attribute, or nothing.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A text attribute, or the operator's default.
    pub fn string<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        match self.attributes.get(name) {
            Some(Attribute::String(v)) => v,
            _ => default,
        }
    }

    /// The module path: the name up to the `/`.
    pub fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }
}
