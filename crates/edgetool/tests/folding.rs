//! Folded models through the program: every form draws what the unfolded model draws, and what diffusers draws.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::pipeline::{assert_same_picture, assert_within, draw, golden, golden_runs, write_noise};
use common::tensors::Tensors;
use common::{EDGETOOL, PROMPT, Ran, Sandbox, assert_same_trees, read_png};
use serde_json::{Value, json};

/// Relative L2 error of a folded run against diffusers: that of a run, twice, since an embedding is rounded once here
/// and a thousand times there.
const GOLDEN: f64 = 2e-4;
/// Relative L2 error of a picture against the unfolded run: the same sums in another order.
const UNFOLDED: f64 = 1e-5;

const FORMS: [&str; 4] = ["table", "per-step", "unrolled", "pipeline"];

macro_rules! on_every_fixture {
    ($($check:ident),* $(,)?) => {
        mod edgefusion { $(#[test] fn $check() { super::$check("edgefusion"); })* }
        mod sd15 { $(#[test] fn $check() { super::$check("sd15"); })* }
        mod sd2 { $(#[test] fn $check() { super::$check("sd2"); })* }
    };
}

on_every_fixture!(every_form_draws_the_same, every_option_draws_the_same, nothing_is_left_of_time, batches_fold);

fn checkpoint(fixture: &str) -> String {
    format!("tests/fixtures/{fixture}")
}

/// Converts the fixture, folded, into the folder `folded`.
#[track_caller]
fn fold(sandbox: &Sandbox, fixture: &str, form: &str, options: &[&str]) {
    sandbox.convert(&checkpoint(fixture), "folded", &[&["--force", "--fold", form], options].concat());
}

#[track_caller]
fn assert_same_image(found: &Tensors, expected: &Tensors) {
    assert_within(UNFOLDED, &[("image", found["image"].clone(), &expected["image"])]);
}

fn every_form_draws_the_same(fixture: &str) {
    let (sandbox, golden) = (Sandbox::new(), golden(fixture));
    write_noise(&sandbox, &golden);
    let noise = ["--latents", "noise.safetensors"];
    for (steps, guidance) in golden_runs(&golden) {
        let fixed = ["--steps", steps, "--guidance", guidance];
        let (expected, _) = draw(&sandbox, &checkpoint(fixture), &[&noise[..], &fixed].concat());
        for form in FORMS {
            fold(&sandbox, fixture, form, &fixed);
            let (found, _) = draw(&sandbox, "folded", &noise);
            assert_same_image(&found, &expected);
            for name in ["prev_sample", "denoised"] {
                let (key, Some(tensor)) = (format!("pipe.s{steps}.g{guidance}.{name}"), found.get(name)) else {
                    continue;
                };
                let last = golden[&key].row(golden[&key].shape[0] - 1);
                let expected = if tensor.shape[0] == golden[&key].shape[0] { &golden[&key] } else { &last };
                assert_within(GOLDEN, &[(&key, tensor.clone(), expected)]);
            }
            if let Some(expected) = golden.get(&format!("pipe.s{steps}.g{guidance}.image_u8")) {
                assert_same_picture(&sandbox, expected);
            }
        }
    }
}

fn every_option_draws_the_same(fixture: &str) {
    let (sandbox, golden) = (Sandbox::new(), golden(fixture));
    write_noise(&sandbox, &golden);
    let branches = fixture != "edgefusion";
    let scale = if branches { "1.5" } else { "8" };
    let noise = ["--latents", "noise.safetensors"];
    let (expected, _) = draw(&sandbox, &checkpoint(fixture), &[&noise[..], &["--guidance", scale]].concat());
    let fixed = ["--guidance", scale];
    let batch: &[&str] = if branches { &["--branches", "batch"] } else { &[] };
    for form in FORMS {
        let mut cases = vec![
            [&fixed[..], &["--hoist-kv"]].concat(),
            [&fixed[..], &["--opset", "21", "--image", "nhwc", "--weights", "inline"]].concat(),
            [&fixed[..], batch, &["--hoist-kv", "--dtype", "float32"]].concat(),
            [batch, &["--guidance", "input"]].concat(),
        ];
        if matches!(form, "table" | "per-step") {
            cases.push([&fixed[..], &["--scheduler-step", "host"]].concat());
        }
        for options in cases {
            fold(&sandbox, fixture, form, &options);
            let (found, _) = draw(&sandbox, "folded", &[&noise[..], &fixed].concat());
            assert_same_image(&found, &expected);
        }
        for layout in ["nchw-u8", "nhwc-u8"] {
            fold(&sandbox, fixture, form, &[&fixed[..], &["--image", layout]].concat());
            draw(&sandbox, "folded", &noise);
            assert_same_picture(&sandbox, &golden[&format!("pipe.s2.g{scale}.image_u8")]);
        }
    }
    let tiny = [&noise[..], &fixed, &["--decoder", "taesd"]].concat();
    let (expected, _) = draw(&sandbox, &checkpoint(fixture), &tiny);
    fold(&sandbox, fixture, "per-step", &fixed);
    assert_same_image(&draw(&sandbox, "folded", &tiny).0, &expected);
    fold(&sandbox, fixture, "pipeline", &[&fixed[..], &["--decoder", "taesd"]].concat());
    assert_same_image(&draw(&sandbox, "folded", &noise).0, &expected);
}

fn nothing_is_left_of_time(fixture: &str) {
    let sandbox = Sandbox::new();
    let before = sandbox.ok(&["inspect", &checkpoint(fixture), "--nodes"]).stdout;
    assert!(before.contains("time_embedding") && before.contains("in  timestep: int64[1]"));
    for form in FORMS {
        fold(&sandbox, fixture, form, &[]);
        let after = sandbox.ok(&["inspect", "folded", "--nodes"]).stdout;
        for word in ["time_embedding", "time_proj", "time_emb_proj_weight", "timestep", " = Sin(", " = Cos("] {
            assert!(!after.contains(word), "{form}: `{word}` is still there");
        }
        // One number for each channel costs nothing where it is a bias.
        assert_eq!(after.contains("time_emb_proj"), form == "table");
    }
}

/// The pictures of a batch have their own noise and one prompt.
fn batches_fold(fixture: &str) {
    let sandbox = Sandbox::new();
    let size = ["--batch", "2", "--height", "64", "--width", "128", "--timestep", "per-image"];
    let guidance = if fixture == "edgefusion" { "8" } else { "1.5" };
    sandbox.convert(&checkpoint(fixture), "plain", &size);
    let (expected, _) = draw(&sandbox, "plain", &["--guidance", guidance, "--negative-prompt", ""]);
    let pictures = |sandbox: &Sandbox| ["p.png", "p-2.png"].map(|name| read_png(&sandbox.path(name)).rgb);
    let [first, second] = pictures(&sandbox);
    assert_ne!(first, second);
    for form in FORMS {
        for hoist in [&[][..], &["--hoist-kv"]] {
            fold(&sandbox, fixture, form, &[&size[..], &["--guidance", guidance], hoist].concat());
            assert_same_image(&draw(&sandbox, "folded", &[]).0, &expected);
        }
    }
}

#[test]
fn up_to_eight_steps_fold() {
    let sandbox = Sandbox::new();
    // The golden runs have 1, 2 and 4.
    for steps in ["3", "5", "6", "7", "8"] {
        let (expected, _) = draw(&sandbox, &checkpoint("edgefusion"), &["--steps", steps, "--seed", "5"]);
        for form in ["table", "unrolled"] {
            fold(&sandbox, "edgefusion", form, &["--steps", steps]);
            let (found, _) = draw(&sandbox, "folded", &["--seed", "5"]);
            assert_same_image(&found, &expected);
            assert_eq!(read_png(&sandbox.path("p.png")).texts["steps"], steps);
        }
    }
}

#[test]
fn a_negative_prompt_has_its_effect() {
    let sandbox = Sandbox::new();
    let options = ["--guidance", "3", "--negative-prompt", "rain"];
    let (expected, _) = draw(&sandbox, &checkpoint("sd15"), &options);
    let (other, _) = draw(&sandbox, &checkpoint("sd15"), &options[..2]);
    assert_ne!(expected["image"], other["image"]);
    for form in FORMS {
        for branches in ["calls", "batch"] {
            fold(&sandbox, "sd15", form, &["--guidance", "3", "--branches", branches]);
            assert_same_image(&draw(&sandbox, "folded", &options[2..]).0, &expected);
        }
    }
}

#[test]
fn steps_share_one_file_of_weights() {
    let sandbox = Sandbox::new();
    let weights = |steps: &str| {
        fold(&sandbox, "edgefusion", "per-step", &["--steps", steps]);
        fs::read(sandbox.path("folded/unet/model.onnx_data")).unwrap()
    };
    assert!(weights("1") == weights("2"), "the weights of one step are not those of two");
    let names = |step: usize| {
        let path = format!("folded/unet/step_{step}.onnx");
        let dump = sandbox.ok(&["inspect", &path, "--nodes"]).stdout;
        let names = dump.lines().filter_map(|line| line.strip_prefix("  let ")?.split_once(':'));
        // The factors of the scheduler's step are the step's own.
        let weights = names.map(|(name, _)| name.to_owned()).filter(|name| !name.starts_with("scheduler_"));
        weights.collect::<Vec<_>>()
    };
    sandbox.copy("edgefusion", "checkpoint");
    sandbox.convert("checkpoint", "linked", &["--fold", "per-step", "--weights", "link"]);
    assert!(draw(&sandbox, "linked", &[]) == draw(&sandbox, "folded", &[]), "links change the picture");
    let linked: Vec<_> = sandbox.tree("linked").into_keys().filter(|name| name.starts_with("unet/")).collect();
    assert_eq!(linked, ["unet/step_0.onnx", "unet/step_1.onnx", "unet/weights_0.safetensors"]);
    assert!(names(0).iter().any(|name| name == "down_blocks_0_resnets_0_conv1_bias"));
    assert_eq!(names(0), names(1));
    for form in ["unrolled", "pipeline"] {
        let size = |steps: &str| {
            fold(&sandbox, "edgefusion", form, &["--steps", steps]);
            let folder = if form == "pipeline" { "pipeline" } else { "sampler" };
            fs::metadata(sandbox.path(format!("folded/{folder}/model.onnx_data"))).unwrap().len()
        };
        assert_eq!(size("1"), size("2"), "{form}");
    }
}

/// What is rewritten for a target is rewritten in every step's copy; the bytes are there once all the same.
#[test]
fn steps_share_their_weights_after_lowering() {
    let sandbox = Sandbox::new();
    // The target's own approximations are in both.
    sandbox.convert(&checkpoint("edgefusion"), "lowered", &["--target", "qnn", "--dtype", "float32"]);
    let (expected, _) = draw(&sandbox, "lowered", &["--steps", "3"]);
    for (form, folder) in [("per-step", "unet"), ("unrolled", "sampler"), ("pipeline", "pipeline")] {
        let size = |steps: &str| {
            let options = ["--target", "qnn", "--dtype", "float32", "--steps", steps];
            fold(&sandbox, "edgefusion", form, &options);
            fs::metadata(sandbox.path(format!("folded/{folder}/model.onnx_data"))).unwrap().len()
        };
        assert_eq!(size("1"), size("3"), "{form}");
        assert_same_image(&draw(&sandbox, "folded", &[]).0, &expected);
    }
}

#[test]
fn keys_and_values_leave_the_unet() {
    let sandbox = Sandbox::new();
    let components = |options: &[&str]| {
        fold(&sandbox, "edgefusion", "per-step", options);
        let ran = sandbox.ok(&["inspect", "folded", "--format", "json"]);
        let all: Value = serde_json::from_str(&ran.stdout).unwrap();
        let number = |index: usize, key: &str| all["components"][index][key].as_u64().unwrap();
        let names = |index: usize, key: &str| all["components"][index][key].as_array().unwrap().len();
        [0, 1].map(|i| (number(i, "parameters"), number(i, "macs"), names(i, "inputs"), names(i, "outputs")))
    };
    let ([text, unet], [text_after, unet_after]) = (components(&[]), components(&["--hoist-kv"]));
    assert_eq!(unet.0 - unet_after.0, text_after.0 - text.0, "parameters move");
    assert_eq!(unet.1 - unet_after.1, text_after.1 - text.1, "arithmetic moves");
    assert!(unet.0 > unet_after.0 && unet.1 > unet_after.1);
    // `sample`, `noise` and the hidden states; or two for each attention.
    assert_eq!((unet.2, text.3), (3, 1));
    assert_eq!(unet_after.2 - 2, text_after.3);
    assert!(text_after.3 % 2 == 0 && text_after.3 > 2);
}

#[test]
fn folding_is_deterministic() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "checkpoint");
    for form in FORMS {
        let convert = |threads: &str| {
            let args =
                ["convert", "checkpoint", "-o", "out", "--force", "--fold", form, "--guidance", "2", "--hoist-kv"];
            let output = sandbox.command(EDGETOOL, &args).env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert_eq!(Ran::new(output).code, Some(0));
            sandbox.tree("out")
        };
        assert_same_trees(&convert("1"), &convert("2"));
    }
}

#[test]
fn the_manifest_says_what_was_folded() {
    let sandbox = Sandbox::new();
    let options = ["--scheduler-step", "host", "--image", "nhwc-u8", "--hoist-kv"];
    fold(&sandbox, "edgefusion", "per-step", &options);
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(sandbox.path("folded/edgetool.json")).unwrap()).unwrap();
    assert_eq!(manifest["pipeline"]["vae_scaling_factor"], json!(1.0));
    let mut fold = manifest["fold"].clone();
    let steps = fold.as_object_mut().unwrap().remove("steps").unwrap();
    let expected = json!({
        "form": "per-step",
        "guidance": {"by": "embedding", "scale": 8.0},
        "scheduler_step": "host",
        "hoist_kv": true,
        "image": "nhwc-u8",
    });
    assert_eq!(fold, expected);
    let number = |step: usize, key: &str| steps[step][key].as_f64().unwrap();
    let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found} for {expected}");
    assert_eq!(
        [&steps[0]["timestep"], &steps[1]["timestep"], &steps[1]["noise"]],
        [&json!(999), &json!(499), &json!(0.0)]
    );
    // `next = sqrt(a) * denoised + sqrt(1 - a) * noise` at timestep 499.
    close(number(0, "sample"), 14.648_819_4 * 0.526_943_505);
    close(number(0, "output"), -14.614_647_8 * 0.526_943_505);
    close(number(0, "noise"), 0.849_900_365);
    close(number(1, "sample"), 1.897_736_65);
    close(number(1, "output"), -1.612_887_02);
}

#[test]
fn clipping_is_an_operator() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "clipping");
    sandbox.edit_json("clipping/scheduler/scheduler_config.json", |config| {
        config.insert("clip_sample".into(), json!(true));
        config.insert("clip_sample_range".into(), json!(0.75));
    });
    let (expected, _) = draw(&sandbox, "clipping", &["--steps", "3"]);
    for form in FORMS {
        let mut cases = vec![&[][..]];
        if matches!(form, "table" | "per-step") {
            cases.push(&["--scheduler-step", "host"]);
        }
        for options in cases {
            let args = [&["--fold", form, "--steps", "3", "--force"], options].concat();
            sandbox.convert("clipping", "folded", &args);
            assert_same_image(&draw(&sandbox, "folded", &[]).0, &expected);
        }
    }
}

