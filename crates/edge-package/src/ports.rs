//! What a bundle says of a graph's inputs and outputs.

use edge_ir::ops::quantize::{encoding, is_linear};
use edge_ir::{Graph, ValueId};
use edge_spec::bundle::{BundleComponent, BundlePort, MODEL_FOLDER, PortQuantization};
use edge_spec::{Component, Fold, ImageLayout, Port};

/// Ports whose axes are images, channels, height and width.
const PLANES: &[&str] = &["sample", "noise", "out_sample", "latent_sample", "denoised", "prev_sample", "image"];
/// Ports whose axes are images, tokens and channels.
const TOKENS: &[&str] = &["encoder_hidden_states", "last_hidden_state"];
/// Ports whose axes are images and tokens.
const IDS: &[&str] = &["input_ids"];
/// Before the names of ports that belong to the negative prompt.
const NEGATIVE: &str = "negative_";

/// A component as the bundle's manifest describes it.
pub(crate) fn component(component: &Component, graph: &Graph, fold: Option<&Fold>) -> BundleComponent {
    let inputs = component.inputs.iter().zip(&graph.inputs);
    let outputs = component.outputs.iter().zip(&graph.outputs);
    BundleComponent {
        name: component.name.clone(),
        file: format!("{MODEL_FOLDER}/{}", component.file),
        inputs: inputs.map(|(p, id)| port(p, quantized_input(graph, *id), fold)).collect(),
        outputs: outputs.map(|(p, id)| port(p, quantized_output(graph, *id), fold)).collect(),
    }
}

fn port(port: &Port, quantization: Option<PortQuantization>, fold: Option<&Fold>) -> BundlePort {
    let Port { name, dtype, shape } = port.clone();
    let layout = layout(&name, shape.len(), fold).map(str::to_owned);
    BundlePort { name, dtype, shape, layout, quantization }
}

/// The integers that stand for an input: those that its one reader makes of it.
fn quantized_input(graph: &Graph, id: ValueId) -> Option<PortQuantization> {
    let mut readers = graph.nodes.iter().filter(|node| node.inputs.contains(&Some(id)));
    let node = readers.next().filter(|node| is_linear(node, "QuantizeLinear"))?;
    if readers.next().is_some() {
        return None;
    }
    quantization(graph, node)
}

/// The integers that stand for an output: those that its maker reads.
fn quantized_output(graph: &Graph, id: ValueId) -> Option<PortQuantization> {
    let maker = graph.nodes.iter().find(|node| node.outputs.contains(&id))?;
    if is_linear(maker, "DequantizeLinear") { quantization(graph, maker) } else { None }
}

/// What a node says, if it says one thing of the whole tensor.
fn quantization(graph: &Graph, node: &edge_ir::Node) -> Option<PortQuantization> {
    let found = encoding(graph, node)?;
    let ([scale], [zero_point]) = (&found.scales[..], &found.zero_points[..]) else { return None };
    Some(PortQuantization { dtype: found.dtype.name().to_owned(), scale: *scale, zero_point: i64::from(*zero_point) })
}

/// The axes of a port, where its name says what it is.
fn layout(name: &str, rank: usize, fold: Option<&Fold>) -> Option<&'static str> {
    let name = name.strip_prefix(NEGATIVE).unwrap_or(name);
    // The noise of step 1 is `noise_1` where all steps are in one graph.
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let channels_last = fold.is_some_and(|f| matches!(f.image, ImageLayout::Nhwc | ImageLayout::NhwcU8));
    match rank {
        4 if name == "image" && channels_last => Some("NHWC"),
        4 if PLANES.contains(&name) => Some("NCHW"),
        3 if TOKENS.contains(&name) => Some("NLC"),
        2 if IDS.contains(&name) => Some("NL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType, Data, TensorType};

    use super::*;

    #[test]
    fn the_integers_of_a_port_are_those_at_the_border() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 4]);
        let plain = b.input("plain", DType::Float32, &[1, 4]);
        let scale = b.floats("scale", &[], &[0.5]);
        let zero = b.weight("zero", TensorType::new(DType::Uint16, []), Data::owned(300_u16.to_le_bytes().to_vec()));
        let q = b.node("QuantizeLinear", "q", &[x, scale, zero], &[]).expect("integers");
        let dq = b.node("DequantizeLinear", "dq", &[q, scale, zero], &[]).expect("numbers");
        let sum = b.node("Add", "sum", &[dq, plain], &[]).expect("a sum");
        b.output("sum", sum);
        b.output("same", dq);
        let graph = b.finish().expect("a graph");
        let port = |name: &str| Port { name: name.into(), dtype: "float32".into(), shape: vec![1, 4] };
        let described = Component {
            name: "g".into(),
            file: "g/model.onnx".into(),
            sha256: String::new(),
            inputs: vec![port("x"), port("plain")],
            outputs: vec![port("sum"), port("same")],
        };
        let found = component(&described, &graph, None);
        assert_eq!(found.file, "model/g/model.onnx");
        let expected = Some(PortQuantization { dtype: "uint16".into(), scale: 0.5, zero_point: 300 });
        let quantizations = |ports: &[BundlePort]| ports.iter().map(|p| p.quantization.clone()).collect::<Vec<_>>();
        assert_eq!(quantizations(&found.inputs), [expected.clone(), None]);
        assert_eq!(quantizations(&found.outputs), [None, expected]);
    }

    #[test]
    fn axes_are_known_by_name() {
        for (name, rank, expected) in [
            ("sample", 4, Some("NCHW")),
            ("noise_1", 4, Some("NCHW")),
            ("negative_input_ids", 2, Some("NL")),
            ("last_hidden_state", 3, Some("NLC")),
            ("image", 4, Some("NCHW")),
            ("image", 3, None),
            ("timestep", 1, None),
        ] {
            assert_eq!(layout(name, rank, None), expected, "{name}");
        }
    }
}
