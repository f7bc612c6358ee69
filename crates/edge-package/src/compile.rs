//! What a compiler's script said, and a bundle with what it made. Nothing here runs anything.
//!
//! Sources of the provider's messages: `qnn_execution_provider.cc` (`GetCapabilityImpl`) and `qnn_model_wrapper.cc`
//! (`CreateQnnNode`) of ONNX Runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use edge_ir::{Checked, DType, Graph, Node, ValueId};
use edge_spec::bundle::{BundleManifest, Compiled, Content, Contents, Verified};
use serde::Deserialize;

/// The heading of the part of a bundle's README that is about compiled files.
const HEADING: &str = "\n## Compiled\n";
/// Operators that connect floats and integers.
const BORDERS: &[&str] = &["QuantizeLinear", "DequantizeLinear"];
/// Operators whose first input alone is an activation.
const PARAMETERS: &[&str] = &["Resize", "Clip"];

/// What the compiler's script says of a graph.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompilerSaid {
    /// The graph.
    pub component: String,
    /// Why it was refused, if it was.
    #[serde(default)]
    pub error: Option<String>,
    /// Parts that it was compiled in: 1, or the device cannot run it whole.
    #[serde(default)]
    pub graphs: usize,
    /// Its operators.
    #[serde(default)]
    pub operators: usize,
    /// Those that compute in floating point.
    #[serde(default)]
    pub floats: Vec<FloatOperator>,
    /// Size of the binary, where it was written for this graph.
    #[serde(default)]
    pub bytes: u64,
    /// How long it took.
    #[serde(default)]
    pub seconds: f32,
    /// The most memory that the compiler has held, in MiB.
    #[serde(default)]
    pub peak_mb: u64,
}

/// A compiled operator with a result in floating point.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatOperator {
    /// Its name, which comes from the ONNX node's.
    pub node: String,
    /// What it does.
    pub kind: String,
    /// The names of such results, which come from the ONNX tensors'.
    pub results: Vec<String>,
}

/// What the emulator's script says of an output of a run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmulatorSaid {
    /// The graph.
    pub component: String,
    /// The output.
    pub output: String,
    /// Its signal-to-noise ratio against the golden output, in decibels.
    pub sqnr_db: f32,
    /// What the bundle asks for.
    pub least: f32,
}

/// A node that the compiler did not take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The vendor's error code, if the compiler gave one.
    pub code: Option<u32>,
}

/// The nodes that a log of ONNX Runtime's QNN provider names as refused, each once, in order of the log.
pub fn refused(log: &str) -> Vec<Refused> {
    let mut codes = BTreeMap::new();
    let mut found: Vec<Refused> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("failed for node `")
            && let Some((node, rest)) = rest.split_once("` of type `")
            && let Some((op, rest)) = rest.split_once('`')
        {
            let code = rest.rsplit(' ').next().and_then(|code| code.trim().parse().ok());
            codes.insert(node.to_owned(), (op.to_owned(), code));
        }
        let Some((_, list)) = line.split_once("Unsupported nodes in QNN EP: ") else { continue };
        for part in list.split("{ name: ").skip(1) {
            let Some((node, op)) = part.split_once(", type: ") else { continue };
            let op = op.split([' ', '}']).next().unwrap_or_default();
            let code = codes.get(node).and_then(|(_, code)| *code);
            let refused = Refused { node: node.to_owned(), op: op.to_owned(), code };
            if !found.contains(&refused) {
                found.push(refused);
            }
        }
    }
    if found.is_empty() {
        // The compiler gave up before it counted.
        found.extend(codes.into_iter().map(|(node, (op, code))| Refused { node, op, code }));
    }
    found
}

/// Channels of a depthwise convolution beyond which Qualcomm's compiler crashes, if weights have 8 bits and a scale for each:
/// measured with QNN 2.51.
const MOST_CHANNELS: i64 = 256;

/// The nodes of a graph at which Qualcomm's compiler is known to crash, without a word about them.
pub fn crashing(graph: &Graph) -> Vec<&str> {
    let eight_bits_each = |id: ValueId| {
        let maker = graph.nodes.iter().find(|n| n.outputs.contains(&id) && n.op.name == "DequantizeLinear");
        let scales = maker.and_then(|n| Some((n.inputs[0]?, n.inputs[1]?)));
        scales.is_some_and(|(q, scale)| graph.ty(q).dtype == DType::Int8 && graph.ty(scale).elements() > 1)
    };
    let is_one = |node: &&Node| node.op.name == "Conv" && node.int("group", 1) > MOST_CHANNELS;
    let found = graph.nodes.iter().filter(is_one).filter(|n| n.inputs[1].is_some_and(eight_bits_each));
    found.map(|node| node.name.as_str()).collect()
}

