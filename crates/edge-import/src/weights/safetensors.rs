//! safetensors files (<https://huggingface.co/docs/safetensors>): the header is checked whole before anything is read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use edge_ir::{DType, Data, MappedFile, TensorType};
use safetensors::tensor::{Dtype, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::Value;

use super::{Stored, Tensors};
use crate::Error;

/// Bytes of the header's length.
const PREFIX: u64 = 8;

/// The tensors of one file.
pub(super) fn open(path: &Path) -> Result<Tensors, Error> {
    let meta = std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if meta.len() < PREFIX {
        return Err(unsound(path, format!("it has {} bytes, expected 8 and more", meta.len())));
    }
    let file = MappedFile::open(path)?;
    let (header, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(|e| unsound(path, explain(&e, &file)))?;
    let start = PREFIX + header as u64;
    let mut tensors = Tensors::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let stored =
            stored(info, start, &file).ok_or_else(|| unsound(path, format!("`{name}` lies beyond the end")))?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

/// The tensors of all shards that an index names.
pub(super) fn open_shards(index: &Path) -> Result<Tensors, Error> {
    let document = crate::Document::open(index)?;
    let Some(Value::Object(map)) = document.fields.get("weight_map") else {
        return Err(Error::field(
            index,
            "weight_map",
            "absent or not an object",
            "an object of tensor names and file names",
        ));
    };
    let folder = index.parent().unwrap_or(Path::new("."));
    let files: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    let mut tensors = Tensors::new();
    for name in files {
        let path = folder.join(name);
        if Path::new(name).components().count() != 1 || !path.exists() {
            return Err(Error::not_found(&path, format!("is not there: `{}` names this shard", index.display())));
        }
        tensors.extend(open(&path)?);
    }
    if let Some((name, shard)) = map.iter().find(|(name, _)| !tensors.contains_key(*name)) {
        return Err(Error::not_found(index, format!("names `{name}` in {shard}, which does not hold it")));
    }
    Ok(tensors)
}

fn stored(info: &TensorInfo, start: u64, file: &Arc<MappedFile>) -> Option<Stored> {
    let (begin, end) = info.data_offsets;
    let data = Data::mapped(Arc::clone(file), start + begin as u64, (end - begin) as u64)?;
    let ty =
        dtype(info.dtype).map(|d| TensorType::new(d, info.shape.clone())).ok_or_else(|| format!("{:?}", info.dtype));
    Some(Stored { ty, shape: info.shape.clone(), data })
}

/// The types that weights may have.
fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::Float32),
        Dtype::F16 => Some(DType::Float16),
        Dtype::BF16 => Some(DType::BFloat16),
        _ => None,
    }
}

fn unsound(path: &Path, reason: String) -> Error {
    Error::Safetensors { path: path.to_owned(), reason }
}

/// The library's verdict with the sizes that it leaves out.
fn explain(error: &SafeTensorError, file: &MappedFile) -> String {
    let size = file.len();
    let claimed = file.bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    match error {
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            format!("its header claims {claimed} bytes, the file has {size}")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!(
                "its tensors do not end where the file does, at {size} bytes: it is truncated, or has something after its end"
            )
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the offsets of `{name}` overlap another tensor, leave a gap, or run backwards")
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's offsets do not fit its type and shape".to_owned(),
        other => format!("its header is not valid: {other}"),
    }
}
