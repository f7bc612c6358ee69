//! `compile`, with a stand-in for the vendor's compiler: what it writes, and what its answers come to. The compiler itself
//! runs in `tests/packaging`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Sandbox, compiler};
use serde_json::Value;

/// A key of minisign's, without a password, and its public half.
const PUBLIC: &str = "RWRmkBZiVRwP8PO1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrB";
const SECRET: &str = "untrusted comment: minisign encrypted secret key\n\
    RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZpAWYlUcD/CbD+/l4/p2vwfrhihRV80Bx9uvxoMxpAUsV0pSZoU3S/O1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

/// A bundle, `b.zip`, of the model in `model`.
fn packed(more: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let options = ["--target", "qnn", "--fold", "per-step", "--dtype", "float32"];
    sandbox.convert("tests/fixtures/edgefusion", "float", &options);
    let prompts = "recipes/shapes/prompts/calibration.txt";
    sandbox.ok(&["quantize", "float", "--calibration", prompts, "--number", "2", "-o", "model"]);
    // Ranges of two prompts are not good; what is packed does not matter here.
    sandbox.run(&["verify", "model", "--against", "float", "--limit", "2", "--quiet"]);
    sandbox.edit_json("model/report.json", |fields| drop(fields.insert("verdict".into(), "pass".into())));
    fs::write(sandbox.path("key"), SECRET).unwrap();
    sandbox.ok(&[&["package", "model", "--target", "qnn/sm8750", "-o", "b.zip", "--quiet"], more].concat());
    sandbox
}

fn manifest(sandbox: &Sandbox, bundle: &str) -> Value {
    serde_json::from_str(&sandbox.ok(&["bundle", "list", bundle, "--format", "json"]).stdout).unwrap()
}

#[test]
fn a_bundle_gets_what_was_compiled() {
    let sandbox = packed(&[]);
    compiler::write(&sandbox, "py", "model", &[], &[]);
    let ran = sandbox.ok(&["compile", "b.zip", "--python", "./py", "-o", "c.zip"]);
    assert!(ran.stderr.contains("  unet_step_1    compiled: 9 operators, 0 in floating point, "), "{}", ran.stderr);
    assert!(ran.stderr.ends_with(", as good as the golden run on the emulator\n"), "{}", ran.stderr);
    sandbox.ok(&["bundle", "check", "c.zip"]);
    let found = manifest(&sandbox, "c.zip");
    assert_eq!((&found["verified"], &found["compiled"]["sdk"]), (&"emulated".into(), &"v2.51.0".into()));
    assert_eq!(found["compiled"]["tools"][1], "onnxruntime-qnn 2.7.0");
    let graph = &found["compiled"]["graphs"][2];
    assert_eq!(
        (&graph["component"], &graph["file"], &graph["binary"]),
        (&"unet_step_1".into(), &"compiled/unet_step_1_ctx.onnx".into(), &"compiled/unet_step_1_ctx_qnn.bin".into())
    );
    assert_eq!(graph["emulated"][0]["sqnr_db"], 51.5);
    // The rest is as it was, and the bundle can be played and compiled again.
    sandbox.ok(&["bundle", "extract", "b.zip", "-o", "before"]);
    sandbox.ok(&["bundle", "extract", "c.zip", "-o", "after"]);
    let (before, mut after) = (sandbox.tree("before"), sandbox.tree("after"));
    let readme = String::from_utf8(after["README.md"].clone()).unwrap();
    assert!(readme.contains("\n## Compiled\n") && readme.contains("version v2.51.0 of the SDK"), "{readme}");
    after.retain(|name, _| !name.starts_with("compiled/"));
    for (name, content) in &before {
        assert!(["README.md", "manifest.json"].contains(&name.as_str()) || after.get(name) == Some(content), "{name}");
    }
    assert_eq!(before.len(), after.len());
    sandbox.ok(&["run", "c.zip", "--prompt", "a cat", "-o", "p.png", "--quiet"]);
    let first = fs::read(sandbox.path("c.zip")).unwrap();
    sandbox.ok(&["compile", "c.zip", "--python", "./py", "--quiet"]);
    assert!(first == fs::read(sandbox.path("c.zip")).unwrap(), "compiling again is another bundle");

    let arguments = ["package", "model", "--target", "qnn/sm8750", "-o", "d.zip", "--quiet"];
    sandbox.ok(&[&arguments[..], &["--compile", "--python", "./py"]].concat());
    assert!(first == fs::read(sandbox.path("d.zip")).unwrap(), "`package --compile` makes another bundle");
    let said = sandbox.refusal(&[&arguments[..], &["--python", "./py"]].concat());
    assert!(said.starts_with("error: options for compiling are given without `--compile`\n"), "{said}");
}

