//! The trained model in `recipes/shapes`: it draws what it is asked for, as diffusers does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use common::pipeline::{PIPELINE, assert_same_picture, assert_within};
use common::tensors;
use common::{Sandbox, read_png, shapes};
use serde_json::Value;

const MODEL: &str = "recipes/shapes/model";
const EVALUATE: [&str; 7] = [
    "evaluate",
    MODEL,
    "--prompts",
    "recipes/shapes/prompts/evaluation.txt",
    "--judge",
    "recipes/shapes/judge",
    "--quiet",
];

/// Prompts of a list, each with what it asks for.
fn prompts(name: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let text = fs::read_to_string(shapes().join("prompts").join(name)).unwrap();
    let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
    let line = |line: &str| {
        let (prompt, truth) = line.split_once('\t').unwrap();
        (prompt.to_owned(), truth.split("; ").map(pair).collect())
    };
    text.lines().map(line).collect()
}

fn shares(sandbox: &Sandbox, options: &[&str]) -> BTreeMap<String, f64> {
    let ran = sandbox.ok(&[&EVALUATE, options, &["--format", "json"]].concat());
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    let share = |value: &Value| value["share"].as_f64().unwrap();
    let heads = found["heads"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), share(value)));
    heads.chain([("prompt accuracy".to_owned(), share(&found["prompt_accuracy"]))]).collect()
}

#[test]
fn pictures_show_what_the_prompts_ask_for() {
    let sandbox = Sandbox::new();
    assert_eq!(prompts("evaluation.txt").len(), 200);
    for (steps, accuracy) in [("2", 0.95), ("4", 0.97)] {
        let found = shares(&sandbox, &["--steps", steps]);
        assert!(found["prompt accuracy"] >= accuracy, "{steps} steps: {found:?}");
        assert!(found["background"] >= 0.97, "{steps} steps: {found:?}");
    }
}

#[test]
fn a_wrong_prompt_is_seen() {
    let sandbox = Sandbox::new();
    let wrong = "a red circle on a white background\tshape=star; color=blue; background=white\n";
    fs::write(sandbox.path("wrong.txt"), wrong.repeat(3)).unwrap();
    let mut args = EVALUATE;
    args[3] = "wrong.txt";
    let ran = sandbox.ok(&args);
    let expected = "prompt accuracy     0.0 %      0 of 3  (shape and color)\n\
        shape               0.0 %      0 of 3\n\
        color               0.0 %      0 of 3\n\
        background        100.0 %      3 of 3\n\
        size                0.0 %      0 of 0\n\
        position            0.0 %      0 of 0\n";
    assert_eq!(ran.stdout, expected);
}

#[test]
fn evaluation_prompts_are_held_out() {
    let (calibration, evaluation) = (prompts("calibration.txt"), prompts("evaluation.txt"));
    let texts = |list: &[(String, _)]| list.iter().map(|(text, _)| text.clone()).collect::<BTreeSet<_>>();
    assert!(texts(&calibration).is_disjoint(&texts(&evaluation)));
    let combinations = |list: &[(String, BTreeMap<String, String>)]| {
        let combination = |t: &BTreeMap<String, String>| ["shape", "color", "background"].map(|k| t[k].clone());
        list.iter().map(|(_, truth)| combination(truth)).collect::<BTreeSet<_>>()
    };
    assert!(combinations(&calibration).is_disjoint(&combinations(&evaluation)));
}

#[test]
fn pictures_agree_with_diffusers() {
    let sandbox = Sandbox::new();
    let path = shapes().join("golden.safetensors");
    let golden = tensors::read(&path);
    let bytes = fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let prompts = header.metadata().as_ref().unwrap();
    assert_eq!(prompts.len(), 3);
    for (index, steps) in (0..3).flat_map(|index| [(index, "2"), (index, "4")]) {
        let (prompt, seed) = (prompts[&format!("prompt.{index}")].as_str(), index.to_string());
        let key = |name: &str| format!("{index}.s{steps}.{name}");
        for (decoder, decoded) in [("vae", key("decoded")), ("taesd", key("taesd"))] {
            let args = ["run", MODEL, "--prompt", prompt, "--seed", &seed, "--steps", steps, "--decoder", decoder];
            sandbox.ok(&[&args[..], &["--quiet", "-o", "p.png", "--save-tensors", "p.safetensors"]].concat());
            let found = tensors::read(&sandbox.path("p.safetensors"));
            assert_eq!(found["ids"], golden[&format!("{index}.ids")]);
            let (last, denoised) = (found["denoised"].row(found["denoised"].shape[0] - 1), key("denoised"));
            let pairs = [
                (denoised.as_str(), last, &golden[&denoised]),
                (decoded.as_str(), found["decoded"].clone(), &golden[&decoded]),
            ];
            assert_within(PIPELINE, &pairs);
            if decoder == "vae" {
                assert_same_picture(&sandbox, &golden[&key("image_u8")]);
            }
        }
    }
}

#[test]
fn guidance_raises_the_contrast() {
    let sandbox = Sandbox::new();
    let contrasts = |guidance: &str| {
        let options = ["--limit", "30", "--steps", "2", "--guidance", guidance, "-o", guidance];
        sandbox.ok(&[&EVALUATE[..], &options].concat());
        let picture = |k: usize| contrast(&read_png(&sandbox.path(format!("{guidance}/{k:04}.png"))).rgb);
        (1..=30).map(picture).collect::<Vec<f64>>()
    };
    let (weak, strong) = (contrasts("3"), contrasts("13"));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 30.0;
    assert!(mean(&strong) > mean(&weak) + 0.5, "{weak:?} {strong:?}");
    let risen = weak.iter().zip(&strong).filter(|(weak, strong)| strong > weak).count();
    assert!(risen >= 20, "{risen} of 30 pictures have more contrast: {weak:?} {strong:?}");
}

/// Standard deviation of the values of a picture.
fn contrast(values: &[u8]) -> f64 {
    let number = f64::from(u32::try_from(values.len()).unwrap());
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / number;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / number).sqrt()
}

#[test]
fn two_prompts_with_one_seed_give_two_pictures() {
    let sandbox = Sandbox::new();
    let draw = |prompt: &str| {
        sandbox.ok(&["run", MODEL, "--prompt", prompt, "--quiet", "-o", "p.png"]);
        read_png(&sandbox.path("p.png")).rgb
    };
    let (red, blue) = (draw("a red circle on a white background"), draw("a blue circle on a white background"));
    let apart = red.iter().zip(&blue).filter(|(red, blue)| red.abs_diff(**blue) > 64).count();
    assert!(apart > red.len() / 20, "{apart} of {} values differ", red.len());
}
