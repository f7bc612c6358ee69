//! Mixed precision: plans are followed to the letter, measured plans keep to their budget, and the scheduler's step is
//! fitted where it helps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::tensors::{self, relative_l2};
use common::{EDGETOOL, PROMPT, Ran, Sandbox};
use edge_ir::{DType, Graph};
use serde_json::Value;

const PROMPTS: &str = "recipes/shapes/prompts/calibration.txt";

/// The fixture with its steps folded for QNN, and statistics of two prompts.
fn converted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/edgefusion", "qnn", &["--fold", "per-step", "--steps", "2", "--target", "qnn"]);
    sandbox.ok(&["calibrate", "qnn", "--prompts", PROMPTS, "--number", "2", "-o", "statistics", "--quiet"]);
    sandbox
}

fn denoised(sandbox: &Sandbox, model: &str) -> tensors::Tensor {
    sandbox.ok(&["run", model, "--prompt", PROMPT, "--quiet", "-o", "p.png", "--save-tensors", "p.safetensors"]);
    tensors::read(&sandbox.path("p.safetensors")).remove("denoised").expect("the latent")
}

fn manifest(sandbox: &Sandbox, model: &str) -> Value {
    serde_json::from_slice(&fs::read(sandbox.path(format!("{model}/edgetool.json"))).unwrap()).unwrap()
}

/// For each layer with weights, the types of what it reads: activation and weight, before any `DequantizeLinear`.
fn layers(graph: &Graph) -> BTreeMap<String, [DType; 2]> {
    let stored = |id: Option<edge_ir::ValueId>| {
        let mut id = id.expect("an operand");
        while let Some(node) = graph.nodes.iter().find(|node| node.outputs.contains(&id)) {
            if !["DequantizeLinear", "Cast"].contains(&node.op.name) {
                break;
            }
            id = node.inputs[0].expect("an input");
        }
        graph.ty(id).dtype
    };
    let convolutions = graph.nodes.iter().filter(|node| node.op.name == "Conv");
    convolutions.map(|node| (node.module().to_owned(), [0, 1].map(|index| stored(node.inputs[index])))).collect()
}

const PLAN: &str = "schema: precision-plan/v1
scheme: w8a8
rules:
  - {of: Conv, weights: int4}
  - {of: attn2, weights: int16, activations: uint16}
  - {of: conv_act, activations: float}
  - {of: conv_out, weights: float16}
  - {of: up_blocks.0.resnets.0.conv1, weights: float, activations: float}
";

#[test]
fn a_plan_is_followed_layer_by_layer() {
    use DType::{Float16, Float32, Int4, Int8, Int16, Uint8, Uint16};
    let sandbox = converted();
    fs::write(sandbox.path("plan.yaml"), PLAN).unwrap();
    let args =
        ["quantize", "qnn", "--plan", "plan.yaml", "--statistics", "statistics", "--ranges", "min-max", "-o", "mixed"];
    sandbox.ok(&args);
    let rules = manifest(&sandbox, "mixed")["quantization"]["rules"].clone();
    assert_eq!(rules[1], serde_json::json!({"of": "attn2", "weights": "int16", "activations": "uint16"}));
    let graph = edge_ir::onnx::read(&sandbox.path("mixed/unet/step_1.onnx")).unwrap();
    let found = layers(&graph);
    let of = |name: &str| found[name];
    assert_eq!(of("down_blocks.0.resnets.0.conv1"), [Uint8, Int4]);
    assert_eq!(of("conv_out"), [Float32, Float16]);
    assert_eq!(of("up_blocks.0.resnets.0.conv1"), [Uint8, Float32]);
    let (name, query) = found.iter().find(|(name, _)| name.ends_with("attn2.to_q")).expect("an attention");
    assert_eq!(*query, [Uint16, Int16], "{name}");
    assert!(!found.values().any(|types| types[1] == Int8), "every convolution is named");
    // What computes in float is not cut to integers between: the last layer's input is what the one before it gave.
    let node = graph.nodes.iter().find(|node| node.name == "conv_out").expect("the last layer");
    let maker = graph.nodes.iter().find(|n| n.outputs.contains(&node.inputs[0].unwrap())).expect("its input");
    assert_eq!(maker.module(), "conv_act");
    // It draws, and differs; that it computes what onnxruntime computes is for `tests/quantize/agree.py` to say.
    let error = relative_l2(&denoised(&sandbox, "mixed"), &denoised(&sandbox, "qnn"));
    assert!(error > 0.0 && error.is_finite(), "{error:e}");
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let sandbox = converted();
    let refuses = |text: &str, args: &[&str], expect: &[&str]| {
        fs::write(sandbox.path("plan.yaml"), format!("schema: precision-plan/v1\n{text}\n")).unwrap();
        let names = sandbox.names();
        let all =
            [&["quantize", "qnn", "--statistics", "statistics", "-o", "out", "--plan", "plan.yaml"], args].concat();
        let stderr = sandbox.refusal(&all);
        for words in expect {
            assert!(stderr.contains(words), "{text}: {stderr}");
        }
        assert_eq!(sandbox.names(), names);
    };
    refuses(
        "scheme: w8a8\nrules: [{of: conv_outt, weights: int8}]",
        &[],
        &[
            "`conv_outt`, which a rule names, is no layer that is quantized",
            "near names: `conv_out`, `conv_act`, `conv_in`",
        ],
    );
    refuses(
        "scheme: w8a8\nrules: [{of: Softmax, weights: int8}]",
        &[],
        &["the rule of `Softmax` gives weights to layers that have none"],
    );
    refuses(
        "scheme: w8a8\nrules: [{of: Add, activations: int16}]",
        &[],
        &[
            "target `qnn/sm8650` has no activations of int16, which the rule of `Add` asks for: it has uint8, uint16, float",
        ],
    );
    refuses(
        "scheme: w8a16\nrules: [{of: conv_in, weights: int16}]",
        &["--target", "qnn/sm8450"],
        &[
            "target `qnn/sm8450` has no weights of int16, which the rule of `conv_in` asks for: it has int4, int8, float16, \
             float",
        ],
    );
    refuses("scheme: w8a8\nrules: [{off: Add}]", &[], &["`plan.yaml` is not a precision plan", "unknown field `off`"]);
    refuses("scheme: w8a9", &[], &["unknown variant `w8a9`"]);
    refuses("scheme: w8a8", &["--precision", "w8a8"], &["cannot be used with"]);
    refuses("scheme: w8a16", &["--fine", "Add"], &["`--fine` has no use with w8a16"]);
    refuses("scheme: w8a16", &["--wide", "attn2"], &["`--wide` has no use with w8a16"]);
}