/// Names of graphs that one binary can hold, with the name of each group: the steps of a UNet, any other by itself.
pub fn groups<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for name in names {
        let group = name.split_once("_step_").map_or(name, |(group, _)| group);
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, graphs)) => graphs.push(name),
            None => groups.push((group, vec![name])),
        }
    }
    groups
}

/// Compiled operators in floating point that the graph has as integers: a node counts as integers if what it reads and gives
/// passes `QuantizeLinear` or `DequantizeLinear`. Where the graph has none but such nodes, every operator counts; otherwise
/// those that can be told by their names.
pub fn unasked<'a>(graph: &Checked<Graph>, floats: &'a [FloatOperator]) -> Vec<&'a FloatOperator> {
    let mut makers: BTreeMap<ValueId, &Node> = BTreeMap::new();
    let mut readers: BTreeMap<ValueId, Vec<&Node>> = BTreeMap::new();
    for node in &graph.nodes {
        makers.extend(node.outputs.iter().map(|id| (*id, node)));
        for id in node.inputs.iter().flatten() {
            readers.entry(*id).or_default().push(node);
        }
    }
    let in_float = |id: &ValueId| graph.ty(*id).dtype.is_float();
    let all = |nodes: Option<&Vec<&Node>>, op: &str| nodes.is_some_and(|nodes| nodes.iter().all(|n| n.op.name == op));
    let is_integer = |node: &Node| {
        let reads = node.inputs.iter().flatten().filter(|id| in_float(id));
        // The size of a Resize and the limits of a Clip are no activations.
        let mut reads = reads.take(if PARAMETERS.contains(&node.op.name) { 1 } else { usize::MAX });
        let mut gives = node.outputs.iter().filter(|id| in_float(id));
        reads.all(|id| makers.get(id).is_some_and(|maker| maker.op.name == "DequantizeLinear"))
            && gives.all(|id| all(readers.get(id), "QuantizeLinear"))
    };
    let inner = graph.nodes.iter().filter(|node| !BORDERS.contains(&node.op.name));
    let (integers, asked): (Vec<&Node>, Vec<&Node>) = inner.partition(|node| is_integer(node));
    if asked.is_empty() {
        return floats.iter().collect();
    }
    let names = |nodes: &[&Node]| -> BTreeSet<String> {
        let outputs = nodes.iter().flat_map(|n| &n.outputs).map(|id| graph.value(*id).name.clone());
        nodes.iter().map(|n| n.name.clone()).chain(outputs).collect()
    };
    let known = names(&integers);
    let is_known = |name: &String| known.contains(name) || known.contains(plain(name));
    floats.iter().filter(|f| is_known(&f.node) || f.results.iter().any(is_known)).collect()
}

/// A name without the number that the compiler's front end makes it unique with.
fn plain(name: &str) -> &str {
    name.rsplit_once("_token_").filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit())).map_or(name, |(name, _)| name)
}

/// Puts what was compiled into a bundle that is written anew: `files` are the compiled ones, by their names in the bundle,
/// and `readme` the bundle's README as it was. What an earlier compilation left must not be in `contents`.
pub fn add_compiled(
    manifest: &mut BundleManifest,
    compiled: Compiled,
    files: Vec<(String, Content)>,
    readme: &str,
    contents: &mut Contents,
) {
    let outputs = |c: &edge_spec::bundle::CompiledGraph| c.emulated.len();
    let wanted = |component: &str| manifest.golden.runs.iter().any(|run| run.component == component);
    let all = manifest.components.iter().filter(|c| wanted(&c.name));
    let emulated = all.clone().all(|c| compiled.graphs.iter().any(|g| g.component == c.name && outputs(g) > 0));
    manifest.verified = match manifest.verified {
        Verified::Artifact => Verified::Artifact,
        Verified::Source | Verified::Emulated if emulated => Verified::Emulated,
        Verified::Source | Verified::Emulated => Verified::Source,
    };
    let start = readme.split_once(HEADING).map_or(readme, |(start, _)| start);
    contents.insert("README.md".into(), Content::Bytes(format!("{start}{}", section(&compiled)).into_bytes()));
    contents.extend(files);
    manifest.compiled = Some(compiled);
}

