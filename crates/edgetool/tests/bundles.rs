//! Bundles: what goes into them, that they are the same every time, what is refused, and what a kill leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{EDGETOOL, PROMPT, Ran, Sandbox, assert_same_trees};
use serde_json::Value;

/// A pair of keys of minisign's, without a password.
const PUBLIC: &str = "RWRmkBZiVRwP8PO1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrB";
const SECRET: &str = "untrusted comment: minisign encrypted secret key\n\
    RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZpAWYlUcD/CbD+/l4/p2vwfrhihRV80Bx9uvxoMxpAUsV0pSZoU3S/O1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

/// A converted and verified model, and where it was verified against.
fn verified(folder: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let options = ["--target", "qnn", "--fold", "per-step", "--dtype", "float32"];
    sandbox.convert("tests/fixtures/edgefusion", folder, &options);
    let args = ["verify", folder, "--against", "tests/fixtures/edgefusion", "--limit", "2", "--quiet"];
    sandbox.ok(&args);
    sandbox
}

fn package<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["package", model, "--target", "qnn/sm8750", "-o", "b.zip", "--quiet"], more].concat()
}

#[test]
fn a_bundle_is_the_same_wherever_and_on_any_number_of_threads() {
    let sandbox = verified("model");
    sandbox.ok(&package("model", &["--threads", "1"]));
    let one = fs::read(sandbox.path("b.zip")).unwrap();
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    fs::rename(sandbox.path("model"), sandbox.path("elsewhere/m")).unwrap();
    sandbox.ok(&package("elsewhere/m", &["--threads", "2"]));
    assert!(one == fs::read(sandbox.path("b.zip")).unwrap(), "the bundles differ");
}

