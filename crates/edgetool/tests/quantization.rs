//! Quantization of a folder: what it draws, what is recorded, that it is the same on any number of threads, and how it
//! refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::tensors::{self, relative_l2};
use common::{EDGETOOL, PROMPT, Ran, Sandbox, assert_same_trees, read_png};
use edge_ir::{DType, Node, ValueId};
use serde_json::Value;

/// The denoised latent of random networks with weights in integers, against float.
const W8: f64 = 0.1;
/// With weights in 16 bits of float.
const HALF: f64 = 2e-3;

/// The fixture with its steps folded for QNN.
fn converted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/edgefusion", "qnn", &["--fold", "per-step", "--steps", "2", "--target", "qnn"]);
    sandbox
}

fn denoised(sandbox: &Sandbox, model: &str) -> tensors::Tensor {
    sandbox.ok(&["run", model, "--prompt", PROMPT, "--quiet", "-o", "p.png", "--save-tensors", "p.safetensors"]);
    tensors::read(&sandbox.path("p.safetensors")).remove("denoised").expect("the latent")
}

/// Bytes of the UNets' weights.
fn size(sandbox: &Sandbox, folder: &str) -> u64 {
    fs::metadata(sandbox.path(format!("{folder}/unet/model.onnx_data"))).expect("weights").len()
}