#[test]
fn another_scheduler_folds_as_lcm() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "ddim");
    sandbox.edit_json("ddim/scheduler/scheduler_config.json", |config| {
        config.insert("_class_name".into(), json!("DDIMScheduler"));
        config.retain(|key, _| key != "original_inference_steps" && key != "timestep_scaling");
    });
    let (expected, _) = draw(&sandbox, "ddim", &["--scheduler", "lcm"]);
    sandbox.convert("ddim", "folded", &["--fold", "table", "--scheduler", "lcm"]);
    assert_same_image(&draw(&sandbox, "folded", &[]).0, &expected);
}

/// `convert sd15 -o out` with these arguments must fail with these words.
#[track_caller]
fn refuses(sandbox: &Sandbox, source: &str, args: &[&str], cause: &str) {
    let expected = format!("error: cannot convert `{source}`\n  caused by: {cause}\n");
    sandbox.refuses(&[&["convert", source, "-o", "out"], args].concat(), &expected);
}

#[test]
fn steps_that_the_schedule_does_not_have() {
    let sandbox = Sandbox::new();
    let fold = ["--fold", "per-step", "--steps"];
    let cause = "--steps 51 is too many: the schedule has 50, the scheduler's `original_inference_steps`\n\nhint: name 50 steps or fewer";
    refuses(&sandbox, "tests/fixtures/sd15", &[&fold[..], &["51"]].concat(), cause);
    let cause = "`steps`: expected 1 to 1000 (`num_train_timesteps`), got 0";
    refuses(&sandbox, "tests/fixtures/sd15", &[&fold[..], &["0"]].concat(), cause);
    sandbox.copy("sd15", "short");
    sandbox.edit_json("short/scheduler/scheduler_config.json", |config| {
        config.insert("original_inference_steps".into(), json!(4));
    });
    let cause = "--steps 8 is too many: the schedule has 4, the scheduler's `original_inference_steps`\n\nhint: name 4 steps or fewer";
    refuses(&sandbox, "short", &[&fold[..], &["8"]].concat(), cause);
}