#[test]
fn a_bundle_holds_what_was_verified_and_draws_the_same() {
    let sandbox = verified("model");
    sandbox.ok(&package("model", &["--prompt", PROMPT, "--seed", "3"]));
    let said = sandbox.ok(&["bundle", "check", "b.zip"]).stdout;
    assert!(said.starts_with("`b.zip` is whole: ") && !said.contains("sign"), "{said}");
    sandbox.ok(&["bundle", "extract", "b.zip", "-o", "x"]);
    let mut model = sandbox.tree("model");
    let report = model.remove("report.json").unwrap();
    model.remove("report.html");
    assert_same_trees(&sandbox.tree("x/model"), &model);
    assert_eq!(fs::read(sandbox.path("x/report.json")).unwrap(), report);
    assert!(fs::read_to_string(sandbox.path("x/README.md")).unwrap().contains("Snapdragon 8 Elite (SM8750)"));
    let mode = |file: &str| sandbox.path(file).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("x/qnn/convert.sh"), mode("x/README.md")), (0o755, 0o644));

    // The folder, the bundle, and the golden run are one picture.
    let scratch = sandbox.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let draw = |model: &str| {
        let mut command = sandbox.command(EDGETOOL, &["run", model, "--prompt", PROMPT, "--seed", "3", "-o", "p.png"]);
        assert!(command.env("TMPDIR", &scratch).output().unwrap().status.success());
        common::read_png(&sandbox.path("p.png")).rgb
    };
    let drawn = draw("b.zip");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "the temporary folder is left");
    assert!(drawn == draw("model") && drawn == common::read_png(&sandbox.path("x/golden/picture.png")).rgb);
    let counts = |model: &str| sandbox.ok(&["inspect", model]).stdout;
    assert_eq!(counts("b.zip"), counts("model"));

    let manifest: Value = serde_json::from_slice(&fs::read(sandbox.path("x/manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["target"]["device"], &manifest["verified"]), (&"sm8750".into(), &"source".into()));
    let runs = manifest["golden"]["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|r| r["component"].as_str().unwrap()).collect();
    assert_eq!(names, ["text_encoder", "unet_step_0", "unet_step_1", "vae_decoder"]);
    let file = |side: &str, run: usize, port: usize| runs[run][side][port]["file"].as_str().unwrap().to_owned();
    let read = |name: String| fs::read(sandbox.path(format!("x/{name}"))).unwrap();
    assert_eq!(read(file("outputs", 1, 0)), read(file("inputs", 2, 0)), "a step begins where the last one ended");
    assert_eq!(manifest["sampler"]["noise"]["draws"], serde_json::json!(["latent", "noise_0"]));
    let listed = sandbox.ok(&["bundle", "list", "b.zip", "--format", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), manifest);
}

#[test]
fn what_is_not_verified_is_refused() {
    let sandbox = verified("model");
    let cannot = "error: cannot package `model` for `qnn/sm8750`\n  caused by: ";
    let again = "\n\nhint: verify the model as it is now, and package it again\n";
    let no = |reason: &str| {
        let before = sandbox.names();
        let ran = sandbox.run(&package("model", &[]));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
        assert_eq!(sandbox.names(), before);
        let said = ran.stderr.strip_prefix(cannot).unwrap_or_else(|| panic!("{}", ran.stderr)).to_owned();
        assert!(said.starts_with(reason), "{said}");
        said
    };
    let file = sandbox.path("model/unet/model.onnx_data");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let said = no("`unet/model.onnx_data` was changed after it was verified: the SHA-256 is ");
    assert!(said.ends_with(again), "{said}");
    fs::remove_file(&file).unwrap();
    no("`unet/model.onnx_data` was verified and is not there");
    fs::write(&file, &whole).unwrap();
    fs::write(sandbox.path("model/unet/more.onnx"), "x").unwrap();
    no("`unet/more.onnx` was not verified: the report does not list it");
    fs::remove_file(sandbox.path("model/unet/more.onnx")).unwrap();

    let report = fs::read(sandbox.path("model/report.json")).unwrap();
    sandbox.edit_json("model/report.json", |fields| drop(fields.insert("verdict".into(), "fail".into())));
    let said = no("the model failed its verification");
    assert!(said.ends_with("\n\nhint: `model/report.json` says where\n"), "{said}");
    sandbox.edit_json("model/report.json", |fields| drop(fields.insert("schema".into(), "report/v9".into())));
    let said = sandbox.refusal(&package("model", &[]));
    assert!(said.contains("field `schema` is `report/v9`"), "{said}");
    fs::remove_file(sandbox.path("model/report.json")).unwrap();
    let hint = "hint: run `edgetool verify` on it, or name its report with `--report`\n";
    sandbox.refuses(
        &package("model", &[]),
        &format!("{cannot}`model` was not verified: it has no `report.json`\n\n{hint}"),
    );
    fs::write(sandbox.path("elsewhere.json"), report).unwrap();
    sandbox.ok(&package("model", &["--report", "elsewhere.json"]));
}

#[test]
fn what_the_target_does_not_take_is_refused() {
    let sandbox = verified("model");
    let run = |target: &str, code: i32, expect: &str| {
        let ran = sandbox.run(&["package", "model", "--target", target, "-o", "b.zip"]);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains(expect), "{}", ran.stderr);
        assert!(!sandbox.path("b.zip").exists());
    };
    run(
        "rknn",
        1,
        "the graphs are of opset 21, the target takes 19 at most\n\nhint: convert the checkpoint again with `--target rknn`\n",
    );
    run("qnn/sm1", 2, "target `qnn` has no device `sm1`, it has sm8450, ");
    let yaml = sandbox.ok(&["targets", "qnn"]).stdout;
    fs::write(sandbox.path("few.yaml"), yaml.replace("- Tanh\n", "").replace("name: qnn", "name: few")).unwrap();
    run("few.yaml", 1, "target `few` does not take ");
    fs::write(sandbox.path("bad.yaml"), yaml.replace("soc_model: 57", "soc: 57")).unwrap();
    run("bad.yaml", 2, "device `sm8650`: unknown field `soc`, expected one of ");
    fs::write(sandbox.path("none.yaml"), yaml.replace("emitter: qnn\n", "")).unwrap();
    run("none.yaml", 2, "field `emitter` is absent, expected one of enn, onnxruntime, openvino, qnn, rknn");
    let said = sandbox.refusal(&["package", "tests/fixtures/sd15", "--target", "qnn", "-o", "b.zip"]);
    assert!(said.ends_with("hint: name a folder that `edgetool convert` wrote\n"), "{said}");
}

#[test]
fn damage_is_found_and_named() {
    let sandbox = verified("model");
    fs::write(sandbox.path("key"), SECRET).unwrap();
    fs::write(sandbox.path("runner"), "a program").unwrap();
    sandbox.ok(&package("model", &["--secret-key", "key", "--with-runner", "runner"]));
    let said = sandbox.ok(&["bundle", "check", "b.zip", "--public-key", PUBLIC]).stdout;
    assert!(said.ends_with(", signed by this key\n"), "{said}");
    sandbox.ok(&["bundle", "extract", "b.zip", "-o", "x", "--public-key", PUBLIC]);
    let runner = sandbox.path("x/runner/edgetool");
    assert_eq!(fs::read(&runner).unwrap(), b"a program");
    assert_eq!(runner.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    let other = PUBLIC.replace("W7sw0", "W7sw1");
    let ran = sandbox.run(&["bundle", "check", "b.zip", "--public-key", &other]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: `b.zip`: the signature is not good: "), "{}", ran.stderr);

    let mut bytes = fs::read(sandbox.path("b.zip")).unwrap();
    let at = bytes.windows(9).position(|w| w == b"a program").unwrap();
    bytes[at] ^= 32;
    fs::write(sandbox.path("b.zip"), &bytes).unwrap();
    let ran = sandbox.run(&["bundle", "check", "b.zip"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("error: `b.zip` is damaged:\n  `runner/edgetool` has the SHA-256 "),
        "{}",
        ran.stderr
    );
    let ran = sandbox.run(&["bundle", "check", "b.zip", "--format", "json"]);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&object["sound"], &object["damaged"][0]["path"]), (&false.into(), &"runner/edgetool".into()));
    let said = sandbox.refusal(&["bundle", "extract", "b.zip", "-o", "y"]);
    assert!(said.contains("`runner/edgetool` has the SHA-256 "), "{said}");
    // The model is not what is damaged.
    sandbox.ok(&["run", "b.zip", "--prompt", PROMPT, "-o", "p.png"]);
    bytes.truncate(bytes.len() - 1);
    fs::write(sandbox.path("b.zip"), &bytes).unwrap();
    let said = sandbox.refusal(&["run", "b.zip", "--prompt", PROMPT, "-o", "q.png"]);
    assert!(said.contains("`b.zip` is not a bundle: it does not end as a zip file without a comment does"), "{said}");
}

/// A kill at any moment leaves the old bundle or the new one.
#[test]
fn a_kill_leaves_the_old_bundle_or_the_new_one() {
    let sandbox = verified("model");
    let start = std::time::Instant::now();
    sandbox.ok(&package("model", &[]));
    let whole = start.elapsed();
    let new = fs::read(sandbox.path("b.zip")).unwrap();
    let mut seen = [0, 0];
    for part in 0..12 {
        fs::write(sandbox.path("b.zip"), "old").unwrap();
        let mut child = sandbox.command(EDGETOOL, &package("model", &[])).spawn().unwrap();
        std::thread::sleep(whole * part / 10);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::read(sandbox.path("b.zip")).unwrap();
        assert!(left == b"old" || left == new, "{} bytes are left", left.len());
        seen[usize::from(left == new)] += 1;
    }
    assert!(seen[0] > 0, "{seen:?}");
    // An interrupt takes the unfinished file away as well.
    let clean = Sandbox::new();
    let model = sandbox.path("model").display().to_string();
    let child = clean.command(EDGETOOL, &package(&model, &[])).spawn().unwrap();
    std::thread::sleep(whole / 3);
    let kill = format!("kill -s INT {}", child.id());
    assert!(clean.command("sh", &["-c", &kill]).status().unwrap().success());
    let mut child = child;
    let code = child.wait().unwrap().code();
    std::thread::sleep(Duration::from_millis(10));
    let names: Vec<_> = clean.names().into_iter().map(|(name, _)| name).filter(|n| n.contains("zip")).collect();
    assert!(names.is_empty() || (code == Some(0) && names == ["b.zip"]), "{code:?}: {names:?}");
}

/// A disk that takes no more, as a limit of files' sizes shows it: the write fails with an error of the system's.
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let sandbox = verified("model");
    let limited = |kib: usize, arguments: &[&str]| {
        let before = sandbox.names();
        let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        // The shell counts in 512 bytes. The signal is ignored, so that the write itself fails.
        let line = format!("trap '' XFSZ; ulimit -f {}; exec {EDGETOOL} {}", kib * 2, words.join(" "));
        let ran = Ran::new(sandbox.command("sh", &["-c", &line]).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{}", ran.stderr);
        assert_eq!(sandbox.names(), before, "something is left");
        ran.stderr
    };
    let said = limited(256, &package("model", &[]));
    assert!(said.starts_with("error: cannot package `model` for `qnn/sm8750`\n  caused by: cannot write `"), "{said}");
    assert!(said.contains("File too large"), "{said}");
    fs::write(sandbox.path("b.zip"), "old").unwrap();
    limited(256, &package("model", &[]));
    assert_eq!(fs::read(sandbox.path("b.zip")).unwrap(), b"old");
    let said = limited(64, &["quantize", "model", "--precision", "w8", "-o", "w8"]);
    assert!(said.starts_with("error: cannot quantize `model`\n") && said.contains("File too large"), "{said}");
    let said = limited(64, &["convert", "tests/fixtures/edgefusion", "-o", "onnx"]);
    assert!(said.starts_with("error: cannot convert `tests/fixtures/edgefusion`\n"), "{said}");
}
