//! `build`: all stages in one go, what the cache keeps, and what makes a stage run again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Ran, Sandbox, compiler};

const RECIPE: &str = "schema: recipe/v1
name: tiny
model: tests/fixtures/edgefusion
steps: 2
quantize:
  precision: w8a16
  calibration: prompts.txt
  number: 3
verify:
  prompts: prompts.txt
  number: 2
  tolerances:
  - {name: saturated_share, most: 1, reason: Three prompts give no good ranges.}
  - {name: conditioning_deviation, most: 1, reason: Nor do they for this.}
";
const PROMPTS: &str = "a photo of a cat\na photo of a dog\na red house\na blue house\n";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("recipe.yaml"), RECIPE).unwrap();
    fs::write(sandbox.path("prompts.txt"), PROMPTS).unwrap();
    sandbox
}

/// Builds for SM8650, and says which stages ran and which did not.
#[track_caller]
fn build(sandbox: &Sandbox, more: &[&str]) -> (Vec<String>, Vec<String>, Ran) {
    build_for(sandbox, "qnn/sm8650", more)
}

#[track_caller]
fn build_for(sandbox: &Sandbox, target: &str, more: &[&str]) -> (Vec<String>, Vec<String>, Ran) {
    let arguments = ["build", "recipe.yaml", "--target", target, "-o", "b.zip", "--cache", "cache"];
    let ran = sandbox.ok(&[&arguments[..], more].concat());
    let stages = |word: &str| {
        let lines = ran.stderr.lines().filter(|l| l.split_whitespace().nth(1) == Some(word) && l.contains(" cache/"));
        lines.map(|l| l.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    (stages("made"), stages("kept"), ran)
}

#[test]
fn a_second_build_does_nothing_and_a_change_redoes_what_depends_on_it() {
    let sandbox = sandbox();
    let all = ["convert", "calibrate", "quantize", "verify", "package"];
    let (made, kept, ran) = build(&sandbox, &["--threads", "1"]);
    assert_eq!((made.as_slice(), kept.len()), (&all.map(str::to_owned)[..], 0), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("built `b.zip` from `recipe.yaml`\n"), "{}", ran.stderr);
    let first = fs::read(sandbox.path("b.zip")).unwrap();
    let (made, kept, ran) = build(&sandbox, &["--threads", "2"]);
    assert_eq!((made.len(), kept.as_slice()), (0, &all.map(str::to_owned)[..]), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("nothing to do: `b.zip` is what `recipe.yaml` makes\n"), "{}", ran.stderr);

    fs::remove_file(sandbox.path("b.zip")).unwrap();
    assert_eq!(build(&sandbox, &[]).0.len(), 0);
    assert!(first == fs::read(sandbox.path("b.zip")).unwrap(), "the cache gives another bundle");

    let change = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(sandbox.path(file)).unwrap();
        assert!(text.contains(from));
        fs::write(sandbox.path(file), text.replace(from, to)).unwrap();
        build(&sandbox, &[]).0
    };
    // A comment, and a prompt that is not drawn, are no reasons for verifying again; the latter is one for calibrating.
    assert_eq!(change("recipe.yaml", "name: tiny", "name: small # a comment"), [] as [&str; 0]);
    assert_eq!(change("recipe.yaml", "number: 2", "number: 4"), ["verify", "package"]);
    assert_eq!(change("recipe.yaml", "number: 3", "number: 4"), &all[1..]);
    assert_eq!(change("recipe.yaml", "w8a16", "fp16"), ["quantize", "verify", "package"]);
    assert_eq!(change("recipe.yaml", "fp16", "w8a16"), [] as [&str; 0]);
    assert_eq!(change("prompts.txt", "a red house", "a green house"), &all[1..]);
    assert_eq!(build_for(&sandbox, "qnn/sm8750", &[]).0, ["package"]);
}

#[test]
fn a_build_is_what_the_single_commands_make() {
    let sandbox = sandbox();
    build(&sandbox, &[]);
    let limits = "schema: tolerances/v1\ntolerances:\n- {name: saturated_share, most: 1, reason: Few.}\n\
        - {name: conditioning_deviation, most: 1, reason: Few.}\n";
    fs::write(sandbox.path("limits.yaml"), limits).unwrap();
    let model = "tests/fixtures/edgefusion";
    let options = ["--fold", "per-step", "--steps", "2", "--dtype", "float32", "--target", "qnn"];
    sandbox.convert(model, "float", &options);
    sandbox.ok(&[
        "quantize",
        "float",
        "--precision",
        "w8a16",
        "--calibration",
        "prompts.txt",
        "--number",
        "3",
        "-o",
        "q",
    ]);
    let verify =
        ["verify", "q", "--against", model, "--prompts", "prompts.txt", "--limit", "2", "--thresholds", "limits.yaml"];
    sandbox.ok(&verify);
    sandbox.ok(&["package", "q", "--target", "qnn/sm8650", "--prompt", "a photo of a cat", "-o", "single.zip"]);
    for bundle in ["b", "single"] {
        sandbox.ok(&["bundle", "extract", &format!("{bundle}.zip"), "-o", bundle]);
    }
    let (mut built, mut single) = (sandbox.tree("b"), sandbox.tree("single"));
    // The report quotes the reasons for limits; the manifest has its hash.
    for name in ["report.json", "manifest.json"] {
        assert!(built.remove(name).is_some() && single.remove(name).is_some());
    }
    common::assert_same_trees(&built, &single);
}

#[test]
fn a_build_compiles_and_signs() {
    let sandbox = sandbox();
    build(&sandbox, &[]);
    let model = fs::read_dir(sandbox.path("cache")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let model = model.into_iter().find(|name| name.starts_with("quantize-")).unwrap();
    compiler::write(&sandbox, "py", &format!("cache/{model}"), &[], &[]);
    let key = "untrusted comment: minisign encrypted secret key\n\
        RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZpAWYlUcD/CbD+/l4/p2vwfrhihRV80Bx9uvxoMxpAUsV0pSZoU3S/O1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    fs::write(sandbox.path("key"), key).unwrap();
    let compile = ["--compile", "--python", "./py", "--secret-key", "key"];
    assert_eq!(build(&sandbox, &compile).0, ["compile"]);
    let public = "RWRmkBZiVRwP8PO1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrB";
    sandbox.ok(&["bundle", "check", "b.zip", "--public-key", public]);
    assert_eq!(build(&sandbox, &compile).0, [] as [&str; 0]);
    // Another compiler compiles again.
    let text = fs::read_to_string(sandbox.path("py")).unwrap();
    fs::write(sandbox.path("py"), text.replace("2.7.0", "2.8.0")).unwrap();
    assert_eq!(build(&sandbox, &compile).0, ["compile"]);
}

#[test]
fn what_is_wrong_with_a_recipe_is_said() {
    let sandbox = sandbox();
    let refuses = |from: &str, to: &str, expected: &str| {
        fs::write(sandbox.path("recipe.yaml"), RECIPE.replace(from, to)).unwrap();
        let said = sandbox.refusal(&["build", "recipe.yaml", "--target", "qnn", "-o", "b.zip", "--cache", "cache"]);
        assert!(said.contains(expected), "{said}");
    };
    refuses("steps: 2", "step: 2", "`recipe.yaml` is not a recipe: unknown field `step`");
    refuses("recipe/v1", "recipe/v2", "field `schema` is `recipe/v2`, supported: recipe/v1");
    refuses("saturated_share", "saturation", "saturation");
    fs::create_dir(sandbox.path("cache")).unwrap();
    refuses("fixtures/edgefusion", "fixtures/none", "cannot read `tests/fixtures/none`");
}