#[test]
fn a_measured_plan_keeps_to_its_budget_on_any_number_of_threads() {
    let sandbox = converted();
    let measure = |threads: &str, output: &str, rest: &[&str]| {
        let args =
            ["sensitivity", "qnn", "-o", output, "--calibration", PROMPTS, "--number", "2", "--threads", threads];
        let all = [&args[..], &["--seen", "2", "--statistics", "statistics", "--only", "down_blocks.0"], rest].concat();
        let ran = Ran::new(sandbox.command(EDGETOOL, &all).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        (fs::read_to_string(sandbox.path(output)).unwrap(), ran.stderr)
    };
    let (plan, said) = measure("1", "a.yaml", &["--precision", "w4a16", "--budget", "1.3x"]);
    let (again, _) = measure("3", "b.yaml", &["--precision", "w4a16", "--budget", "1.3x"]);
    assert_eq!(plan, again);
    assert!(said.contains("wrote `a.yaml`") && said.contains("most sensitive:"), "{said}");
    // Some layers are wider and some are not, and a comment says what was measured.
    assert!(plan.contains("weights: int8}  # ") && plan.contains("weights: int4}  # "), "{plan}");
    assert!(plan.contains(" dB, int8 ") && plan.contains("# text: int4 "), "{plan}");
    let size = |line: &str| -> f64 {
        let words = plan.lines().find(|l| l.starts_with(line)).expect("a line").rsplit(", ").next().unwrap().to_owned();
        words.trim_end_matches(" KiB.").parse().unwrap()
    };
    let ratio = size("# This plan:") / size("# The scheme alone:");
    assert!(ratio > 1.1 && ratio <= 1.3, "{ratio}");
    // What a plan gains is seen on a trained model, below: here one block is a small part of the error.
    sandbox.ok(&["quantize", "qnn", "--statistics", "statistics", "--plan", "a.yaml", "-o", "mixed"]);
    let ask = |rest: &[&str]| {
        let args = ["sensitivity", "qnn", "-o", "c.yaml", "--calibration", PROMPTS, "--number", "2", "--quiet"];
        sandbox.refusal(&[&args[..], &["--seen", "2", "--statistics", "statistics"], rest].concat())
    };
    assert!(ask(&["--precision", "w4a16", "--budget", "1KiB"]).contains("a budget of 1 KiB is too small"));
    assert!(ask(&["--precision", "w8a8", "--budget", "1us"]).contains("a budget of 0.001 ms is too small"));
    assert!(ask(&["--precision", "w8a8", "--by", "time", "--budget", "1KiB"]).contains("has a budget of bytes"));
    assert!(ask(&["--precision", "fp16"]).contains("fp16 has no integers to choose for"));
    assert!(ask(&["--precision", "w4a16", "--budget", "much"]).contains("expected a size"));
    assert!(!sandbox.path("c.yaml").exists());
}

#[test]
fn a_plan_may_be_bounded_by_estimated_time() {
    let sandbox = converted();
    let args = ["sensitivity", "qnn", "-o", "plan.yaml", "--calibration", PROMPTS, "--number", "2", "--seen", "2"];
    let of = ["--statistics", "statistics", "--precision", "w8a8", "--only", "down_blocks.0", "--by", "time"];
    let times = |budget: &str| -> [f64; 2] {
        sandbox.ok(&[&args[..], &of, &["--budget", budget]].concat());
        let plan = fs::read_to_string(sandbox.path("plan.yaml")).unwrap();
        ["# The scheme alone:", "# This plan:"].map(|start| {
            let line = plan.lines().find(|line| line.starts_with(start)).expect("a line");
            let (_, time) = line.rsplit_once("estimated to take ").expect("an estimate");
            time.trim_end_matches(" ms.").parse().unwrap()
        })
    };
    let [scheme, plan] = times("1.1x");
    assert!(scheme > 0.0 && plan > scheme && plan <= 1.1 * scheme, "{scheme}, {plan}");
    // All of the part in 16 bits is possible, and no more is taken.
    let [again, all] = times("100ms");
    assert!(again.to_bits() == scheme.to_bits() && all > plan && all < 3.0 * scheme, "{scheme}, {plan}, {all}");
}

#[test]
fn the_plans_of_the_trained_model_draw_nearer_to_float_than_their_schemes() {
    let sandbox = Sandbox::new();
    sandbox.convert("recipes/shapes/model", "qnn", &["--fold", "per-step", "--steps", "2", "--target", "qnn"]);
    sandbox.ok(&["calibrate", "qnn", "--prompts", PROMPTS, "--number", "8", "-o", "statistics", "--quiet"]);
    let drawn = |model: &str| {
        let args = ["run", model, "--prompt", "a red heart on a white background", "--quiet", "-o", "p.png"];
        sandbox.ok(&[&args[..], &["--save-tensors", "p.safetensors"]].concat());
        tensors::read(&sandbox.path("p.safetensors")).remove("denoised").expect("the latent")
    };
    let float = drawn("qnn");
    for scheme in ["w8a16", "w4a16", "w8a8"] {
        let plan = format!("recipes/shapes/plans/{scheme}.yaml");
        let error = |asked: [&str; 2]| {
            let args = ["quantize", "qnn", "--statistics", "statistics", "--ranges", "min-max", "-o", "q", "--force"];
            sandbox.ok(&[&args[..], &asked].concat());
            relative_l2(&drawn("q"), &float)
        };
        let (planned, plain) = (error(["--plan", &plan]), error(["--precision", scheme]));
        assert!(planned > 0.0 && planned < 0.8 * plain, "{scheme}: {planned:e}, plain {plain:e}");
    }
}

#[test]
fn the_schedulers_step_is_fitted_and_recorded() {
    let sandbox = converted();
    let quantize = |output: &str, rest: &[&str]| {
        let args = ["quantize", "qnn", "--precision", "w4a16", "--statistics", "statistics", "-o", output];
        sandbox.ok(&[&args[..], rest].concat())
    };
    quantize("plain", &[]);
    let ran = quantize("fitted", &["--fit-scheduler", PROMPTS, "--number", "8"]);
    assert!(ran.stderr.starts_with("fitted the scheduler's steps by "), "{}", ran.stderr);
    quantize("again", &["--fit-scheduler", PROMPTS, "--number", "8"]);
    common::assert_same_trees(&sandbox.tree("fitted"), &sandbox.tree("again"));
    let [before, after] = ["plain", "fitted"].map(|model| manifest(&sandbox, model));
    let factors = after["quantization"]["scheduler"].as_array().unwrap();
    assert_eq!(factors.len(), 2);
    for (step, factors) in factors.iter().enumerate() {
        for name in ["sample", "output"] {
            let number = |value: &Value| value[name].as_f64().unwrap();
            let [old, new] = [&before, &after].map(|manifest| number(&manifest["fold"]["steps"][step]));
            assert!((new - old * number(factors)).abs() <= 1e-12 * old.abs(), "{name}: {old} {new}");
            assert!(number(factors) > 0.5 && number(factors) < 1.5, "{factors}");
        }
        // What the manifest says is what the graph computes: `factor * (whole - share * part)`.
        let graph = edge_ir::onnx::read(&sandbox.path(format!("fitted/unet/step_{step}.onnx"))).unwrap();
        let number = |start: &str, end: &str| {
            let (_, _, data) = graph
                .initializers()
                .find(|(_, v, _)| v.name == format!("scheduler_{start}_factor{end}"))
                .expect("a constant");
            data.clone()
        };
        let real = |start: &str| {
            let integer = f64::from(u16::from_le_bytes(number(start, "_q").bytes()[..2].try_into().unwrap()));
            let zero = f64::from(u16::from_le_bytes(number(start, "_zero_point").bytes()[..2].try_into().unwrap()));
            (integer - zero) * f64::from(number(start, "_scale").to_f32s()[0])
        };
        let steps = &after["fold"]["steps"][step];
        let [sample, output] = ["sample", "output"].map(|name| steps[name].as_f64().unwrap().abs());
        let (whole, part) = if sample >= output { (sample, output) } else { (output, sample) };
        let [factor, share] = [real("next"), real("next_part")];
        assert!((factor - whole).abs() < 1e-5 * whole, "{factor}, {whole}");
        assert!((factor * share - part).abs() < 1e-4 * part, "{share}, {part}");
    }
    let stderr = sandbox.refusal(&[
        "quantize",
        "qnn",
        "--component",
        "unet_step_0",
        "--statistics",
        "statistics",
        "--fit-scheduler",
        PROMPTS,
        "-o",
        "out",
    ]);
    assert!(stderr.contains("has no UNet for each step"), "{stderr}");
}
