//! Every network of a committed checkpoint, in a target's form, quantized: what is quantized, and how far the result is
//! from the float graph's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use edge_import::{Options, import};
use edge_ir::ops::quantize::{MICROSOFT, encoding};
use edge_ir::{Checked, DType, Executor, Graph, Tensor, TensorType, ValueId, View};
use edge_passes::Driver;
use edge_passes::lower::passes;
use edge_quant::calibration::taps;
use edge_quant::mixed::pieces;
use edge_quant::repairs::{correct_biases, smooth};
use edge_quant::rounding::Rounding;
use edge_quant::{Inputs, Quantized, Range, Settings, SharedWeights, half_weights, quantize};
use edge_run::Session;
use edge_spec::{ActivationType, PrecisionRule, Scheme, Target, WeightType};

/// A network, inputs for it, what it gives, and what its tensors take meanwhile.
struct Case {
    graph: Checked<Graph>,
    inputs: Vec<Tensor>,
    expected: Vec<f32>,
    ranges: BTreeMap<String, Range>,
}

fn case(component: &str, target: &Target) -> Case {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let model = import(&root.join("tests/fixtures/edgefusion"), None, Options::default()).expect("a checkpoint").model;
    let graph = Driver::default().run(&passes(&target.graph), model.components[component].clone()).expect("lowered");
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|id| input(graph.ty(*id))).collect();
    let expected = run(&graph, &inputs);
    let ranges = observe(&graph, &inputs);
    Case { graph, inputs, expected, ranges }
}

/// Numbers in -1..1, or small indices, in no order.
fn input(ty: &TensorType) -> Tensor {
    let count: u32 = ty.shape.iter().product::<usize>().try_into().unwrap();
    let mixed = (1..=count).map(|i| i.wrapping_mul(2_654_435_761) >> 16);
    if ty.dtype == DType::Float32 {
        let number = |v: u32| f32::from(u16::try_from(v).unwrap()) / 32768.0 - 1.0;
        return Tensor::f32s(ty.shape.clone(), &mixed.map(number).collect::<Vec<_>>());
    }
    Tensor::indices(ty, &mixed.map(|v| i64::from(v % 500)).collect::<Vec<_>>())
}

fn run(graph: &Checked<Graph>, inputs: &[Tensor]) -> Vec<f32> {
    Session::load(graph).expect("tract takes it").run(inputs).expect("it runs")[0].to_f32s()
}

/// The range of each tensor, by a graph that gives all of them out.
fn observe(graph: &Checked<Graph>, inputs: &[Tensor]) -> BTreeMap<String, Range> {
    let mut all = Graph::clone(graph);
    let seen = taps(graph).observed;
    let more = seen.iter().filter(|id| !all.outputs.contains(id) && !all.inputs.contains(id));
    all.outputs = all.outputs.iter().chain(more).copied().collect();
    let all = all.check().unwrap();
    let results = Session::load(&all).expect("tract takes it").run(inputs).expect("it runs");
    let named = all.outputs.iter().zip(&results).chain(all.inputs.iter().zip(inputs));
    named.filter_map(|(id, t)| Some((all.value(*id).name.clone(), Range::of(&t.to_f32s())?))).collect()
}

impl Case {
    /// What the layers read.
    fn layer_inputs(&self) -> Inputs {
        let name = &self.graph.name;
        let mut inputs = Inputs::new(true, BTreeMap::from([(name.clone(), "folder".to_owned())]));
        let wanted = inputs.wanted(name, &self.graph);
        let mut all = Graph::clone(&self.graph);
        let more: Vec<ValueId> = wanted.iter().filter(|id| !all.inputs.contains(id)).copied().collect();
        all.outputs.clone_from(&more);
        let results = Session::load(&all.check().unwrap()).expect("tract takes it").run(&self.inputs).expect("it runs");
        let fed = self.graph.inputs.iter().zip(&self.inputs).filter(|(id, _)| wanted.contains(id));
        for (id, tensor) in more.iter().zip(&results).chain(fed) {
            inputs.observe(name, &self.graph.value(*id).name, &tensor.to_f32s()).expect("finite");
        }
        inputs
    }