#[test]
fn schedulers_that_do_not_fold() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "other");
    let config = "other/scheduler/scheduler_config.json";
    sandbox.edit_json(config, |fields| drop(fields.insert("_class_name".into(), json!("PNDMScheduler"))));
    let cause = "cannot use `other/scheduler/scheduler_config.json`\n  caused by: `_class_name`: expected `LCMScheduler`, \
                 got `PNDMScheduler`; `--scheduler lcm` samples with LCM on the same betas";
    refuses(&sandbox, "other", &["--fold", "table"], cause);
    sandbox.edit_json(config, |fields| {
        fields.insert("_class_name".into(), json!("LCMScheduler"));
        fields.insert("thresholding".into(), json!(true));
    });
    let cause = "the scheduler's `thresholding` does not fold: it takes a quantile of each image, for which the graphs \
                 have no operator\n\nhint: convert without `--fold`: `edgetool run` thresholds between the steps";
    refuses(&sandbox, "other", &["--fold", "table"], cause);
}

#[test]
fn guidance_that_a_model_does_not_take() {
    let sandbox = Sandbox::new();
    let cause = "`--branches` is for UNets without guidance embedding; this one has it, and answers to one prompt\n\n\
                 hint: leave `--branches` out";
    refuses(&sandbox, "tests/fixtures/edgefusion", &["--fold", "table", "--branches", "calls"], cause);
    let cause = "`--branches` is for a guidance scale above 1, and the scale is 1: there is one answer alone\n\n\
                 hint: name a scale with `--guidance`, or leave `--branches` out";
    refuses(&sandbox, "tests/fixtures/sd15", &["--fold", "table", "--branches", "batch"], cause);
    let expected = "error: invalid value 'much' for '--guidance <W>': expected a number, or `input`\n\n\
                    For more information, try '--help'.\n";
    let args = ["convert", "tests/fixtures/sd15", "-o", "out", "--fold", "table", "--guidance", "much"];
    sandbox.refuses(&args, expected);
}