#[test]
fn steps_can_share_a_binary_that_is_not_emulated() {
    let sandbox = packed(&[]);
    compiler::write(&sandbox, "py", "model", &[], &[]);
    let ran = sandbox.ok(&["compile", "b.zip", "--python", "./py", "--share-weights", "--format", "json", "--quiet"]);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&object["schema"], &object["verified"]), (&"edgetool-compile/v1".into(), &"source".into()));
    let graphs = object["compiled"]["graphs"].as_array().unwrap();
    assert_eq!(graphs[1]["binary"], graphs[2]["binary"]);
    assert_eq!(graphs[1]["binary"], "compiled/unet_ctx_qnn.bin");
    assert_eq!(graphs[1]["emulated"], serde_json::json!([]));
    assert!(manifest(&sandbox, "b.zip")["files"].as_array().unwrap().len() > graphs.len());
}

#[test]
fn a_signature_is_not_good_for_what_is_compiled() {
    let sandbox = packed(&["--secret-key", "key"]);
    compiler::write(&sandbox, "py", "model", &[], &[]);
    let compile =
        |more: &[&'static str]| [&["compile", "b.zip", "--python", "./py", "--quiet", "-o", "c.zip"], more].concat();
    sandbox.refuses(
        &compile(&[]),
        "error: `b.zip` is signed, and its signature is not good for what is compiled\n\n\
         hint: sign anew with `--secret-key FILE`, or leave it unsigned with `--drop-signature`\n",
    );
    sandbox.ok(&compile(&["--drop-signature"]));
    assert_eq!(sandbox.run(&["bundle", "check", "c.zip", "--public-key", PUBLIC]).code, Some(1));
    sandbox.ok(&compile(&["--secret-key", "key"]));
    let said = sandbox.ok(&["bundle", "check", "c.zip", "--public-key", PUBLIC]).stdout;
    assert!(said.ends_with(", signed by this key\n"), "{said}");
}

/// The compiler's and the emulator's answers, the exit code, and what is said.
type Answer<'a> = (compiler::Says<'a>, compiler::Says<'a>, i32, &'a str);

