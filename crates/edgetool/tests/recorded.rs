//! Calibration from recorded inputs: what a network is fed from a file counts as what it would be fed in a run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::Sandbox;
use common::tensors::{self, Tensor, Tensors};

const PROMPTS: [&str; 3] = ["a photo of a cat", "a red ring", "the sea at night"];

/// A folder for a target, prompts, and the token ids of the prompts as they were recorded.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("prompts.txt"), PROMPTS.join("\n") + "\n").unwrap();
    sandbox.convert(
        "tests/fixtures/edgefusion",
        "model",
        &["--fold", "per-step", "--target", "qnn", "--dtype", "float32"],
    );
    let ids = PROMPTS.map(|prompt| {
        sandbox.ok(&["run", "model", "--prompt", prompt, "-o", "p.png", "--save-tensors", "t"]);
        tensors::read(&sandbox.path("t"))["ids"].clone()
    });
    let bytes = ids.iter().flat_map(|ids| ids.bytes.clone()).collect();
    let tensor = Tensor { dtype: ids[0].dtype, shape: vec![ids.len(), 77], bytes };
    let named = Tensors::from([("text_encoder/input_ids".to_owned(), tensor)]);
    tensors::write(&sandbox.path("ids.safetensors"), &named);
    sandbox
}

fn lines(sandbox: &Sandbox, options: &[&str]) -> String {
    let fixed = ["calibrate", "model", "--component", "text_encoder", "-o", "stats", "--prompts"];
    sandbox.ok(&[&fixed, options].concat());
    fs::read_to_string(sandbox.path("stats")).unwrap().split_once('\n').unwrap().1.to_owned()
}

#[test]
fn recorded_inputs_are_seen_as_those_of_prompts() {
    let sandbox = sandbox();
    for options in [&[][..], &["--number", "2"], &["--shard", "2/2"]] {
        let of = |file: &str| lines(&sandbox, &[&[file], options].concat());
        let expected = of("prompts.txt");
        assert!(expected.lines().count() > 20, "{options:?}");
        assert!(of("ids.safetensors") == expected, "{options:?}");
    }
    let quantize = |calibration: &str, to: &str| {
        let fixed = ["quantize", "model", "--precision", "w8a8", "--component", "text_encoder", "--calibration"];
        sandbox.ok(&[&fixed[..], &[calibration, "-o", to]].concat());
        ["model.onnx", "model.onnx_data"]
            .map(|file| fs::read(sandbox.path(to).join("text_encoder").join(file)).unwrap())
    };
    assert!(quantize("prompts.txt", "by-prompts") == quantize("ids.safetensors", "by-inputs"));
}

#[test]
fn what_is_no_input_is_refused() {
    let sandbox = sandbox();
    let seen = tensors::read(&sandbox.path("ids.safetensors"))["text_encoder/input_ids"].clone();
    let check = |name: &str, tensor: &Tensor, component: &str, expected: &str| {
        tensors::write(&sandbox.path("x.safetensors"), &Tensors::from([(name.to_owned(), tensor.clone())]));
        let fixed = ["calibrate", "model", "-o", "out", "--prompts", "x.safetensors", "--component"];
        sandbox.refuses(&[&fixed[..], &[component]].concat(), expected);
    };
    let head = "error: cannot calibrate `model`\n  caused by: ";
    let names = "`x.safetensors` has the tensor `ids`, expected names like `COMPONENT/INPUT`\n\nhint: the components are \
                 text_encoder, unet_step_0, unet_step_1, vae_decoder, taesd_decoder, vae_encoder\n";
    check("ids", &seen, "text_encoder", &format!("{head}{names}"));
    let missing = "`x.safetensors` has no inputs of `unet_step_0`\n\nhint: it has some of text_encoder; `--component` names \
                   what to look at\n";
    check("text_encoder/input_ids", &seen, "unet_step_0", &format!("{head}{missing}"));
    let other = "`x.safetensors` has `text_encoder/ids`, which is no input\n\nhint: the inputs of text_encoder are \
                 input_ids\n";
    check("text_encoder/ids", &seen, "text_encoder", &format!("{head}{other}"));
    let floats = Tensor::f32s(&[1, 77], &[0.0; 77]);
    let ty = "`text_encoder/input_ids` of `x.safetensors` is float32[1, 77], expected samples of int32[1, 77]\n\nhint: \
              samples lie one after the other along the first axis\n";
    check("text_encoder/input_ids", &floats, "text_encoder", &format!("{head}{ty}"));
    assert!(!sandbox.path("out").exists());
}
