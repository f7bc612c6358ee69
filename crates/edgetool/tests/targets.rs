//! Conversion for a target: what it draws, what it says and records, how it is stopped in the middle, and how it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::tensors::{self, relative_l2};
use common::{PROMPT, Sandbox, assert_same_trees};
use serde_json::Value;

/// The picture of a run on lowered graphs against that on the importer's: sums in another order, through all networks.
const PICTURE: f64 = 1e-4;
/// With GELU approximated, in the UNet, off by 4.8e-4 at most at each value.
const APPROXIMATED: f64 = 1e-3;

/// A target that takes everything that the importer writes but `Erf`, with further lines for `graph`.
fn write_target(sandbox: &Sandbox, graph: &str) {
    let text = sandbox.ok(&["targets", "onnxruntime"]).stdout;
    let text = text.replace("- Erf\n", "").replace("name: onnxruntime", "name: mine");
    let lines = text.lines().filter(|l| !l.contains("gelu")).collect::<Vec<_>>().join("\n");
    fs::write(sandbox.path("mine.yaml"), lines.replace("graph:\n", &format!("graph:\n{graph}"))).unwrap();
}

fn picture(sandbox: &Sandbox, model: &str) -> tensors::Tensor {
    let args = ["run", model, "--prompt", PROMPT, "--quiet", "-o", "p.png", "--save-tensors", "p.safetensors"];
    sandbox.ok(&args);
    let mut saved = tensors::read(&sandbox.path("p.safetensors"));
    saved.remove("image").expect("the picture")
}

#[test]
fn every_target_draws_the_picture() {
    for fixture in ["edgefusion", "sd15", "sd2"] {
        let sandbox = Sandbox::new();
        let source = format!("tests/fixtures/{fixture}");
        let expected = picture(&sandbox, &source);
        let listed = sandbox.ok(&["targets"]).stdout;
        assert!(listed.lines().count() >= 5, "{listed}");
        for target in listed.lines().filter_map(|line| line.split_whitespace().next()) {
            let ran = sandbox.convert(&source, target, &["--target", target]);
            assert!(ran.stderr.contains(&format!("\n  target {target}: ")), "{}", ran.stderr);
            let approximated = ran.stderr.contains("approximated in unet: GELU by tanh, off by 4.8e-4 at most, in ");
            assert_eq!(approximated, matches!(target, "enn" | "qnn"), "{}", ran.stderr);
            let error = relative_l2(&picture(&sandbox, target), &expected);
            let tolerance = if approximated { APPROXIMATED } else { PICTURE };
            assert!(error <= tolerance, "{fixture} for {target}: relative error {error:e}");
        }
    }
}

#[test]
fn the_manifest_says_what_was_done_and_twice_is_the_same() {
    let sandbox = Sandbox::new();
    for folder in ["a", "b"] {
        sandbox.convert("tests/fixtures/edgefusion", folder, &["--target", "qnn"]);
    }
    assert_same_trees(&sandbox.tree("a"), &sandbox.tree("b"));
    let manifest: Value = serde_json::from_slice(&fs::read(sandbox.path("a/edgetool.json")).unwrap()).unwrap();
    let lowering = &manifest["lowering"];
    assert_eq!((&lowering["target"]["name"], &manifest["opset"]), (&Value::from("qnn"), &Value::from(21)));
    let passes = lowering["passes"].as_array().unwrap();
    let unet = |pass: &str| passes.iter().find(|p| p["component"] == "unet" && p["pass"] == pass).unwrap();
    assert_eq!(unet("gelu-as-tanh")["approximation"]["what"], "GELU by tanh");
    assert!(unet("linear-as-conv")["rewrites"].as_u64().unwrap() > 20);
    assert_eq!(manifest["components"][0]["inputs"][0]["dtype"], "int32");
}

