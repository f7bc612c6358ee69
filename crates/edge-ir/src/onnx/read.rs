//! Reads an ONNX file into a checked graph, without copying weights. Trusts nothing in the file.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::proto::{
    AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto, tensor_shape_proto, type_proto,
};
use crate::ops::{self, Kind};
use crate::{Attribute, Checked, DType, Data, Error, Graph, MappedFile, Node, TensorType, Value, ValueId};

/// Reads a model file and maps the files that its weights are in.
///
/// # Errors
/// If the file is not ONNX, uses an operator that is not in the table, has dynamic shapes, points out of its folder or
/// beyond the end of a weight file, or breaks a rule of the checker.
pub fn read(path: &Path) -> Result<Checked<Graph>, Error> {
    let file = MappedFile::open(path)?;
    let model = ModelProto::decode(Bytes::from_owner(MappedBytes(file)))
        .map_err(|e| Error::Onnx { path: path.to_owned(), reason: e.to_string() })?;
    let proto =
        model.graph.ok_or_else(|| Error::Onnx { path: path.to_owned(), reason: "there is no graph".to_owned() })?;
    let mut reader = Reader { path, files: BTreeMap::new(), names: BTreeMap::new(), graph: Graph::new(proto.name()) };
    let mut types = BTreeMap::new();
    for info in proto.value_info.iter().chain(&proto.output) {
        types.insert(info.name().to_owned(), reader.tensor_type(info)?);
    }
    for tensor in proto.initializer {
        reader.initializer(tensor)?;
    }
    for info in &proto.input {
        reader.input(info)?;
    }
    for node in &proto.node {
        reader.node(node, &types)?;
    }
    for info in &proto.output {
        let id = reader.known(info.name(), "the outputs")?;
        reader.graph.outputs.push(id);
    }
    reader.graph.check()
}

struct MappedBytes(Arc<MappedFile>);

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

struct Reader<'a> {
    path: &'a Path,
    files: BTreeMap<PathBuf, Arc<MappedFile>>,
    names: BTreeMap<String, ValueId>,
    graph: Graph,
}

