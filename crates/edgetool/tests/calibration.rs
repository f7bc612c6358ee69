//! Calibration through the program: what is seen is what was drawn, and parts of a run become the run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::tensors::{self, Tensors};
use common::{EDGETOOL, Ran, Sandbox, fixtures};
use serde_json::Value;

const PROMPTS: [&str; 5] = ["a photo of a cat", "a red ring", "two dogs\tshape=ring", "the sea at night", "a house"];

/// What is observed is not fused, so sums are made in another order.
const ROUNDING: f64 = 1e-4;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("prompts.txt"), PROMPTS.join("\n") + "\n").unwrap();
    sandbox
}

/// The bytes of the statistics of `model`.
#[track_caller]
fn calibrate(sandbox: &Sandbox, model: &str, options: &[&str]) -> Vec<u8> {
    let fixed = ["calibrate", model, "--prompts", "prompts.txt", "-o", "stats"];
    sandbox.ok(&[&fixed, options].concat());
    fs::read(sandbox.path("stats")).unwrap()
}

/// The first line, and the others by component and tensor.
fn parse(bytes: &[u8]) -> (Value, BTreeMap<(String, String), Value>) {
    let mut lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap());
    let head: Value = lines.next().unwrap();
    let name = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    (head, lines.map(|line: Value| ((name(&line, "component"), name(&line, "tensor")), line)).collect())
}

/// What is written of a tensor, or of that whose values it has.
fn seen<'l>(lines: &'l BTreeMap<(String, String), Value>, component: &str, tensor: &str) -> &'l Value {
    let line = &lines[&(component.to_owned(), tensor.to_owned())];
    line["same_as"].as_str().map_or(line, |source| &lines[&(component.to_owned(), source.to_owned())])
}