    fn quantized(&self, target: &Target, scheme: Scheme, opset: u32) -> Quantized {
        self.quantized_by(&Settings::of(scheme, target.precision.as_ref().unwrap(), opset))
    }

    fn quantized_by(&self, settings: &Settings) -> Quantized {
        let range = |tensor: &str, _: DType| self.ranges.get(tensor).copied();
        quantize(&self.graph, settings, &range, &mut SharedWeights::default()).expect("quantized")
    }

    /// Signal to noise, in dB.
    fn sqnr(&self, graph: &Checked<Graph>) -> f64 {
        let square = |v: f32| f64::from(v).powi(2);
        let found = run(graph, &self.inputs);
        assert_eq!(found.len(), self.expected.len());
        let noise: f64 = found.iter().zip(&self.expected).map(|(a, b)| square(a - b)).sum();
        10.0 * (self.expected.iter().map(|v| square(*v)).sum::<f64>() / noise).log10()
    }
}

/// Every tensor between two nodes that can be quantized is, and the form is that which QNN takes.
fn check_form(graph: &Checked<Graph>) {
    let view = View::new(graph);
    let maker = |id: ValueId| {
        let node = graph.nodes.iter().find(|n| n.outputs.contains(&id));
        node.map_or("", |n| n.op.name)
    };
    let mut products = 0;
    for node in &graph.nodes {
        let quantized = ["Conv", "MatMul", "Add", "Mul", "Softmax", "InstanceNormalization", "LayerNormalization"];
        // Angles of the timestep stay in float.
        if !quantized.contains(&node.op.name) || node.module() == "time_proj" {
            continue;
        }
        for id in node.inputs.iter().flatten().chain(&node.outputs) {
            if node.inputs.contains(&Some(*id)) {
                assert_eq!(maker(*id), "DequantizeLinear", "`{}` reads `{}`", node.name, graph.value(*id).name);
            }
        }
        let readers: Vec<_> = graph.nodes.iter().filter(|n| n.inputs.contains(&Some(node.outputs[0]))).collect();
        assert!(readers.iter().all(|n| n.op.name == "QuantizeLinear") && readers.len() == 1, "{}", node.name);
        if node.op.name == "MatMul" {
            let (_, back) = view.maker(node.inputs[1].unwrap(), "DequantizeLinear").unwrap();
            let code = encoding(graph, back).unwrap();
            assert!(code.dtype == DType::Int16 && code.is_symmetric(), "{}", node.name);
            products += 1;
        }
    }
    assert!(products > 0);
}

#[test]
fn the_unet_is_quantized_everywhere_and_stays_what_it_was() {
    let target = Target::find("qnn").unwrap();
    let case = case("unet", &target);
    let quantized = |scheme| case.quantized(&target, scheme, 21);
    let w8a16 = quantized(Scheme::W8a16);
    check_form(&w8a16.graph);
    let sqnr = |scheme| case.sqnr(&quantized(scheme).graph);
    let (w8, w8a16, w8a8, w4a16) = (sqnr(Scheme::W8), case.sqnr(&w8a16.graph), sqnr(Scheme::W8a8), sqnr(Scheme::W4a16));
    let mut uniform = Settings::of(Scheme::W8, target.precision.as_ref().unwrap(), 21);
    uniform.rules.clear();
    let uniform = case.sqnr(&case.quantized_by(&uniform).graph);
    // Activations of 16 bits cost next to nothing; weights of 8 bits alone give what they give.
    assert!(uniform > 35.0 && w8a16 > uniform - 1.0, "{uniform} {w8a16}");
    // What is lost where all enters and leaves is lost to all.
    assert!(w8 > uniform + 5.0, "{w8} {uniform}");
    // With 8 bits and nothing clipped, random weights leave little more signal than noise.
    assert!(w8a8 > 0.0 && w8a8 < w8a16 - 10.0, "{w8a8}");
    assert!(w4a16 > 12.0 && w4a16 < w8a16, "{w4a16}");
    let half = case.sqnr(&half_weights(&case.graph).unwrap());
    assert!(half > 60.0, "{half}");
}

