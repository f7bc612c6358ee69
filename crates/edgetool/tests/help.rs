//! The help's examples work as they stand, and stdout holds data only.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use common::compiler;
use common::tensors::{self, Tensors};
use common::{EDGETOOL, PROMPT, Ran, Sandbox, fixtures};
use serde_json::Value;

/// In the order in which their examples build on each other.
const COMMANDS: &[&str] = &[
    "convert",
    "run",
    "inspect",
    "eval",
    "evaluate",
    "calibrate",
    "quantize",
    "sensitivity",
    "targets",
    "verify",
    "package",
    "bundle",
    "compile",
    "build",
];

/// The two examples that end a subcommand's help, as a terminal of 80 columns shows them.
#[track_caller]
fn examples(sandbox: &Sandbox, command: &str) -> [String; 2] {
    let help = Ran::new(sandbox.command(EDGETOOL, &[command, "--help"]).env("COLUMNS", "80").output().unwrap());
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let (_, end) = help.stdout.split_once("\nExamples:\n").expect("the help has examples");
    let whole = end.trim_end().replace("\\\n", "");
    let lines: Vec<_> = whole.lines().collect();
    let [first, second] = lines[..] else { panic!("expected two examples, got {lines:#?}") };
    [first, second].map(|line| {
        assert!(line.starts_with(&format!("  edgetool {command} ")), "`{line}`");
        line.trim_start().to_owned()
    })
}

#[test]
fn examples_work_as_they_stand() {
    let sandbox = Sandbox::new();
    let golden = tensors::read(&fixtures().join("edgefusion/golden.safetensors"));
    let ids = Tensors::from([("input_ids".to_owned(), golden["pipe.ids"].clone())]);
    tensors::write(&sandbox.path("ids.safetensors"), &ids);
    let folder = Path::new(EDGETOOL).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}:{}", sandbox.path("").display(), std::env::var("PATH").unwrap_or_default());
    for command in COMMANDS {
        if *command == "compile" {
            for python in [".venv/bin/python", "python3"] {
                compiler::write(&sandbox, python, "edgefusion-qnn", &[], &[]);
            }
        }
        for line in examples(&sandbox, command) {
            let output = sandbox
                .command("sh", &["-c", &line])
                .env("PATH", &path)
                .env("XDG_CACHE_HOME", sandbox.path("user"))
                .output()
                .unwrap();
            let ran = Ran::new(output);
            assert_eq!(ran.code, Some(0), "{line}\n{}", ran.stderr);
        }
    }
    for name in [
        "edgefusion-onnx/edgetool.json",
        "edgefusion-qnn/unet/step_1.onnx",
        "edgefusion-w8/unet/step_1.onnx",
        "edgefusion-w8a16/unet/step_1.onnx",
        "cat.png",
        "hidden.safetensors",
        "pictures/0020.png",
        "edgefusion-onnx/report.json",
        "report/report.html",
        "bundle/manifest.json",
        "shapes.calibration",
        "part-1.calibration",
        "compiled.zip",
        "shapes-sm8750.zip",
    ] {
        assert!(sandbox.path(name).exists(), "the examples did not make {name}: {:?}", sandbox.names());
    }
}

#[test]
fn every_subcommand_is_tested_here() {
    let help = Sandbox::new().ok(&["--help"]).stdout;
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let listed: Vec<_> = list.lines().map_while(|l| l.strip_prefix("  ")?.split_whitespace().next()).collect();
    let listed: std::collections::BTreeSet<_> = listed.into_iter().filter(|name| *name != "help").collect();
    assert_eq!(listed, COMMANDS.iter().copied().collect());
}

#[test]
fn no_arguments_show_the_help() {
    let ran = Sandbox::new().run(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("Usage: edgetool"), "{}", ran.stderr);
}

#[test]
fn stdout_is_data_only() {
    let sandbox = Sandbox::new();
    let ran = sandbox.convert("tests/fixtures/sd15", "onnx", &[]);
    assert_eq!(ran.stdout, "");
    let expected = "converted `tests/fixtures/sd15` to `onnx`: 64x64 pixels, opset 17, weights copy\n  text_encoder ";
    assert!(ran.stderr.starts_with(expected), "{}", ran.stderr);
    let ran = sandbox.ok(&["run", "onnx", "--prompt", PROMPT, "-o", "p.png"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "drew `p.png`, 64x64 pixels\n"));
    let ran = sandbox.ok(&["run", "onnx", "--prompt", PROMPT, "-o", "p.png", "--quiet"]);
    assert_eq!((ran.stdout, ran.stderr), (String::new(), String::new()));
    for path in ["tests/fixtures/sd15", "onnx", "onnx/unet/model.onnx"] {
        let ran = sandbox.ok(&["inspect", path]);
        assert!(ran.stdout.contains("\n  parameters   ") && ran.stderr.is_empty(), "{ran:?}");
        let ran = sandbox.ok(&["inspect", path, "--nodes"]);
        assert!(ran.stdout.starts_with("graph ") && ran.stderr.is_empty(), "{}", ran.stderr);
    }
}

#[test]
fn json_is_one_object_with_a_schema() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/edgefusion", "onnx", &[]);
    let object = |args: &[&str]| {
        let ran = sandbox.ok(&[args, &["--format", "json"]].concat());
        assert_eq!(ran.stderr, "");
        serde_json::from_str::<Value>(&ran.stdout).expect("one JSON value")
    };
    let from_checkpoint = object(&["inspect", "tests/fixtures/edgefusion"]);
    assert_eq!(from_checkpoint["schema"], "edgetool-inspect/v1");
    let names: Vec<_> = from_checkpoint["components"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae_decoder", "vae_encoder", "taesd_decoder"]);
    assert_eq!(object(&["inspect", "onnx"]), from_checkpoint);
    let unet = object(&["inspect", "onnx/unet/model.onnx"]);
    assert_eq!(unet["components"][0], from_checkpoint["components"][1]);
    let inputs: Vec<_> = unet["components"][0]["inputs"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(inputs, ["sample", "timestep", "timestep_cond", "encoder_hidden_states"]);

    let golden = tensors::read(&fixtures().join("edgefusion/golden.safetensors"));
    let ids = Tensors::from([("input_ids".to_owned(), golden["pipe.ids"].clone())]);
    tensors::write(&sandbox.path("ids.safetensors"), &ids);
    let model = "onnx/text_encoder/model.onnx";
    let times = object(&["eval", model, "-i", "ids.safetensors", "-o", "h.safetensors", "--repeat", "3"]);
    assert_eq!((&times["schema"], times["seconds"].as_array().unwrap().len()), (&"edgetool-eval/v1".into(), 3));
}

#[test]
fn a_reader_may_close_stdout() {
    let sandbox = Sandbox::new();
    for bytes in [0, 10] {
        let mut command = sandbox.command(EDGETOOL, &["inspect", "tests/fixtures/sd15", "--nodes"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut vec![0; bytes]).unwrap();
        drop(stdout);
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    }
}
