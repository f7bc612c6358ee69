//! Tensors in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use edge_ir::{DType, Tensor, TensorType};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::Error;

/// Types that tensors in and out of a graph have, on both sides.
const TYPES: &[(DType, Dtype)] = &[
    (DType::Float32, Dtype::F32),
    (DType::Int64, Dtype::I64),
    (DType::Int32, Dtype::I32),
    (DType::Int16, Dtype::I16),
    (DType::Uint16, Dtype::U16),
    (DType::Int8, Dtype::I8),
    (DType::Uint8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

/// Reads all tensors of a file.
///
/// # Errors
/// If the file cannot be read, is damaged, or has a tensor of a type that graphs do not exchange.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, Error> {
    let fail = |reason: String| Error::Tensors { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(format!("not a sound safetensors file: {e}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let row = TYPES.iter().find(|(_, stored)| *stored == view.dtype());
        let (dtype, _) =
            row.ok_or_else(|| fail(format!("`{name}` has type {:?}, expected F32, an integer or BOOL", view.dtype())))?;
        let tensor = Tensor { ty: TensorType::new(*dtype, view.shape()), bytes: view.data().to_vec() };
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// The bytes of a file that holds these tensors.
///
/// # Errors
/// If a tensor's type has no name in the format.
pub fn encode(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |reason: String| Error::Tensors { path: path.to_owned(), reason };
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let row = TYPES.iter().find(|(dtype, _)| *dtype == tensor.ty.dtype);
        let (_, stored) = row.ok_or_else(|| fail(format!("`{name}` cannot be stored as {}", tensor.ty.dtype)))?;
        let view = TensorView::new(*stored, tensor.ty.shape.clone(), &tensor.bytes).map_err(|e| fail(e.to_string()))?;
        views.push((name, view));
    }
    safetensors::serialize(views, None).map_err(|e| fail(e.to_string()))
}
