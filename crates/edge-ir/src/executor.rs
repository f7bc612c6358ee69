//! What can run a graph.

use crate::{DType, Error, Graph, TensorType, ValueId};

/// A tensor outside of a graph: what is fed and what is got.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type and shape.
    pub ty: TensorType,
    /// Content, little-endian and packed.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A `float32` tensor.
    pub fn f32s(shape: impl Into<Vec<usize>>, numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { ty: TensorType::new(DType::Float32, shape), bytes }
    }

    /// An `int64` tensor.
    pub fn i64s(shape: impl Into<Vec<usize>>, numbers: &[i64]) -> Self {
        let bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { ty: TensorType::new(DType::Int64, shape), bytes }
    }

    /// A tensor of indices: `int32` if `ty` is, saturating, `int64` otherwise.
    pub fn indices(ty: &TensorType, numbers: &[i64]) -> Self {
        if ty.dtype != DType::Int32 {
            return Self::i64s(ty.shape.clone(), numbers);
        }
        let narrow = |v: &i64| i32::try_from(*v).unwrap_or(if *v < 0 { i32::MIN } else { i32::MAX });
        Self { ty: ty.clone(), bytes: numbers.iter().flat_map(|v| narrow(v).to_le_bytes()).collect() }
    }

    /// The content as `float32` numbers; empty if the tensor is of another type.
    pub fn to_f32s(&self) -> Vec<f32> {
        if self.ty.dtype != DType::Float32 {
            return Vec::new();
        }
        let (numbers, _) = self.bytes.as_chunks::<4>();
        numbers.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// Why a graph did not run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a graph is called, takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The graph's name.
    pub graph: String,
    /// Names and types of the inputs, in order.
    pub inputs: Vec<(String, TensorType)>,
    /// Names and types of the outputs, in order.
    pub outputs: Vec<(String, TensorType)>,
}

impl Ports {
    /// Those of a graph.
    pub fn of(graph: &Graph) -> Self {
        let named =
            |ids: &[ValueId]| ids.iter().map(|id| (graph.value(*id).name.clone(), graph.ty(*id).clone())).collect();
        let (inputs, outputs) = (named(&graph.inputs), named(&graph.outputs));
        Self { graph: graph.name.clone(), inputs, outputs }
    }

    /// Whether these inputs fit.
    ///
    /// # Errors
    /// If not; names the first that does not.
    pub fn check(&self, given: &[Tensor]) -> Result<(), Error> {
        let wrong = |reason| Error::Node { node: "inputs".into(), op: "graph".into(), reason };
        if self.inputs.len() != given.len() {
            return Err(wrong(format!("expected {} inputs, got {}", self.inputs.len(), given.len())));
        }
        for ((name, ty), tensor) in self.inputs.iter().zip(given) {
            if *ty != tensor.ty {
                return Err(wrong(format!("input `{name}` must be {ty}, got {}", tensor.ty)));
            }
        }
        Ok(())
    }
}

/// Runs one graph, any number of times.
pub trait Executor {
    /// What the graph is called, takes and gives.
    fn ports(&self) -> &Ports;

    /// The graph's name.
    fn name(&self) -> &str {
        &self.ports().graph
    }

    /// Names and types of the inputs, in order.
    fn inputs(&self) -> &[(String, TensorType)] {
        &self.ports().inputs
    }

    /// Names and types of the outputs, in order.
    fn outputs(&self) -> &[(String, TensorType)] {
        &self.ports().outputs
    }

    /// Feeds the inputs in the graph's order and gives the outputs in the graph's order.
    ///
    /// # Errors
    /// If an input has not the declared type and shape, or the runtime fails.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure>;
}