/// How many values a line's bins hold.
fn count(line: &Value) -> u64 {
    let runs = line["bins"].as_array().unwrap();
    runs.iter().flat_map(|run| run[1].as_array().unwrap()).map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn parts_in_any_order_are_one_run() {
    let sandbox = sandbox();
    sandbox.convert("tests/fixtures/edgefusion", "model", &["--fold", "per-step"]);
    let whole = calibrate(&sandbox, "model", &[]);
    for threads in ["1", "2", "3"] {
        assert!(calibrate(&sandbox, "model", &["--threads", threads]) == whole, "{threads} threads");
    }
    for part in ["1", "2", "3"] {
        let bytes = calibrate(&sandbox, "model", &["--shard", &format!("{part}/3"), "--threads", part]);
        assert!(bytes != whole);
        fs::write(sandbox.path(part), bytes).unwrap();
    }
    for order in [["1", "2", "3"], ["1", "3", "2"], ["2", "1", "3"], ["2", "3", "1"], ["3", "1", "2"], ["3", "2", "1"]]
    {
        sandbox.ok(&[&["calibrate", "-o", "joined", "--merge"], &order[..]].concat());
        assert!(fs::read(sandbox.path("joined")).unwrap() == whole, "{order:?}");
    }
    assert!(calibrate(&sandbox, "model", &["--seed", "1"]) != whole);
}

/// The lines of `docs/calibration.md` between two others.
fn excerpt(from: &str, to: &str) -> String {
    let path = fixtures().ancestors().nth(2).unwrap().join("docs/calibration.md");
    let lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    let inside =
        lines.iter().skip_while(|line| line.trim() != from).skip(1).take_while(|line| !line.trim().starts_with(to));
    let text = inside.cloned().collect::<Vec<_>>().join("\n");
    assert!(text.contains("edgetool"), "nothing between `{from}` and `{to}`");
    text
}

#[test]
fn batch_jobs_of_the_document_give_one_run() {
    let sandbox = sandbox();
    sandbox.convert("tests/fixtures/edgefusion", "model", &[]);
    let whole = calibrate(&sandbox, "model", &[]);
    let shell = |script: &str, variables: &[(&str, &str)]| {
        let folder = Path::new(EDGETOOL).parent().unwrap().display().to_string();
        let mut command = sandbox.command("sh", &["-ec", script]);
        command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
        let ran = Ran::new(command.envs(variables.iter().copied()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{script}\n{}", ran.stderr);
    };
    let clear = || (1..=3).for_each(|part| fs::remove_file(sandbox.path(format!("part-{part}.calibration"))).unwrap());
    // Slurm: the job, with what Slurm tells each of its tasks, and the command that follows the job.
    let job = excerpt("#!/bin/bash", "```");
    for task in ["1", "2", "3"] {
        let told = [("SLURM_ARRAY_TASK_ID", task), ("SLURM_ARRAY_TASK_COUNT", "3"), ("SLURM_CPUS_PER_TASK", "1")];
        shell(&job, &told);
    }
    let merge = excerpt("sbatch --wait calibrate.sbatch", "```");
    shell(&merge, &[]);
    assert!(fs::read(sandbox.path("all.calibration")).unwrap() == whole);
    clear();
    // Kubernetes: the container's command, with the index that the job gives, for three pods.
    let command = excerpt("- >-", "resources:").replace("/data/", "").replace("/16", "/3").replace('\n', " ");
    for index in ["0", "1", "2"] {
        shell(&command, &[("JOB_COMPLETION_INDEX", index)]);
    }
    shell(&merge, &[]);
    assert!(fs::read(sandbox.path("all.calibration")).unwrap() == whole);
}

#[test]
fn what_is_seen_is_what_was_drawn() {
    let sandbox = sandbox();
    for model in ["tests/fixtures/edgefusion", "tests/fixtures/sd15"] {
        let (head, lines) = parse(&calibrate(&sandbox, model, &["--seed", "3"]));
        assert_eq!(head["run"]["prompts"]["count"], 5);
        assert_eq!(head["run"]["steps"], 2);
        let mut drawn: BTreeMap<&str, [f32; 2]> = BTreeMap::new();
        let mut numbers = 0;
        for (seed, prompt) in (3..).zip(PROMPTS) {
            let (prompt, seed) = (prompt.split('\t').next().unwrap(), seed.to_string());
            let fixed = ["run", model, "--prompt", prompt, "--seed", &seed, "-o", "p.png"];
            sandbox.ok(&[&fixed[..], &["--save-tensors", "seen.safetensors"]].concat());
            let tensors = tensors::read(&sandbox.path("seen.safetensors"));
            numbers += tensors["model_output"].numbers().len() as u64;
            for name in ["context", "model_output", "decoded"] {
                let range = drawn.entry(name).or_insert([f32::INFINITY, f32::NEG_INFINITY]);
                for value in tensors[name].numbers() {
                    *range = [range[0].min(value), range[1].max(value)];
                }
            }
        }
        for (component, output, name) in [
            ("text_encoder", "last_hidden_state", "context"),
            ("unet", "out_sample", "model_output"),
            ("vae_decoder", "sample", "decoded"),
        ] {
            let line = seen(&lines, component, output);
            for (field, expected) in ["min", "max"].into_iter().zip(drawn[name]) {
                let (found, expected) = (line[field].as_f64().unwrap(), f64::from(expected));
                assert!((found - expected).abs() <= ROUNDING * expected.abs(), "{model} {name}: {found}, {expected}");
            }
        }
        // The UNet takes as many numbers as it gives.
        assert_eq!(count(seen(&lines, "unet", "sample")), numbers);
    }
}

#[test]
fn every_form_is_calibrated() {
    let sandbox = sandbox();
    for (form, components) in [
        ("none", "text_encoder unet vae_decoder"),
        ("table", "text_encoder unet vae_decoder"),
        ("per-step", "text_encoder unet_step_0 unet_step_1 vae_decoder"),
        ("unrolled", "sampler text_encoder vae_decoder"),
        ("pipeline", "pipeline"),
    ] {
        for target in [&[][..], &["--target", "qnn", "--dtype", "float32"]] {
            sandbox.convert("tests/fixtures/edgefusion", "model", &[&["--force", "--fold", form], target].concat());
            let (head, lines) = parse(&calibrate(&sandbox, "model", &["--number", "2"]));
            let found: Vec<_> = head["components"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(found.join(" "), components, "{form} {target:?}");
            for component in components.split(' ') {
                let number = lines.keys().filter(|(of, _)| of == component).count();
                assert!(number > 20, "{form} {target:?} {component}: {number} tensors");
            }
        }
    }
}

#[test]
fn it_does_not_matter_where_the_weights_are() {
    let sandbox = sandbox();
    let expected = calibrate(&sandbox, "tests/fixtures/edgefusion", &["--number", "2"]);
    for weights in ["copy", "inline"] {
        sandbox.convert("tests/fixtures/edgefusion", "model", &["--force", "--weights", weights]);
        assert!(calibrate(&sandbox, "model", &["--number", "2"]) == expected, "{weights}");
    }
}

#[test]
fn one_component_can_be_looked_at_alone() {
    let sandbox = sandbox();
    let all = calibrate(&sandbox, "tests/fixtures/edgefusion", &[]);
    let alone = calibrate(&sandbox, "tests/fixtures/edgefusion", &["--component", "unet"]);
    let (head, lines) = parse(&alone);
    assert_eq!(head["components"].as_object().unwrap().len(), 1);
    let (_, all) = parse(&all);
    assert!(all.len() > lines.len() && lines.keys().all(|(component, _)| component == "unet"));
    // The others run as fused operators, whose results differ in the last bits.
    assert_eq!(lines.keys().collect::<Vec<_>>(), all.keys().filter(|(c, _)| c == "unet").collect::<Vec<_>>());
}

#[test]
fn a_component_is_looked_at_again() {
    let sandbox = sandbox();
    sandbox.convert("tests/fixtures/edgefusion", "model", &["--fold", "per-step"]);
    let whole = calibrate(&sandbox, "model", &[]);
    fs::write(sandbox.path("base"), &whole).unwrap();
    let again = ["--component", "unet_step_1", "--onto", "base"];
    let (_, before) = parse(&whole);
    // Another first step makes another latent for the second one.
    sandbox.copy("edgefusion", "other");
    sandbox.edit_tensors("other/unet/diffusion_pytorch_model.safetensors", |content: &mut Tensors| {
        content.get_mut("conv_out.bias").unwrap().bytes[..2].copy_from_slice(&[0, 0x3c]);
    });
    sandbox.convert("other", "changed", &["--fold", "per-step"]);
    let (head, after) = parse(&calibrate(&sandbox, "changed", &again));
    assert_eq!(head["components"].as_object().unwrap().len(), 4);
    assert_eq!(before.len(), after.len());
    for (name, line) in &after {
        assert!(name.0 == "unet_step_1" || line == &before[name], "{name:?}");
    }
    let sample = ("unet_step_1".to_owned(), "sample".to_owned());
    assert!(before[&sample] != after[&sample]);
    let foreign = "error: `stats` is no part of the same run as `base`: the seed is 1, expected 0\n";
    let fixed = ["calibrate", "model", "--prompts", "prompts.txt", "-o", "stats", "--seed", "1"];
    sandbox.refuses(&[&fixed[..], &again].concat(), foreign);
}

#[test]
fn a_step_reads_what_the_quantized_steps_before_it_give() {
    let sandbox = sandbox();
    sandbox.convert("tests/fixtures/edgefusion", "model", &["--fold", "per-step", "--target", "qnn"]);
    let unets = ["--component", "unet_step_0", "--component", "unet_step_1"];
    fs::write(sandbox.path("base"), calibrate(&sandbox, "model", &unets)).unwrap();
    sandbox.ok(&["quantize", "model", "--precision", "w8a8", "--statistics", "base", "-o", "quantized"]);
    let (before, after) = (
        parse(&fs::read(sandbox.path("base")).unwrap()).1,
        parse(&calibrate(&sandbox, "model", &[&unets[..], &["--with", "quantized"]].concat())).1,
    );
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let differ: Vec<_> = before.iter().filter(|(name, line)| &after[*name] != *line).map(|(name, _)| name).collect();
    assert!(differ.iter().all(|name| name.0 == "unet_step_1"), "{differ:?}");
    assert!(differ.contains(&&("unet_step_1".to_owned(), "sample".to_owned())), "{differ:?}");
    // What is seen are the float network's tensors: it is those that get ranges.
    sandbox.ok(&["quantize", "model", "--precision", "w8a8", "--statistics", "stats", "-o", "again"]);
    let ask = |rest: &[&str]| {
        sandbox.refusal(&[&["calibrate", "model", "--prompts", "prompts.txt", "-o", "x"], rest].concat())
    };
    assert!(ask(&["--with", "model"]).contains("`model` is not quantized"));
    assert!(
        ask(&[&unets[..1], &["unet_step_1", "--with", "quantized", "--onto", "base"]].concat())
            .contains("the SHA-256 of the quantized model is")
    );
}

#[test]
fn long_prompts_are_counted() {
    let sandbox = sandbox();
    let long = "a very long prompt about cats ".repeat(20);
    fs::write(sandbox.path("prompts.txt"), format!("a cat\n{long}\n{long} and dogs\n")).unwrap();
    let fixed = ["calibrate", "tests/fixtures/edgefusion", "--prompts", "prompts.txt", "-o", "stats", "--quiet"];
    let expected = "warning: 2 of 3 prompts are longer than the text encoder takes: their ends were left out\n";
    assert_eq!(sandbox.ok(&fixed).stderr, expected);
}

#[test]
fn too_few_prompts_are_refused() {
    let sandbox = sandbox();
    let check = |text: &str, options: &[&str], expected: &str| {
        fs::write(sandbox.path("prompts.txt"), text).unwrap();
        let fixed = ["calibrate", "tests/fixtures/edgefusion", "--prompts", "prompts.txt", "-o", "out"];
        sandbox.refuses(&[&fixed, options].concat(), expected);
    };
    check("\n\n", &[], "error: `prompts.txt` is not a list of prompts: it has no line\n");
    let one = "error: `prompts.txt` gives one prompt, expected at least 2 different ones\n\nhint: 8 to 64 prompts of \
               the kind that will be drawn are usual\n";
    check("a cat\n", &[], one);
    check("a cat\na cat\n", &[], one);
    check("a cat\na dog\n", &["--number", "1"], one);
    let parts = "error: `prompts.txt` gives 2 prompts, which are too few for 3 parts\n\nhint: give more prompts, or \
                 split them into fewer parts\n";
    check("a cat\na dog\n", &["--shard", "1/3"], parts);
    let unknown = "error: `tests/fixtures/edgefusion` has no component `u`\n\nhint: it has text_encoder, unet, \
                   vae_decoder, vae_encoder, taesd_decoder\n";
    check("a cat\na dog\n", &["--component", "u"], unknown);
}

#[test]
fn the_tensor_that_is_not_finite_is_named() {
    let sandbox = sandbox();
    sandbox.copy("edgefusion", "broken");
    sandbox.edit_tensors("broken/unet/diffusion_pytorch_model.safetensors", |content: &mut Tensors| {
        let bias = content.get_mut("up_blocks.0.resnets.0.conv1.bias").unwrap();
        bias.bytes[..2].copy_from_slice(&[0, 0x7e]);
    });
    let said = sandbox.refusal(&["calibrate", "broken", "--prompts", "prompts.txt", "-o", "out"]);
    let expected = "error: cannot calibrate `broken`\n  caused by: `up_blocks_0_resnets_0_conv1` of `unet` has 9 values \
                    that are NaN or infinite\n";
    assert_eq!(said, expected);
}

#[test]
fn what_does_not_belong_together_is_not_joined() {
    let sandbox = sandbox();
    for (part, seed, to) in [("1/2", "0", "a"), ("2/2", "0", "b"), ("2/2", "1", "c")] {
        let bytes = calibrate(&sandbox, "tests/fixtures/edgefusion", &["--shard", part, "--seed", seed]);
        fs::write(sandbox.path(to), bytes).unwrap();
    }
    sandbox.copy("edgefusion", "other");
    sandbox.edit_tensors("other/unet/diffusion_pytorch_model.safetensors", |content: &mut Tensors| {
        content.values_mut().next().unwrap().bytes[0] ^= 1;
    });
    fs::write(sandbox.path("d"), calibrate(&sandbox, "other", &["--shard", "2/2"])).unwrap();
    fs::write(sandbox.path("e"), "{}\n").unwrap();
    let merge = |files: &[&str]| sandbox.refusal(&[&["calibrate", "-o", "out", "--merge"], files].concat());
    let missing = "error: of 2 parts, 1 is missing: 2/2\n\nhint: make the others with `--shard`, and name the files of \
                   all parts\n";
    assert_eq!(merge(&["a"]), missing);
    assert_eq!(merge(&["a", "a"]), "error: `a` and `a` are both part 1/2\n\nhint: name each part once\n");
    let foreign = "error: `c` is no part of the same run as `a`: the seed is 1, expected 0\n\nhint: all parts take the \
                   same model, prompts, seed and sampling options\n";
    assert_eq!(merge(&["a", "c"]), foreign);
    let other = merge(&["a", "d"]);
    assert!(other.starts_with("error: `d` is no part of the same run as `a`: the SHA-256 of `unet` is "), "{other}");
    let damaged = merge(&["a", "e"]);
    assert!(damaged.starts_with("error: `e` is not a calibration file: line 1: missing field `schema`"), "{damaged}");
}