#[test]
fn a_pass_is_stopped_and_shown() {
    let sandbox = Sandbox::new();
    let convert = |to: &str, stop: &str| {
        sandbox.convert(
            "tests/fixtures/sd15",
            to,
            &["--target", "qnn", "--stop-after", stop, "--dump-after", "gelu-as-tanh", "--force"],
        )
    };
    let whole = convert("whole", "gelu-as-tanh").stdout;
    assert!(whole.starts_with("graph text_encoder\n"), "{whole}");
    assert_eq!(whole.matches("\ngraph unet\n").count(), 1);
    let count = |text: &str| text.matches(" = Erf(").count();
    assert_eq!(count(&whole), 0);
    let none = count(&convert("none", "gelu-as-tanh:0").stdout);
    assert!(none > 3);
    assert_eq!(count(&convert("two", "gelu-as-tanh:2").stdout), none - 2);
    let manifest = fs::read_to_string(sandbox.path("two/edgetool.json")).unwrap();
    assert!(manifest.contains("\"stopped_after\": \"gelu-as-tanh:2\""), "{manifest}");
    let diff = sandbox.ok(&["inspect", "--diff", "none/unet/model.onnx", "two/unet/model.onnx"]).stdout;
    assert!(diff.starts_with("unet\n  parameters "), "{diff}");
    let lines: Vec<Vec<&str>> = diff.lines().map(|l| l.split_whitespace().collect()).collect();
    let (before, after) = (none.to_string(), (none - 2).to_string());
    assert!(lines.contains(&vec!["Erf", &before, "->", &after, "-2"]), "{diff}");
    assert!(lines.contains(&vec!["Tanh", "0", "->", "2", "+2"]), "{diff}");
    assert_eq!(
        sandbox.ok(&["inspect", "--diff", "two/unet/model.onnx", "two/unet/model.onnx"]).stdout,
        "unet: the same counts\n"
    );
}

#[test]
fn what_a_target_lacks_is_the_answer_no() {
    let sandbox = Sandbox::new();
    write_target(&sandbox, "");
    let before = sandbox.names();
    let ran = sandbox.run(&["convert", "tests/fixtures/edgefusion", "-o", "out", "--target", "mine.yaml"]);
    let block = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.gelu/Erf";
    let (first, rest) = ran.stderr.split_once(":\n").unwrap();
    assert!(
        first.starts_with(
            "error: cannot convert `tests/fixtures/edgefusion`\n  caused by: target `mine` does not take "
        )
    );
    assert!(first.ends_with(" of unet's nodes"), "{first}");
    assert!(rest.starts_with(&format!("  `{block}`: `Erf` is not among the target's operators\n")), "{rest}");
    let hint = "\n\nhint: in the target's `graph`, `gelu: native` or `gelu: tanh` or `gelu: sigmoid` takes `Erf` out\n";
    assert!(rest.ends_with(hint), "{rest}");
    assert_eq!((ran.code, ran.stdout.as_str(), sandbox.names()), (Some(1), "", before));
    write_target(&sandbox, "  gelu: sigmoid\n");
    sandbox.convert("tests/fixtures/edgefusion", "out", &["--target", "mine.yaml"]);
}

#[test]
fn bad_targets_are_refused() {
    let sandbox = Sandbox::new();
    let convert = ["convert", "tests/fixtures/sd15", "-o", "out", "--target"];
    let refuses = |target: &str, more: &[&str], expected: &str| {
        let expected = format!("error: cannot convert `tests/fixtures/sd15`\n  caused by: {expected}");
        sandbox.refuses(&[&convert, &[target][..], more].concat(), &expected);
    };
    refuses("hexagon", &[], "there is no target `hexagon`, built in are enn, onnxruntime, openvino, qnn, rknn\n");
    refuses("none.yaml", &[], "cannot read `none.yaml`\n  caused by: No such file or directory (os error 2)\n");
    let broken = |text: &str, expected: &str| {
        fs::write(sandbox.path("t.yaml"), text).unwrap();
        refuses("t.yaml", &[], expected);
    };
    let head = "schema: target/v1\nname: t\nabout: a\n";
    broken(
        &format!("{head}graph: {{opset: 17, max_rank: 4, gelu: swish}}\nops: [Conv]\n"),
        "`t.yaml` is not a target: graph.gelu: unknown variant `swish`, expected one of `erf`, `native`, `tanh`, `sigmoid` at line 4 column 39\n",
    );
    broken(
        &format!("{head}graph: {{opset: 17, max_rank: 4}}\nops: [Conv, Erff]\n"),
        "target `t`: field `ops` names `Erff`, which edgetool never writes\n\nhint: is it spelt as in ONNX? leave it out otherwise\n",
    );
    broken(
        &format!("{head}graph: {{opset: 12, max_rank: 4}}\nops: [Conv]\n"),
        "target `t`: field `graph.opset` is 12, expected one of [17, 18, 19, 20, 21]\n",
    );
    refuses(
        "rknn",
        &["--stop-after", "linear-as-conv"],
        "target `rknn` has no pass `linear-as-conv`\n\nhint: its passes are scale-in-weights, attention-per-head, index-as-int32, simplify-moves, fold-constants, common-subexpressions\n",
    );
}