#[test]
fn options_that_do_not_go_together() {
    let sandbox = Sandbox::new();
    for (option, value) in [("--steps", "2"), ("--guidance", "2"), ("--image", "nhwc"), ("--scheduler-step", "host")] {
        let cause = format!(
            "`{option}` says how to fold the sampler, and nothing is to be folded\n\n\
             hint: add `--fold table`, `per-step`, `unrolled` or `pipeline`"
        );
        refuses(&sandbox, "tests/fixtures/sd15", &[option, value], &cause);
    }
    let cause = "`--scheduler-step host` leaves the steps to the caller, but all of them are to be in one graph\n\n\
                 hint: name `--fold table` or `--fold per-step`";
    refuses(&sandbox, "tests/fixtures/sd15", &["--fold", "unrolled", "--scheduler-step", "host"], cause);
    let cause = "`--decoder` says how `--fold pipeline` ends; in other forms every decoder is there, and `run` chooses";
    refuses(&sandbox, "tests/fixtures/sd15", &["--fold", "table", "--decoder", "vae"], cause);
    sandbox.copy("sd15", "large");
    fs::remove_dir_all(sandbox.path("large/taesd")).unwrap();
    let cause = "`large` has no tiny decoder\n\n\
                 hint: put an AutoencoderTiny into a folder `taesd` of the checkpoint, or leave `--decoder` out";
    refuses(&sandbox, "large", &["--fold", "pipeline", "--decoder", "taesd"], cause);
}

