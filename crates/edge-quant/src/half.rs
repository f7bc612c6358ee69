//! Weights in 16 bits of float.

use edge_ir::{Attribute, Checked, DType, Error, Graph, Node, TensorType, Value, ValueId};

/// Stores the weights of a graph, which stay in files, as `float16` with a `Cast` behind each. Arithmetic is as before.
///
/// # Errors
/// None that a sound graph has.
pub fn half_weights(graph: &Checked<Graph>) -> Result<Checked<Graph>, Error> {
    let mut graph = Graph::clone(graph);
    let is_wide = |v: &Value| v.ty.dtype == DType::Float32 && v.data.as_ref().is_some_and(edge_ir::Data::is_streamed);
    let wide: Vec<ValueId> = graph.values().filter(|(_, v)| is_wide(v)).map(|(id, _)| id).collect();
    let cast = edge_ir::ops::find("", "Cast");
    let mut nodes = Vec::new();
    for id in wide {
        let (Some(op), Value { name, ty, data }) = (cast, graph.value(id).clone()) else { continue };
        let Some(half) = data.and_then(|data| data.cast(DType::Float32, DType::Float16)) else { continue };
        let stored = TensorType::new(DType::Float16, ty.shape);
        let stored = graph.add_value(Value { name: name.clone(), ty: stored, data: Some(half) });
        let value = graph.value_mut(id);
        (value.name, value.data) = (format!("{name}_float32"), None);
        let to = Attribute::Int(i64::from(DType::Float32.onnx()));
        nodes.push(Node {
            name: format!("{name}/Cast"),
            op,
            inputs: vec![Some(stored)],
            outputs: vec![id],
            attributes: [("to", to)].into(),
        });
    }
    nodes.append(&mut graph.nodes);
    graph.nodes = nodes;
    graph.check()
}
