//! What can run a graph.

use crate::{DType, Error, TensorType};

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

/// Runs one graph, any number of times.
pub trait Executor {
    /// The graph's name.
    fn name(&self) -> &str;

    /// Names and types of the inputs, in order.
    fn inputs(&self) -> &[(String, TensorType)];

    /// Names and types of the outputs, in order.
    fn outputs(&self) -> &[(String, TensorType)];

    /// Feeds the inputs in the graph's order and gives the outputs in the graph's order.
    ///
    /// # Errors
    /// If an input has not the declared type and shape, or the runtime fails.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure>;
}

/// An error that names the first input that does not fit.
pub fn check_inputs(declared: &[(String, TensorType)], given: &[Tensor]) -> Result<(), Error> {
    let wrong = |reason| Error::Node { node: "inputs".into(), op: "graph".into(), reason };
    if declared.len() != given.len() {
        return Err(wrong(format!("expected {} inputs, got {}", declared.len(), given.len())));
    }
    for ((name, ty), tensor) in declared.iter().zip(given) {
        if *ty != tensor.ty {
            return Err(wrong(format!("input `{name}` must be {ty}, got {}", tensor.ty)));
        }
    }
    Ok(())
}