#[test]
fn weights_alone_draw_nearly_the_same_from_smaller_files() {
    let sandbox = converted();
    let ran = sandbox.ok(&["quantize", "qnn", "--target", "qnn", "--precision", "w8", "-o", "w8"]);
    assert!(ran.stderr.starts_with("quantized `qnn` to `w8`: w8 for qnn/sm8650\n  unet_step_0 "), "{}", ran.stderr);
    fs::write(sandbox.path("qnn/report.json"), "of the float model").unwrap();
    sandbox.ok(&["quantize", "qnn", "--precision", "fp16", "--others", "fp16", "-o", "half"]);
    assert!(!sandbox.path("half/report.json").exists());
    sandbox.ok(&["quantize", "qnn", "--precision", "w8", "--link", "-o", "linked"]);
    assert_same_trees(&sandbox.tree("w8"), &sandbox.tree("linked"));
    let inode = |folder: &str| fs::metadata(sandbox.path(format!("{folder}/text_encoder/model.onnx"))).unwrap().ino();
    assert!(inode("linked") == inode("qnn") && inode("w8") != inode("qnn"));
    let expected = denoised(&sandbox, "qnn");
    for (model, bound) in [("w8", W8), ("half", HALF)] {
        let error = relative_l2(&denoised(&sandbox, model), &expected);
        assert!(error > 0.0 && error < bound, "{model}: {error:e}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(sandbox.path("w8/edgetool.json")).unwrap()).unwrap();
    assert_eq!(manifest["quantization"]["scheme"], "w8");
    assert_eq!(manifest["quantization"]["components"], serde_json::json!(["unet_step_0", "unet_step_1"]));
    assert!(manifest["quantization"].get("statistics").is_none());
    // The fixture's weights have 16 bits.
    assert!(size(&sandbox, "w8") < size(&sandbox, "qnn") * 55 / 100);
    for file in ["text_encoder/model.onnx_data", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"] {
        assert_eq!(
            fs::read(sandbox.path(format!("w8/{file}"))).ok(),
            fs::read(sandbox.path(format!("qnn/{file}"))).ok()
        );
    }
}

#[test]
fn blocks_of_weights_have_scales_of_their_own() {
    let sandbox = converted();
    let quantize = |options: &[&str], to: &str| {
        let fixed =
            ["quantize", "qnn", "--precision", "w4a16", "--calibration", CALIBRATION, "--number", "2", "-o", to];
        sandbox.ok(&[&fixed[..], options].concat());
        let graph = edge_ir::onnx::read(&sandbox.path(to).join("unet/step_0.onnx")).unwrap();
        let sizes: Vec<i64> =
            graph.nodes.iter().map(|node| node.int("block_size", 0)).filter(|size| *size > 0).collect();
        (relative_l2(&denoised(&sandbox, to), &denoised(&sandbox, "qnn")), sizes)
    };
    let (channels, none) = quantize(&[], "channels");
    let (blocks, sizes) = quantize(&["--block", "32"], "blocks");
    assert!(none.is_empty() && sizes.len() > 20 && sizes.iter().all(|size| *size == 32), "{sizes:?}");
    assert!(blocks < channels, "{blocks} {channels}");
    let useless = "error: `--block` has no use with w8a16\n\nhint: it gives weights of 4 bits scales of their own, as in \
                   w4a16\n";
    sandbox.refuses(&["quantize", "qnn", "--precision", "w8a16", "--block", "32", "-o", "x"], useless);
}

#[test]
fn any_number_of_threads_writes_the_same() {
    let sandbox = converted();
    let quantize = |options: &[&str], folder: &str, threads: &str| {
        let args = [&["quantize", "qnn", "--precision", "w8", "-o", folder], options].concat();
        let ran = Ran::new(sandbox.command(EDGETOOL, &args).env("RAYON_NUM_THREADS", threads).output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    };
    for threads in ["1", "3"] {
        quantize(&["--encodings", "1.0.0"], threads, threads);
        quantize(&["--calibration", CALIBRATION, "--number", "2"], &format!("seen-{threads}"), threads);
    }
    assert_same_trees(&sandbox.tree("1"), &sandbox.tree("3"));
    assert_same_trees(&sandbox.tree("seen-1"), &sandbox.tree("seen-3"));
    let encodings = fs::read(sandbox.path("1/encodings-1.0.0/unet_step_1.json")).unwrap();
    let encodings: Value = serde_json::from_slice(&encodings).unwrap();
    let parameters = encodings["param_encodings"].as_array().unwrap();
    let of = |name: &str| parameters.iter().find(|encoding| encoding["name"] == name).expect("an encoding");
    let inner = of("down_blocks_0_resnets_0_conv1_weight");
    assert_eq!((&inner["dtype"], &inner["bw"], &inner["enc_type"]), (&"INT".into(), &8.into(), &"PER_CHANNEL".into()));
    assert_eq!(of("conv_in_weight")["dtype"], "FLOAT");
}

/// Prompts that show what the layers read.
const CALIBRATION: &str = "recipes/shapes/prompts/calibration.txt";

#[test]
fn a_repaired_float_model_is_the_same_and_loses_less() {
    let sandbox = converted();
    sandbox.convert("tests/fixtures/edgefusion", "enn", &["--fold", "per-step", "--steps", "2", "--target", "enn"]);
    let seen = ["--calibration", CALIBRATION, "--number", "4"];
    let export = |model: &str, options: &[&str], folder: &str| {
        let args = [&["quantize", model, "--export-float", "-o", folder], options, &seen].concat();
        let ran = sandbox.ok(&args);
        assert!(ran.stderr.contains(&format!("repaired `{model}` to `{folder}`: ")), "{}", ran.stderr);
    };
    export("enn", &["--precision", "w8a8", "--repair", "smooth"], "smooth");
    let exact = relative_l2(&denoised(&sandbox, "smooth"), &denoised(&sandbox, "enn"));
    assert!(exact > 0.0 && exact < 1e-5, "{exact:e}");
    let manifest: Value = serde_json::from_slice(&fs::read(sandbox.path("smooth/edgetool.json")).unwrap()).unwrap();
    assert!(manifest.get("quantization").is_none());
    assert_eq!(manifest["repaired"]["repairs"], serde_json::json!(["smooth"]));
    assert_eq!(
        (&manifest["repaired"]["scheme"], &manifest["repaired"]["rounding"]),
        (&"w8a8".into(), &"min-max".into())
    );
    // What is asked of another quantizer, ours does.
    export("qnn", &["--precision", "w8", "--repair", "bias"], "bias");
    let expected = denoised(&sandbox, "qnn");
    let error = |model: &str| {
        sandbox.ok(&["quantize", model, "--precision", "w8", "--rounding", "min-max", "-o", "quantized", "--force"]);
        relative_l2(&denoised(&sandbox, "quantized"), &expected)
    };
    let (plain, repaired) = (error("qnn"), error("bias"));
    assert!(repaired < plain, "{repaired:e} {plain:e}");
}

#[test]
fn prompts_may_be_drawn_at_once_or_before() {
    let sandbox = converted();
    let prompts = CALIBRATION;
    let unets = ["--component", "unet_step_0", "--component", "unet_step_1"];
    let calibrate = ["calibrate", "qnn", "--prompts", prompts, "--number", "2", "-o", "statistics", "--quiet"];
    sandbox.ok(&[&calibrate[..], &unets].concat());
    let plain = ["--rounding", "nearest", "--repair", "none"];
    sandbox.ok(&["quantize", "qnn", "--statistics", "statistics", "-o", "before"]);
    let at_once = ["quantize", "qnn", "--calibration", prompts, "--number", "2", "-o", "at-once"];
    sandbox.ok(&[&at_once[..], &plain].concat());
    assert_same_trees(&sandbox.tree("before"), &sandbox.tree("at-once"));
    let error = relative_l2(&denoised(&sandbox, "before"), &denoised(&sandbox, "qnn"));
    assert!(error > 0.0 && error < 2.0 * W8, "{error:e}");
    sandbox.convert("tests/fixtures/edgefusion", "other", &["--fold", "per-step", "--steps", "3", "--target", "qnn"]);
    let stderr = sandbox.refusal(&["quantize", "other", "--statistics", "statistics", "-o", "out"]);
    assert!(stderr.contains("unet_step_0"), "{stderr}");
}

/// What is asked of the trained model (shares and decibels), against the float one.
const KEPT: &[(&[&str], f64, f64)] = &[
    (&["w8a16"], 0.005, 40.0),
    (&["w8a8"], 0.01, 28.0),
    (&["w4a16", "--calibration", CALIBRATION, "--number", "32"], 0.015, 34.0),
];

#[test]
fn the_trained_model_keeps_drawing_what_it_is_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.convert("recipes/shapes/model", "qnn", &["--fold", "per-step", "--steps", "2", "--target", "qnn"]);
    sandbox.ok(&["calibrate", "qnn", "--prompts", CALIBRATION, "--number", "32", "-o", "statistics", "--quiet"]);
    let accuracy = evaluate(&sandbox, "qnn");
    for (precision, lost, least) in KEPT {
        let args = ["quantize", "qnn", "--statistics", "statistics", "-o", "quantized", "--force", "--precision"];
        sandbox.ok(&[&args[..], precision].concat());
        let kept = evaluate(&sandbox, "quantized");
        assert!(kept >= accuracy - lost - 1e-9, "{precision:?}: {kept}, float {accuracy}");
        let psnr = (1..=DRAWN).map(|k| decibels(&sandbox, k)).sum::<f64>() / f64::from(DRAWN);
        assert!(psnr >= *least && psnr < 80.0, "{precision:?}: {psnr} dB");
    }
}

/// How many evaluation prompts are drawn.
const DRAWN: u32 = 100;

/// The prompt accuracy. The pictures go to `MODEL-pictures`.
fn evaluate(sandbox: &Sandbox, model: &str) -> f64 {
    let (limit, pictures) = (DRAWN.to_string(), format!("{model}-pictures"));
    let prompts = ["--prompts", "recipes/shapes/prompts/evaluation.txt", "--judge", "recipes/shapes/judge"];
    let rest = ["--limit", &limit, "-o", &pictures, "--force", "--format", "json", "--quiet"];
    let ran = sandbox.ok(&[&["evaluate", model], &prompts[..], &rest].concat());
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    found["prompt_accuracy"]["share"].as_f64().unwrap()
}

/// Peak signal to noise of a quantized picture against the float one.
fn decibels(sandbox: &Sandbox, number: u32) -> f64 {
    let read = |model: &str| read_png(&sandbox.path(format!("{model}-pictures/{number:04}.png"))).rgb;
    let (float, quantized) = (read("qnn"), read("quantized"));
    let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let sum: f64 = float.iter().zip(&quantized).map(square).sum();
    10.0 * (255.0_f64.powi(2) * f64::from(u32::try_from(float.len()).unwrap()) / sum.max(1.0)).log10()
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_left() {
    let sandbox = converted();
    sandbox.convert("tests/fixtures/edgefusion", "plain", &[]);
    sandbox.convert("tests/fixtures/edgefusion", "enn", &["--target", "enn"]);
    sandbox.convert("tests/fixtures/edgefusion", "unfolded", &["--target", "qnn/sm8550"]);
    sandbox.ok(&["quantize", "qnn", "--precision", "w8", "-o", "w8"]);
    let before = sandbox.names();
    let refuses = |args: &[&str], expect: &str| {
        let stderr = sandbox.refusal(&[&["quantize"], args, &["-o", "out"]].concat());
        assert!(stderr.contains(expect), "{args:?}: {stderr}");
        assert_eq!(sandbox.names(), before);
    };
    refuses(&["tests/fixtures/edgefusion"], "it is no converted folder");
    refuses(&["plain"], "`plain` was not converted for a target");
    refuses(&["qnn", "--target", "openvino"], "`qnn` was converted for `qnn`, not for `openvino`");
    refuses(&["enn"], "target `enn` takes no quantized graphs");
    refuses(&["w8"], "`w8` is quantized already, to w8");
    refuses(&["qnn", "--precision", "w8", "--component", "unet"], "`qnn` has no component `unet`");
    refuses(&["qnn", "--precision", "w3"], "expected one of w8a16, w8a8, w4a16, w8, fp16");
    refuses(&["qnn"], "w8a16 quantizes activations, and nothing says what values they take");
    refuses(&["qnn", "--statistics", "none"], "none");
    let unfolded = ["unfolded", "--calibration", "recipes/shapes/prompts/calibration.txt"];
    refuses(&unfolded, "`unfolded` has no sampler folded in: w8a16 needs to know the steps that activations are of");
    refuses(&["qnn", "--target", "qnn/sm1"], "target `qnn` has no device `sm1`");
    let unseen = "nothing says what the layers read: ranges alone do not tell how to round and repair";
    refuses(&["qnn", "--precision", "w8", "--rounding", "gptq"], unseen);
    refuses(&["qnn", "--statistics", "none", "--repair", "bias"], unseen);
    refuses(
        &["qnn", "--precision", "w8", "--rounding", "up"],
        "expected one of min-max, nearest, sequential-mse, gptq",
    );
    let seen = ["--calibration", CALIBRATION, "--number", "2", "--precision", "w8"];
    let with = |args: &[&str], expect: &str| refuses(&[args, &seen].concat(), expect);
    with(&["qnn", "--statistics", "none", "--repair", "smooth"], "changes what values tensors take");
    with(&["qnn", "--export-float", "--rounding", "gptq"], "`--export-float` leaves rounding to others");
    with(&["qnn", "--repair", "none", "--repair", "bias"], "`--repair none` stands beside other repairs");
    with(&["enn"], "target `enn` takes no quantized graphs");
}

/// The second operand of products of two activations.
fn second_operands(sandbox: &Sandbox, folder: &str) -> Vec<DType> {
    let graph = edge_ir::onnx::read(&sandbox.path(format!("{folder}/unet/step_1.onnx"))).expect("a graph");
    let maker = |id: ValueId| graph.nodes.iter().find(|node| node.outputs.contains(&id));
    let integers = |node: &Node| Some(graph.ty(maker(node.inputs[1]?)?.inputs[0]?).dtype);
    graph.nodes.iter().filter(|node| node.op.name == "MatMul").filter_map(integers).collect()
}

#[test]
fn an_older_device_gets_second_operands_of_8_bits_and_no_other_bundle() {
    let sandbox = converted();
    let calibration = ["--calibration", "recipes/shapes/prompts/calibration.txt", "--number", "2"];
    for (device, dtype) in [("sm8450", DType::Uint8), ("sm8750", DType::Int16)] {
        let target = format!("qnn/{device}");
        sandbox.ok(&[&["quantize", "qnn", "--target", &target, "-o", device], &calibration[..]].concat());
        let found = second_operands(&sandbox, device);
        assert!(!found.is_empty() && found.iter().all(|ty| *ty == dtype), "{device}: {found:?}");
        let manifest: Value =
            serde_json::from_slice(&fs::read(sandbox.path(format!("{device}/edgetool.json"))).unwrap()).unwrap();
        assert_eq!(manifest["quantization"]["device"], device);
    }
    let error = relative_l2(&denoised(&sandbox, "sm8450"), &denoised(&sandbox, "qnn"));
    assert!(error < 4.0 * W8, "{error:e}");
    let pack = |device: &str| {
        let args = ["package", "sm8750", "--prompt", PROMPT, "--quiet", "-o", "b.zip", "--target", device];
        Ran::new(sandbox.command(EDGETOOL, &args).output().unwrap()).stderr
    };
    let expected = "the model was quantized by the rules of `sm8750`, which are not those of `sm8450`";
    assert!(pack("qnn/sm8450").contains(expected), "{}", pack("qnn/sm8450"));
    // The next obstacle, for a device with the same rules.
    assert!(pack("qnn/sm8550").contains("`sm8750` was not verified"), "{}", pack("qnn/sm8550"));
}