#[test]
fn outputs_gain_from_what_is_known_of_inputs() {
    for target in ["qnn", "onnxruntime"] {
        let target = Target::find(target).unwrap();
        let case = case("unet", &target);
        let inputs = case.layer_inputs();
        let settings = Settings::of(Scheme::W4a16, target.precision.as_ref().unwrap(), 21);
        let settings = Settings { activations: None, block: Some(32), ..settings };
        let none = |_: &str, _: DType| None;
        let with = |rounding, bias: bool| {
            let mut shared = SharedWeights::rounded(rounding, Some(&inputs), "folder");
            let mut graph = case.graph.clone();
            if bias {
                let (corrected, count) = correct_biases(&graph, &settings, &inputs, &mut shared).expect("finite");
                assert!(count > 50, "{count}");
                graph = corrected;
            }
            let quantized = quantize(&graph, &settings, &none, &mut shared).expect("quantized");
            case.sqnr(&quantized.graph)
        };
        let min_max = with(Rounding::MinMax, false);
        let nearest = with(Rounding::Nearest, false);
        let sequential = with(Rounding::SequentialMse, false);
        let gptq = with(Rounding::Gptq, false);
        let figures = format!("{}: {min_max} {nearest} {sequential} {gptq}", target.name);
        assert!(sequential > nearest && gptq > nearest + 3.0 && gptq > min_max + 3.0, "{figures}");
        assert!(with(Rounding::MinMax, true) > min_max, "{figures}");
    }
}

