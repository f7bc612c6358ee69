//! A graph as protobuf messages.

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, tensor_proto, tensor_shape_proto, type_proto,
};
use crate::{Attribute, Data, Graph, Node, TensorType, Value};

/// Where a constant's bytes are to be found.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the message itself.
    Here,
    /// In the message, but written later by whoever streams the file.
    Later,
    /// In a file beside the model.
    File { location: String, offset: u64, len: u64 },
}

/// The model without its initializers, and the initializers; `place` says where each one's bytes are.
pub(super) fn encode(
    graph: &Graph,
    opset: u32,
    ir_version: i64,
    place: &dyn Fn(&Value, &Data) -> Place,
) -> (ModelProto, Vec<TensorProto>) {
    let is_edge = |id| graph.inputs.contains(&id) || graph.outputs.contains(&id);
    let info = |id| value_info(&graph.value(id).name, graph.ty(id));
    let proto = GraphProto {
        name: Some(graph.name.clone()),
        node: graph.nodes.iter().map(|n| node(graph, n)).collect(),
        input: graph.inputs.iter().map(|id| info(*id)).collect(),
        output: graph.outputs.iter().map(|id| info(*id)).collect(),
        value_info: graph
            .values()
            .filter(|(id, v)| v.data.is_none() && !is_edge(*id))
            .map(|(id, _)| info(id))
            .collect(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(ir_version),
        producer_name: Some("edgetool".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        opset_import: opsets(graph, opset),
        graph: Some(proto),
        ..ModelProto::default()
    };
    let tensors = graph.initializers().map(|(_, value, data)| tensor(value, data, place(value, data))).collect();
    (model, tensors)
}

fn opsets(graph: &Graph, opset: u32) -> Vec<OperatorSetIdProto> {
    let mut domains: Vec<&str> = graph.nodes.iter().map(|n| n.op.domain).filter(|d| !d.is_empty()).collect();
    domains.sort_unstable();
    domains.dedup();
    let standard = (String::new(), i64::from(opset));
    let rest = domains.into_iter().map(|d| (d.to_owned(), 1));
    std::iter::once(standard)
        .chain(rest)
        .map(|(domain, version)| OperatorSetIdProto { domain: Some(domain), version: Some(version) })
        .collect()
}

fn value_info(name: &str, ty: &TensorType) -> ValueInfoProto {
    let dim = |d: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(signed(*d))),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(ty.dtype.onnx()),
        shape: Some(TensorShapeProto { dim: ty.shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

fn node(graph: &Graph, node: &Node) -> NodeProto {
    let name = |id: &crate::ValueId| graph.value(*id).name.clone();
    NodeProto {
        name: Some(node.name.clone()),
        op_type: Some(node.op.name.to_owned()),
        domain: (!node.op.domain.is_empty()).then(|| node.op.domain.to_owned()),
        input: node.inputs.iter().map(|id| id.as_ref().map(name).unwrap_or_default()).collect(),
        output: node.outputs.iter().map(name).collect(),
        attribute: node.attributes.iter().map(|(k, v)| attribute(k, v)).collect(),
        ..NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    use attribute_proto::AttributeType as Type;
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attribute::Int(v) => {
            proto.i = Some(*v);
            Type::Int
        }
        Attribute::Float(v) => {
            proto.f = Some(*v);
            Type::Float
        }
        Attribute::String(v) => {
            proto.s = Some(v.clone().into_bytes());
            Type::String
        }
        Attribute::Ints(v) => {
            proto.ints.clone_from(v);
            Type::Ints
        }
        Attribute::Floats(v) => {
            proto.floats.clone_from(v);
            Type::Floats
        }
    };
    proto.r#type = Some(kind as i32);
    proto
}

fn tensor(value: &Value, data: &Data, place: Place) -> TensorProto {
    let mut proto = TensorProto {
        name: Some(value.name.clone()),
        data_type: Some(value.ty.dtype.onnx()),
        dims: value.ty.shape.iter().map(|d| signed(*d)).collect(),
        ..TensorProto::default()
    };
    match place {
        Place::Later => {}
        Place::Here => proto.raw_data = Some(data.bytes().into_owned().into()),
        Place::File { location, offset, len } => {
            proto.data_location = Some(tensor_proto::DataLocation::External as i32);
            let entry = |k: &str, v: String| StringStringEntryProto { key: Some(k.to_owned()), value: Some(v) };
            proto.external_data = vec![
                entry("location", location),
                entry("offset", offset.to_string()),
                entry("length", len.to_string()),
            ];
        }
    }
    proto
}

/// Sizes of tensors that exist fit into ONNX's signed sizes.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
