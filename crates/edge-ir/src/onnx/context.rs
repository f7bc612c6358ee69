//! Reads the ONNX wrapper that ONNX Runtime writes around a compiled graph: one `EPContext` node that names a binary.
//!
//! Source: <https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html>.

use std::path::Path;

use prost::Message;

use super::proto::{AttributeProto, ModelProto, NodeProto, ValueInfoProto};
use crate::Error;

/// The operator, in the domain `com.microsoft`.
const OPERATOR: &str = "EPContext";
/// The largest wrapper that is read: it holds names alone.
const LARGEST: u64 = 16 << 20;

/// What a wrapper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Names of the inputs, in order.
    pub inputs: Vec<String>,
    /// Names of the outputs, in order.
    pub outputs: Vec<String>,
    /// The binary's file, by its name in the wrapper's folder.
    pub binary: String,
    /// The version of the vendor's SDK that made the binary, as the vendor writes it.
    pub sdk: String,
    /// The execution provider.
    pub provider: String,
}

/// Reads a wrapper. Trusts nothing in it.
///
/// # Errors
/// If the file is not ONNX, is not one `EPContext` node with its inputs and outputs, has the binary in itself, or names one
/// outside of its folder.
pub fn read_context(path: &Path) -> Result<Context, Error> {
    let failed = |reason: String| Error::Onnx { path: path.to_owned(), reason };
    let size = path.metadata().map_err(Error::io("open", path))?.len();
    if size > LARGEST {
        return Err(failed(format!("it has {size} bytes, expected a wrapper of at most {LARGEST}")));
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let model = ModelProto::decode(&bytes[..]).map_err(|e| failed(e.to_string()))?;
    let graph = model.graph.ok_or_else(|| failed("there is no graph".to_owned()))?;
    let node = match &graph.node[..] {
        [node] if node.op_type() == OPERATOR && node.domain() == "com.microsoft" => node,
        nodes => {
            let kinds: Vec<&str> = nodes.iter().take(4).map(NodeProto::op_type).collect();
            let reason = format!("expected one `{OPERATOR}` node, got {}: {}", nodes.len(), kinds.join(", "));
            return Err(failed(reason));
        }
    };
    let text = |name: &str| find(node, name).map(|a| String::from_utf8_lossy(a.s()).into_owned()).unwrap_or_default();
    let names = |ports: &[ValueInfoProto]| ports.iter().map(|p| p.name().to_owned()).collect::<Vec<_>>();
    let (inputs, outputs) = (names(&graph.input), names(&graph.output));
    if inputs != node.input || outputs != node.output {
        return Err(failed(format!("the graph's inputs and outputs are not those of its `{OPERATOR}` node")));
    }
    if find(node, "embed_mode").is_none_or(|a| a.i() != 0) {
        return Err(failed("the binary is in the wrapper, expected it in a file beside it".to_owned()));
    }
    let binary = text("ep_cache_context");
    if binary.is_empty() || binary.contains(['/', '\\']) || binary.starts_with('.') {
        return Err(failed(format!(
            "`ep_cache_context` is `{binary}`, expected the name of a file beside the wrapper"
        )));
    }
    Ok(Context { inputs, outputs, binary, sdk: text("ep_sdk_version"), provider: text("source") })
}

fn find<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::GraphProto;

    fn wrapper(binary: &str, embedded: i64) -> ModelProto {
        let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
        let text = |name: &str, s: &str| AttributeProto { s: Some(s.into()), ..attribute(name) };
        let node = NodeProto {
            op_type: Some(OPERATOR.into()),
            domain: Some("com.microsoft".into()),
            input: vec!["x".into()],
            output: vec!["y".into()],
            attribute: vec![
                AttributeProto { i: Some(embedded), ..attribute("embed_mode") },
                text("ep_cache_context", binary),
                text("ep_sdk_version", "v2.51.0.260929181845"),
                text("source", "QNNExecutionProvider"),
            ],
            ..NodeProto::default()
        };
        let port = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
        let (input, output) = (vec![port("x")], vec![port("y")]);
        let graph = GraphProto { node: vec![node], input, output, ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    fn read(model: &ModelProto) -> Result<Context, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("g_ctx.onnx");
        std::fs::write(&path, model.encode_to_vec()).expect("written");
        read_context(&path).map_err(|e| e.to_string().split_once("as ONNX: ").expect("a reason").1.to_owned())
    }

    #[test]
    fn a_wrapper_names_its_binary() {
        let expected = Context {
            inputs: vec!["x".into()],
            outputs: vec!["y".into()],
            binary: "g_ctx_qnn.bin".into(),
            sdk: "v2.51.0.260929181845".into(),
            provider: "QNNExecutionProvider".into(),
        };
        assert_eq!(read(&wrapper("g_ctx_qnn.bin", 0)), Ok(expected));
    }

    #[test]
    fn other_files_are_refused() {
        let refuses = |model: &ModelProto, expected: &str| assert_eq!(read(model), Err(expected.to_owned()));
        for name in ["../g.bin", "/etc/g.bin", ".bin", "", "a\\b"] {
            let reason = format!("`ep_cache_context` is `{name}`, expected the name of a file beside the wrapper");
            refuses(&wrapper(name, 0), &reason);
        }
        refuses(&wrapper("g.bin", 1), "the binary is in the wrapper, expected it in a file beside it");
        let mut two = wrapper("g.bin", 0);
        let graph = two.graph.as_mut().expect("a graph");
        graph.node.push(NodeProto { op_type: Some("Cast".into()), ..NodeProto::default() });
        refuses(&two, "expected one `EPContext` node, got 2: EPContext, Cast");
        let mut other = wrapper("g.bin", 0);
        other.graph.as_mut().expect("a graph").output.clear();
        refuses(&other, "the graph's inputs and outputs are not those of its `EPContext` node");
        refuses(&ModelProto::default(), "there is no graph");
    }
}