#[test]
fn runs_that_contradict_what_is_folded() {
    let sandbox = Sandbox::new();
    let refused = |model: &str, args: &[&str], cause: &str| {
        let expected = format!("error: cannot run `{model}`\n  caused by: `{model}` {cause}\n");
        sandbox.refuses(&[&["run", model, "--prompt", PROMPT, "-o", "p.png"], args].concat(), &expected);
    };
    let again = |option: &str| {
        format!("leave `{}` out, or convert the checkpoint again with `{option}`", &option[..option.find(' ').unwrap()])
    };
    fold(&sandbox, "edgefusion", "per-step", &[]);
    let cause = format!("has 2 steps folded in, not 4\n\nhint: {}", again("--steps 4"));
    refused("folded", &["--steps", "4"], &cause);
    let cause = format!("has the guidance scale 8 folded in, not 7.5\n\nhint: {}", again("--guidance 7.5"));
    refused("folded", &["--guidance", "7.5"], &cause);
    let cause = "has its scheduler folded in: `--scheduler` changes nothing\n\nhint: leave `--scheduler` out";
    refused("folded", &["--scheduler", "lcm"], cause);
    fold(&sandbox, "sd15", "pipeline", &[]);
    let cause = format!("was folded without guidance, and cannot be guided by 2\n\nhint: {}", again("--guidance 2"));
    refused("folded", &["--guidance", "2"], &cause);
    let cause =
        format!("is one graph with its decoder in it: `--decoder` cannot choose\n\nhint: {}", again("--decoder taesd"));
    refused("folded", &["--decoder", "taesd"], &cause);
}

