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
fn guidance_strengthens_the_prompt() {
    let sandbox = Sandbox::new();
    let draw = |prompt: &str, guidance: &str| {
        let args = ["run", MODEL, "--prompt", prompt, "--guidance", guidance, "--quiet", "-o", "p.png"];
        sandbox.ok(&args);
        read_png(&sandbox.path("p.png")).rgb
    };
    let (red, blue) = ("a red circle on a white background", "a blue circle on a white background");
    let (one, other) = (draw(red, "8"), draw(blue, "8"));
    assert_ne!(one, other, "two prompts with one seed give the same picture");
    assert_ne!(draw(red, "3"), draw(red, "13"), "the guidance scale has no effect");
}