/// The README's part about compiled files.
fn section(compiled: &Compiled) -> String {
    let mut text = format!(
        "{HEADING}\n`compiled/` has what version {} of the SDK made of the graphs ({}): an ONNX file for each, which stands in \
         the place of the graph's own, and its binary. They run with this version and on this device.\n\n\
         | graph | file | binary | operators | in floating point | emulated |\n|---|---|---|---|---|---|\n",
        compiled.sdk,
        compiled.tools.join(", ")
    );
    for g in &compiled.graphs {
        let near: Vec<String> = g.emulated.iter().map(|o| format!("`{}` {:.1} dB", o.name, o.sqnr_db)).collect();
        let near = if near.is_empty() { "not run".to_owned() } else { near.join(", ") };
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | `{}` | `{}` | {} | {} | {near} |",
            g.component, g.file, g.binary, g.operators, g.float_operators
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, Data, TensorType};

    use super::*;

    const LOG: &str = "\
        2026 [W:onnxruntime:, qnn_model_wrapper.cc:565 CreateQnnNode] QNN.backendValidateOpConfig() failed for node `a.norm1` of type `LayerNorm` with error code 3110\n\
        \n\
        2026 [E:onnxruntime:, qnn_execution_provider.cc:2453 GetCapabilityImpl] Unsupported nodes in QNN EP: { name: a.norm1, type: LayerNormalization }{ name: a.attn/MatMul.head1, type: MatMul }\n";

    #[test]
    fn a_log_names_what_was_refused() {
        let refused_is = |node: &str, op: &str, code| Refused { node: node.into(), op: op.into(), code };
        assert_eq!(
            refused(LOG),
            [
                refused_is("a.norm1", "LayerNormalization", Some(3110)),
                refused_is("a.attn/MatMul.head1", "MatMul", None)
            ]
        );
        assert_eq!(refused(LOG.lines().next().expect("a line")), [refused_is("a.norm1", "LayerNorm", Some(3110))]);
        assert_eq!(refused("nothing { name: x, type: Y }"), []);
    }

    #[test]
    fn steps_of_a_unet_are_a_group() {
        let found = groups(["text_encoder", "unet_step_0", "unet_step_1", "vae_decoder"].into_iter());
        let expected = [
            ("text_encoder", vec!["text_encoder"]),
            ("unet", vec!["unet_step_0", "unet_step_1"]),
            ("vae_decoder", vec!["vae_decoder"]),
        ];
        assert_eq!(found, expected);
    }

    /// `x -> Q DQ -> Relu r -> Q DQ`, and behind it a float `Sigmoid s` where `with_float`.
    fn graph(with_float: bool) -> Checked<Graph> {
        let mut b = Builder::new("g");
        let scale = b.floats("scale", &[], &[0.5]);
        let zero = b.weight("zero", TensorType::new(DType::Uint16, []), Data::owned(300_u16.to_le_bytes().to_vec()));
        let mut x = b.input("x", DType::Float32, &[1, 4]);
        for op in ["Relu", "Tanh"] {
            let q = b.node("QuantizeLinear", &format!("{op}_in_q"), &[x, scale, zero], &[]).expect("integers");
            let dq = b.node("DequantizeLinear", &format!("{op}_in_dq"), &[q, scale, zero], &[]).expect("numbers");
            x = b.node(op, &format!("{op}.layer"), &[dq], &[]).expect("a node");
        }
        let q = b.node("QuantizeLinear", "out_q", &[x, scale, zero], &[]).expect("integers");
        let mut out = b.node("DequantizeLinear", "out_dq", &[q, scale, zero], &[]).expect("numbers");
        if with_float {
            out = b.node("Sigmoid", "s.layer", &[out], &[]).expect("a node");
        }
        b.output("out", out);
        b.finish().expect("a graph")
    }

    #[test]
    fn floats_that_the_graph_has_as_integers_are_not_asked_for() {
        let float = |node: &str, result: &str| FloatOperator {
            node: node.into(),
            kind: "Relu".into(),
            results: vec![result.into()],
        };
        let floats = [float("Relu.layer_token_12", "other"), float("s.layer", "out"), float("Convert", "inside")];
        assert_eq!(unasked(&graph(false), &floats).len(), 3, "nothing may be in float");
        assert_eq!(unasked(&graph(true), &floats), [&floats[0]]);
    }

    #[test]
    fn what_crashes_the_compiler_is_known() {
        let depthwise = |channels: usize, dtype: DType| {
            let mut b = Builder::new("g");
            let x = b.input("x", DType::Float32, &[1, channels, 2, 2]);
            let bytes = |ty: DType| Data::owned(vec![1; usize::try_from(ty.bytes(channels as u64)).unwrap_or(0)]);
            let q = b.weight("w", TensorType::new(dtype, [channels, 1, 1, 1]), bytes(dtype));
            let scale = b.floats("scale", &[channels], &vec![0.5; channels]);
            let w = b.node("DequantizeLinear", "w/DQ", &[q, scale], &[("axis", Attribute::Int(0))]).expect("numbers");
            let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
            let attributes = [
                ("kernel_shape", ints(&[1, 1])),
                ("pads", ints(&[0; 4])),
                ("strides", ints(&[1, 1])),
                ("dilations", ints(&[1, 1])),
                ("group", Attribute::Int(i64::try_from(channels).expect("few"))),
            ];
            let y = b.node("Conv", "norm/Conv", &[x, w], &attributes).expect("a convolution");
            b.output("y", y);
            crashing(&b.finish().expect("a graph")).len()
        };
        assert_eq!(depthwise(320, DType::Int8), 1);
        assert_eq!((depthwise(256, DType::Int8), depthwise(320, DType::Int16)), (0, 0));
    }
}