impl Reader<'_> {
    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, Error> {
        Err(Error::Onnx { path: self.path.to_owned(), reason: reason.into() })
    }

    fn known(&self, name: &str, reader: &str) -> Result<ValueId, Error> {
        self.names
            .get(name)
            .copied()
            .map_or_else(|| self.fail(format!("{reader} name `{name}`, which nothing makes")), Ok)
    }

    fn add(&mut self, name: &str, ty: TensorType, data: Option<Data>) -> ValueId {
        let id = self.graph.add_value(Value { name: name.to_owned(), ty, data });
        self.names.insert(name.to_owned(), id);
        id
    }

    fn input(&mut self, info: &ValueInfoProto) -> Result<(), Error> {
        // Old exporters list initializers among the inputs.
        if self.names.contains_key(info.name()) {
            return Ok(());
        }
        let ty = self.tensor_type(info)?;
        let id = self.add(info.name(), ty, None);
        self.graph.inputs.push(id);
        Ok(())
    }

    fn tensor_type(&self, info: &ValueInfoProto) -> Result<TensorType, Error> {
        let name = info.name();
        let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return self.fail(format!("`{name}` is not a tensor"));
        };
        let Some(dtype) = DType::from_onnx(tensor.elem_type()) else {
            return self.fail(format!("`{name}` has the unknown element type {}", tensor.elem_type()));
        };
        let mut shape = Vec::new();
        for dim in tensor.shape.iter().flat_map(|s| &s.dim) {
            match dim.value {
                Some(tensor_shape_proto::dimension::Value::DimValue(d)) if d > 0 => {
                    shape.push(usize::try_from(d).unwrap_or(0));
                }
                _ => return self.fail(format!("`{name}` has a dynamic or empty dimension, expected static shapes")),
            }
        }
        Ok(TensorType::new(dtype, shape))
    }

    fn initializer(&mut self, tensor: TensorProto) -> Result<(), Error> {
        let name = tensor.name().to_owned();
        let Some(dtype) = DType::from_onnx(tensor.data_type()) else {
            return self.fail(format!("`{name}` has the unknown element type {}", tensor.data_type()));
        };
        let shape = tensor.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
        let Ok(shape) = shape else { return self.fail(format!("`{name}` has a negative dimension")) };
        let data = if tensor.external_data.is_empty() {
            self.internal(&name, dtype, tensor)?
        } else {
            self.external(&name, &tensor)?
        };
        self.add(&name, TensorType::new(dtype, shape), Some(data));
        Ok(())
    }

    fn internal(&self, name: &str, dtype: DType, tensor: TensorProto) -> Result<Data, Error> {
        let empty = tensor.dims.contains(&0);
        match tensor.raw_data {
            Some(raw) => Ok(Data::owned(raw)),
            None if !tensor.float_data.is_empty() => Ok(Data::f32s(&tensor.float_data)),
            None if !tensor.int64_data.is_empty() => Ok(Data::i64s(&tensor.int64_data)),
            None if !tensor.int32_data.is_empty() => Ok(narrow(dtype, &tensor.int32_data)),
            None if empty => Ok(Data::owned(Bytes::new())),
            None => self.fail(format!("`{name}` has its content in a field that is not supported, expected raw_data")),
        }
    }

    fn external(&mut self, name: &str, tensor: &TensorProto) -> Result<Data, Error> {
        let entry =
            |key| tensor.external_data.iter().find(|e| e.key() == key).map(super::proto::StringStringEntryProto::value);
        let location = PathBuf::from(entry("location").unwrap_or_default());
        if location.components().any(|c| !matches!(c, Component::Normal(_))) || location.as_os_str().is_empty() {
            return self
                .fail(format!("`{name}` is in `{}`, expected a file below the model's folder", location.display()));
        }
        if !self.files.contains_key(&location) {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            self.files.insert(location.clone(), MappedFile::open(&folder.join(&location))?);
        }
        let file = &self.files[&location];
        let offset = entry("offset").map_or(Ok(0), str::parse);
        let len = entry("length").map_or_else(|| Ok(file.len()), str::parse);
        let (Ok(offset), Ok(len)) = (offset, len) else {
            return self.fail(format!("`{name}` has an offset or length that is not a number"));
        };
        let data = Data::mapped(Arc::clone(file), offset, len);
        let size = file.len();
        data.map_or_else(
            || self.fail(format!("`{name}` is bytes {offset}+{len} of `{}`, which has {size}", location.display())),
            Ok,
        )
    }

    fn node(&mut self, proto: &NodeProto, types: &BTreeMap<String, TensorType>) -> Result<(), Error> {
        let (name, op) = (proto.name().to_owned(), proto.op_type());
        let Some(row) = ops::find(proto.domain(), op) else {
            return self.fail(format!(
                "node `{name}` uses operator `{op}` of domain `{}`, which edgetool does not know",
                proto.domain()
            ));
        };
        let input =
            |i: &String| if i.is_empty() { Ok(None) } else { self.known(i, &format!("node `{name}`")).map(Some) };
        let inputs = proto.input.iter().map(input).collect::<Result<_, _>>()?;
        let mut attributes = BTreeMap::new();
        for attribute in &proto.attribute {
            let Some((key, kind, _)) = row.attributes.iter().find(|(k, _, _)| *k == attribute.name()) else {
                return self.fail(format!(
                    "node `{name}` ({op}) has the attribute `{}`, which is not supported",
                    attribute.name()
                ));
            };
            let value = value(attribute, *kind);
            let Some(value) = value else {
                return self.fail(format!("node `{name}` ({op}): attribute `{key}` is not {kind:?}"));
            };
            attributes.insert(*key, value);
        }
        let mut node = Node { name, op: row, inputs, outputs: Vec::new(), attributes };
        let inferred = crate::builder::infer(&self.graph, &node)?;
        for (output, ty) in proto.output.iter().zip(inferred) {
            if let Some(declared) = types.get(output).filter(|t| **t != ty) {
                return self.fail(format!("`{output}` is declared {declared}, node `{}` makes {ty}", node.name));
            }
            node.outputs.push(self.add(output, ty, None));
        }
        self.graph.nodes.push(node);
        Ok(())
    }
}

/// Numbers of up to 32 bits, which stand one in an `int32`; of 4 bits, two.
fn narrow(dtype: DType, numbers: &[i32]) -> Data {
    let size = usize::try_from(dtype.bytes(1)).unwrap_or(4).min(4);
    Data::owned(numbers.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect::<Vec<_>>())
}

fn value(proto: &AttributeProto, kind: Kind) -> Option<Attribute> {
    use attribute_proto::AttributeType as Type;
    match (kind, proto.r#type()) {
        (Kind::Int, Type::Int) => Some(Attribute::Int(proto.i())),
        (Kind::Float, Type::Float) => Some(Attribute::Float(proto.f())),
        (Kind::String, Type::String) => String::from_utf8(proto.s().to_vec()).ok().map(Attribute::String),
        (Kind::Ints, Type::Ints) => Some(Attribute::Ints(proto.ints.clone())),
        _ => None,
    }
}