#[test]
fn failures_name_nodes() {
    let sandbox = packed(&[]);
    let float = r#"{"component": "unet_step_0", "graphs": 1, "operators": 9, "floats": [{"node": "a.norm1_token_3", "kind": "LayerNorm", "results": ["x"]}]}"#;
    let refused = r#"{"component": "unet_step_0", "error": "graph nodes are assigned to the CPU"}"#;
    let log = "failed for node `a.norm1` of type `LayerNorm` with error code 3110\\nUnsupported nodes in QNN EP: { name: a.norm1, type: LayerNormalization }";
    let floats = format!("echo '{float}'");
    let refuses = format!("printf '{log}\\n' >&2; echo '{refused}'; exit 1");
    let parts = "echo '{\"component\": \"vae_decoder\", \"graphs\": 3}'";
    let far = r#"echo '{"component": "vae_decoder", "output": "image", "sqnr_db": 20.7, "least": 40.0}'; exit 1"#;
    let answers: &[Answer<'_>] = &[
        (
            &[("unet_step_0", &floats)],
            &[],
            1,
            "1 operators of `unet_step_0` compute in floating point, and the graph has them as integers:\n  `a.norm1_token_3` (LayerNorm)\n\nhint: `--allow-float N`",
        ),
        (
            &[("unet_step_0", &refuses)],
            &[],
            1,
            "the compiler does not take 1 of `unet_step_0`'s nodes:\n  `a.norm1` (LayerNormalization, error 3110)\n",
        ),
        (&[("vae_decoder", parts)], &[], 1, "`vae_decoder` was compiled in 3 parts, expected one"),
        (
            &[("vae_decoder", "kill -s SEGV $$")],
            &[],
            2,
            "the compiler broke off at `vae_decoder` with a memory fault of its own",
        ),
        (
            &[],
            &[("vae_decoder", far)],
            1,
            "`vae_decoder` is not right on the emulator: `image` is 20.7 dB from the golden output, at least 40.0\n\nhint: `--no-emulator`",
        ),
        (
            &[],
            &[("unet_step_1", "echo 'what happened' >&2; exit 1")],
            2,
            "the emulator broke off at `unet_step_1`:\n  what happened\n",
        ),
    ];
    let before = fs::read(sandbox.path("b.zip")).unwrap();
    for (compiles, emulates, code, expected) in answers {
        compiler::write(&sandbox, "py", "model", compiles, emulates);
        let ran = sandbox.run(&["compile", "b.zip", "--python", "./py", "--quiet"]);
        assert_eq!(ran.code, Some(*code), "{}", ran.stderr);
        let said = ran.stderr.strip_prefix("error: cannot compile `b.zip`\n  caused by: ");
        assert!(said.is_some_and(|said| said.starts_with(expected)), "{}", ran.stderr);
        assert!(before == fs::read(sandbox.path("b.zip")).unwrap(), "the bundle was changed");
    }
    compiler::write(&sandbox, "py", "model", &[("unet_step_0", &floats)], &[]);
    sandbox.ok(&["compile", "b.zip", "--python", "./py", "--quiet", "--allow-float", "1", "-o", "c.zip"]);
    assert_eq!(manifest(&sandbox, "c.zip")["compiled"]["graphs"][1]["float_operators"], 1);
}

#[test]
fn what_cannot_be_compiled_is_said() {
    let sandbox = packed(&[]);
    let cannot = "error: cannot compile `b.zip`\n  caused by: ";
    let said = sandbox.refusal(&["compile", "b.zip", "--python", "no/python"]);
    assert!(
        said.starts_with(&format!(
            "{cannot}no Python with the compiler's packages was found: `no/python` cannot be run"
        )),
        "{said}"
    );
    assert!(said.contains("\n\nhint: make one: `python3 -m venv .venv`"), "{said}");
    fs::write(sandbox.path("py"), "#!/bin/sh\necho '[[\"onnxruntime\", \"1.32.0\"], [\"onnxruntime-qnn\", null]]'\n")
        .unwrap();
    sandbox.command("chmod", &["+x", "py"]).status().unwrap();
    let said = sandbox.refusal(&["compile", "b.zip", "--python", "./py"]);
    assert!(said.contains(": `./py` lacks onnxruntime-qnn\n"), "{said}");
    let said = sandbox.refusal(&["compile", "b.zip", "--python", "./py", "--qnn-lib", "."]);
    assert!(said.contains("`--qnn-lib`: `./libQnnHtp.so` is not there"), "{said}");
    sandbox.convert("tests/fixtures/edgefusion", "onnx", &[]);
    sandbox.ok(&["verify", "onnx", "--against", "tests/fixtures/edgefusion", "--limit", "2", "--quiet"]);
    sandbox.ok(&["package", "onnx", "--target", "onnxruntime", "-o", "o.zip", "--quiet"]);
    let said = sandbox.refusal(&["compile", "o.zip"]);
    assert!(said.contains("edgetool knows no compiler for target `onnxruntime`\n"), "{said}");
}