#[test]
fn prompts_that_have_no_use_are_said() {
    let sandbox = Sandbox::new();
    fold(&sandbox, "sd15", "table", &[]);
    let ran = sandbox.ok(&["run", "folded", "--prompt", PROMPT, "--negative-prompt", "rain", "-o", "p.png"]);
    let said =
        "warning: the model was folded without guidance: the negative prompt is not used\ndrew `p.png`, 64x64 pixels\n";
    assert_eq!(ran.stderr, said);
}

#[test]
fn a_folded_model_is_described() {
    let sandbox = Sandbox::new();
    fold(&sandbox, "edgefusion", "per-step", &["--guidance", "7.5"]);
    let ran = sandbox.ok(&["run", "folded", "--prompt", PROMPT, "--steps", "2", "--guidance", "7.5", "-o", "p.png"]);
    assert_eq!(ran.stderr, "drew `p.png`, 96x96 pixels\n");
    let texts = read_png(&sandbox.path("p.png")).texts;
    assert_eq!([texts["steps"].as_str(), texts["guidance"].as_str()], ["2", "7.5"]);
    let mut files: Vec<_> = sandbox.tree("folded").into_keys().filter(|name| name.starts_with("unet/")).collect();
    files.sort();
    assert_eq!(files, ["unet/model.onnx_data", "unet/step_0.onnx", "unet/step_1.onnx"]);
}
