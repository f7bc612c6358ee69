//! Tensors in safetensors files, of any type.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The tensors of a file.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32s(shape: &[usize], numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn i64s(shape: &[usize], numbers: &[i64]) -> Self {
        let bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes }
    }

    /// The numbers of a float32 tensor.
    #[track_caller]
    pub(crate) fn numbers(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes).expect("a sound tensor")
    }

    /// Part `index` along the first dimension, which stays with size 1.
    pub(crate) fn row(&self, index: usize) -> Self {
        let size = self.bytes.len() / self.shape[0];
        let bytes = self.bytes[index * size..][..size].to_vec();
        Self { dtype: self.dtype, shape: [&[1], &self.shape[1..]].concat(), bytes }
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("a file of tensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |v: TensorView<'_>| Tensor { dtype: v.dtype(), shape: v.shape().to_vec(), bytes: v.data().to_vec() };
    file.tensors().into_iter().map(|(name, view)| (name, tensor(view))).collect()
}

/// Writes a file.
pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let views: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
    fs::write(path, safetensors::serialize(views, None).expect("safetensors")).expect("written");
}

/// `|found - expected| / |expected|`, in Euclidean norms.
#[track_caller]
pub(crate) fn relative_l2(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let pairs = || found.numbers().into_iter().map(f64::from).zip(expected.numbers().into_iter().map(f64::from));
    let difference: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    assert!(norm > 0.0, "the golden tensor is all zero");
    (difference / norm).sqrt()
}