#[test]
fn pieces_give_what_the_graph_gives_also_where_one_is_quantized() {
    let target = Target::find("qnn").unwrap();
    let case = case("unet", &target);
    let rule = |of: &str, weights, activations| PrecisionRule { of: of.into(), weights, activations };
    let rules = vec![rule("attn2", Some(WeightType::Int8), Some(ActivationType::Uint8))];
    let all = Settings::of(Scheme::W8a8, target.precision.as_ref().unwrap(), 21);
    let settings = Settings { activations: None, weights: None, rules, ..all };
    // A piece may read what another one moved.
    let same = taps(&case.graph).same;
    let range = |tensor: &str, _: DType| case.ranges.get(same.get(tensor).map_or(tensor, String::as_str)).copied();
    let quantized =
        |graph: &Checked<Graph>| quantize(graph, &settings, &range, &mut SharedWeights::default()).expect("quantized");
    let (mut plain, mut changed) = (BTreeMap::new(), BTreeMap::new());
    for (id, tensor) in case.graph.inputs.iter().zip(&case.inputs) {
        plain.insert(case.graph.value(*id).name.clone(), tensor.clone());
    }
    changed.clone_from(&plain);
    let pieces = pieces(&case.graph).expect("sound");
    let mut forms = 0;
    for piece in &pieces {
        let other = settings.changes(piece).then(|| quantized(piece).graph);
        forms += usize::from(other.is_some());
        for (made, graph) in [(&mut plain, piece), (&mut changed, other.as_ref().unwrap_or(piece))] {
            let read: Vec<Tensor> = piece.inputs.iter().map(|id| made[&piece.value(*id).name].clone()).collect();
            let given = Session::load(graph).expect("tract takes it").run(&read).expect("it runs");
            made.extend(piece.outputs.iter().map(|id| piece.value(*id).name.clone()).zip(given));
        }
    }
    assert!(forms > 3 && forms + 10 < pieces.len(), "{forms} of {}", pieces.len());
    let output = &case.graph.value(case.graph.outputs[0]).name;
    let far = |found: &[f32], expected: &[f32]| {
        let square = |v: f32| f64::from(v).powi(2);
        let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
        (error / expected.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
    };
    let whole = run(&quantized(&case.graph).graph, &case.inputs);
    let cost = far(&whole, &case.expected);
    assert!(far(&plain[output].to_f32s(), &case.expected) < 2e-5);
    // Fewer operators are fused, so that a tie may fall otherwise.
    let off = far(&changed[output].to_f32s(), &whole);
    assert!(off < 0.1 * cost, "{off:e}, integers cost {cost:e}");
}

#[test]
fn smoothing_changes_nothing_but_what_integers_cost() {
    let target = Target::find("qnn").unwrap();
    let case = case("unet", &target);
    let settings = Settings::of(Scheme::W8a8, target.precision.as_ref().unwrap(), 21);
    let (smoothed, count) =
        smooth(std::slice::from_ref(&case.graph), "folder", &settings, &case.layer_inputs()).expect("sound");
    assert!(count > 3, "{count}");
    let found = run(&smoothed[0], &case.inputs);
    let error: f64 = found.iter().zip(&case.expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let power: f64 = case.expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    assert!(error > 0.0 && (error / power).sqrt() < 1e-5, "{}", (error / power).sqrt());
}

#[test]
fn other_networks_are_quantized_too() {
    let target = Target::find("qnn").unwrap();
    for component in ["text_encoder", "vae_decoder"] {
        let case = case(component, &target);
        let sqnr = |scheme| case.sqnr(&case.quantized(&target, scheme, 21).graph);
        let (weights, both) = (sqnr(Scheme::W8), sqnr(Scheme::W8a16));
        // The text encoder's mask of -10000 widens the range of its scores, which costs more than a step elsewhere.
        assert!(weights > 25.0 && both > weights - 2.0, "{component}: {weights} {both}");
    }
}

#[test]
fn old_opsets_have_16_bits_in_onnxruntimes_domain() {
    let target = Target::find("onnxruntime").unwrap();
    let case = case("unet", &target);
    let (old, new) = (case.quantized(&target, Scheme::W8a16, 17), case.quantized(&target, Scheme::W8a16, 21));
    for node in &old.graph.nodes {
        let wide = node.inputs.iter().flatten().chain(&node.outputs).any(|id| old.graph.ty(*id).dtype == DType::Uint16);
        assert_eq!(node.op.domain == MICROSOFT, wide && node.op.name.ends_with("eLinear"), "{}", node.name);
    }
    assert!(new.graph.nodes.iter().all(|n| n.op.domain.is_empty()));
    assert_eq!(run(&old.graph, &case.inputs), run(&new.graph, &case.inputs));
    edge_ir::onnx::encode_inline(&old.graph, 17).expect("opset 17");
    let settings = Settings::of(Scheme::W4a16, target.precision.as_ref().unwrap(), 17);
    let range = |tensor: &str, _: DType| case.ranges.get(tensor).copied();
    let error = quantize(&case.graph, &settings, &range, &mut SharedWeights::default()).expect_err("4 bits");
    assert_eq!(error.to_string(), "`unet`: opset 17 has no quantized tensors of int4, opset 21 has");
}

#[test]
fn a_tensor_of_which_nothing_is_known_is_named() {
    let target = Target::find("qnn").unwrap();
    let mut case = case("vae_decoder", &target);
    case.ranges.remove("latent_sample").expect("an input");
    let settings = Settings::of(Scheme::W8a16, target.precision.as_ref().unwrap(), 21);
    let range = |tensor: &str, _: DType| case.ranges.get(tensor).copied();
    let error = quantize(&case.graph, &settings, &range, &mut SharedWeights::default()).expect_err("no range");
    assert_eq!(error.to_string(), "`vae_decoder`: nothing says what values `latent_sample` takes");
}
