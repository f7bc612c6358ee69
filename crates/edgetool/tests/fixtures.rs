//! The committed checkpoints through the program, against what diffusers and transformers make of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use common::pipeline::{
    PIPELINE, Pair, assert_same_picture, assert_within, draw, golden, golden_runs, named, write_noise,
};
use common::tensors::{Tensor, Tensors};
use common::{EDGETOOL, Ran, Sandbox, assert_same_trees, read_png};

/// Relative L2 error of one network: float32 sums in another order than torch's, over some tens of layers.
const NETWORK: f64 = 2e-5;

/// The inputs of a UNet, with the guidance embedding if the golden file has one.
fn unet_inputs(golden: &Tensors, latent: &str, context: &str, timestep: Tensor) -> Tensors {
    let mut inputs = named([
        ("sample", golden[latent].clone()),
        ("timestep", timestep),
        ("encoder_hidden_states", golden[context].clone()),
    ]);
    if let Some(embedding) = golden.get("unet.w_embedding") {
        let images = golden[latent].shape[0];
        let tensor = Tensor {
            dtype: embedding.dtype,
            shape: vec![images, embedding.shape[1]],
            bytes: embedding.bytes.repeat(images),
        };
        inputs.insert("timestep_cond".into(), tensor);
    }
    inputs
}

/// Every network of a converted folder on the golden inputs.
fn evaluated<'a>(sandbox: &Sandbox, folder: &str, golden: &'a Tensors) -> Vec<Pair<'a>> {
    let run = |component: &str, inputs: Tensors| {
        let mut outputs = sandbox.eval(&format!("{folder}/{component}/model.onnx"), &inputs);
        assert_eq!(outputs.len(), 1);
        outputs.pop_first().unwrap().1
    };
    let mut pairs = Vec::new();
    let mut hidden = golden["text.hidden"].clone();
    hidden.bytes = (0..hidden.shape[0])
        .flat_map(|i| run("text_encoder", named([("input_ids", golden["text.ids"].row(i))])).bytes)
        .collect();
    pairs.push(("text.hidden", hidden, &golden["text.hidden"]));
    for (name, expected) in golden {
        if let Some(timestep) = name.strip_prefix("unet.out.") {
            let timestep = Tensor::i64s(&[1], &[timestep.parse().unwrap()]);
            let inputs = unet_inputs(golden, "unet.latent", "unet.context", timestep);
            pairs.push((name, run("unet", inputs), expected));
        }
    }
    for (component, input, from, to) in [
        ("vae_decoder", "latent_sample", "vae.decode_input", "vae.image"),
        ("taesd_decoder", "latent_sample", "vae.latent", "taesd.image"),
        ("vae_encoder", "sample", "vae_encoder.sample", "vae_encoder.latent_parameters"),
    ] {
        pairs.push((to, run(component, named([(input, golden[from].clone())])), &golden[to]));
    }
    pairs
}

macro_rules! on_every_fixture {
    ($($check:ident),* $(,)?) => {
        mod edgefusion { $(#[test] fn $check() { super::$check("edgefusion"); })* }
        mod sd15 { $(#[test] fn $check() { super::$check("sd15"); })* }
        mod sd2 { $(#[test] fn $check() { super::$check("sd2"); })* }
    };
}

on_every_fixture!(
    networks_agree_with_diffusers,
    pipelines_agree_with_diffusers,
    other_sizes_and_batches_agree_with_diffusers,
    the_form_of_the_model_does_not_matter,
    conversion_is_deterministic,
    threads_do_not_matter,
    the_tiny_decoder_draws,
);

fn networks_agree_with_diffusers(fixture: &str) {
    let (sandbox, golden) = (Sandbox::new(), golden(fixture));
    let ran = sandbox.convert(&format!("tests/fixtures/{fixture}"), "onnx", &[]);
    assert_eq!(ran.stdout, "");
    let pairs = evaluated(&sandbox, "onnx", &golden);
    assert_eq!(pairs.len(), 6);
    assert_within(NETWORK, &pairs);
}

fn pipelines_agree_with_diffusers(fixture: &str) {
    let (sandbox, golden) = (Sandbox::new(), golden(fixture));
    let checkpoint = format!("tests/fixtures/{fixture}");
    sandbox.convert(&checkpoint, "onnx", &[]);
    write_noise(&sandbox, &golden);
    for (steps, guidance) in golden_runs(&golden) {
        let options = ["--latents", "noise.safetensors", "--steps", steps, "--guidance", guidance];
        let (found, png) = draw(&sandbox, "onnx", &options);
        assert_eq!(found["ids"], golden["pipe.ids"]);
        for name in ["model_output", "prev_sample", "denoised", "decoded"] {
            let key = format!("pipe.s{steps}.g{guidance}.{name}");
            if let Some(expected) = golden.get(&key) {
                assert_within(PIPELINE, &[(&key, found[name].clone(), expected)]);
            }
        }
        if let Some(expected) = golden.get(&format!("pipe.s{steps}.g{guidance}.image_u8")) {
            assert_same_picture(&sandbox, expected);
        }
        assert_eq!(draw(&sandbox, &checkpoint, &options), (found, png), "{steps} steps from the checkpoint itself");
    }
}

fn other_sizes_and_batches_agree_with_diffusers(fixture: &str) {
    let (sandbox, golden) = (Sandbox::new(), golden(fixture));
    let checkpoint = format!("tests/fixtures/{fixture}");
    let pixels = |key: &str, axis: usize| (golden[key].shape[axis] * 8).to_string();

    let (height, width) = (pixels("unet_wide.latent", 2), pixels("unet_wide.latent", 3));
    let wide = ["--height", &height, "--width", &width, "--batch", "2", "--timestep", "per-image"];
    sandbox.convert(&checkpoint, "wide", &wide);
    let timestep = golden["unet_wide.timestep"].clone();
    let inputs = unet_inputs(&golden, "unet_wide.latent", "unet_wide.context", timestep);
    let found = sandbox.eval("wide/unet/model.onnx", &inputs)["out_sample"].clone();
    assert_within(NETWORK, &[("unet_wide.out", found, &golden["unet_wide.out"])]);
    draw(&sandbox, "wide", &["--steps", "1"]);
    let pictures = ["p.png", "p-2.png"].map(|name| read_png(&sandbox.path(name)));
    for png in &pictures {
        assert_eq!((png.height.to_string(), png.width.to_string()), (height.clone(), width.clone()));
    }
    assert_ne!(pictures[0].rgb, pictures[1].rgb, "each picture has its own noise");

    let (height, width) = (pixels("unet_odd.latent", 2), pixels("unet_odd.latent", 3));
    sandbox.convert(&checkpoint, "odd", &["--height", &height, "--width", &width]);
    let inputs = unet_inputs(&golden, "unet_odd.latent", "unet.context", Tensor::i64s(&[1], &[499]));
    let found = sandbox.eval("odd/unet/model.onnx", &inputs)["out_sample"].clone();
    assert_within(NETWORK, &[("unet_odd.out", found, &golden["unet_odd.out"])]);
    let size = format!("{height}x{width}");
    assert_eq!(draw(&sandbox, &checkpoint, &["--size", &size]), draw(&sandbox, "odd", &[]));
}

fn the_form_of_the_model_does_not_matter(fixture: &str) {
    let sandbox = Sandbox::new();
    // Links work within a file system only.
    sandbox.copy(fixture, "checkpoint");
    sandbox.convert("checkpoint", "copied", &[]);
    let expected = draw(&sandbox, "copied", &[]);
    for (index, options) in [
        &["--weights", "link"][..],
        &["--weights", "inline"],
        &["--dtype", "float32"],
        &["--dtype", "float32", "--weights", "inline"],
        &["--dtype", "float32", "--weights", "link"],
        &["--opset", "21"],
    ]
    .into_iter()
    .enumerate()
    {
        let folder = format!("other-{index}");
        let said = sandbox.convert("checkpoint", &folder, options).stderr;
        let cannot_link = options.contains(&"link") && options.contains(&"float32");
        assert_eq!(said.contains("warning: the weights cannot be linked"), cannot_link, "{said}");
        assert_eq!(draw(&sandbox, &folder, &[]), expected, "{options:?}");
    }
    let external = |folder: &str| sandbox.path(format!("{folder}/unet/model.onnx_data")).exists();
    assert_eq!([external("copied"), external("other-0"), external("other-1")], [true, false, false]);
}

fn conversion_is_deterministic(fixture: &str) {
    let sandbox = Sandbox::new();
    sandbox.copy(fixture, "checkpoint");
    for weights in ["copy", "link", "inline"] {
        let convert = |threads: &str| {
            let to = format!("{weights}-{threads}");
            let args = ["convert", "checkpoint", "-o", &to, "--weights", weights];
            let output = sandbox.command(EDGETOOL, &args).env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert_eq!(Ran::new(output).code, Some(0));
            sandbox.tree(&to)
        };
        let one = convert("1");
        assert_same_trees(&one, &convert("2"));
        sandbox.convert("checkpoint", "again", &["--weights", weights, "--force"]);
        assert_same_trees(&one, &sandbox.tree("again"));
    }
}

fn threads_do_not_matter(fixture: &str) {
    let sandbox = Sandbox::new();
    let checkpoint = format!("tests/fixtures/{fixture}");
    let one = draw(&sandbox, &checkpoint, &["--threads", "1"]);
    let two = draw(&sandbox, &checkpoint, &["--threads", "2"]);
    assert!(one == two, "the picture or a tensor depends on the number of threads");
}

fn the_tiny_decoder_draws(fixture: &str) {
    let sandbox = Sandbox::new();
    let checkpoint = format!("tests/fixtures/{fixture}");
    let (full, _) = draw(&sandbox, &checkpoint, &[]);
    let (tiny, _) = draw(&sandbox, &checkpoint, &["--decoder", "taesd"]);
    assert_eq!(tiny["denoised"], full["denoised"]);
    assert_ne!(tiny["decoded"], full["decoded"]);
    assert_eq!(read_png(&sandbox.path("p.png")).texts["decoder"], "taesd_decoder");
}

#[test]
fn an_original_layout_file_is_its_folder() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/sd15", "folder", &[]);
    let single = ["--config", "tests/fixtures/sd15"];
    sandbox.convert("tests/fixtures/sd15/single_file.safetensors", "single", &single);
    assert_same_trees(&sandbox.tree("folder"), &sandbox.tree("single"));
    let from_file = draw(&sandbox, "tests/fixtures/sd15/single_file.safetensors", &single);
    assert!(from_file == draw(&sandbox, "tests/fixtures/sd15", &[]), "the file draws something else");
}

#[test]
fn a_seed_is_a_picture() {
    let sandbox = Sandbox::new();
    let draw = |seed: &str| draw(&sandbox, "tests/fixtures/edgefusion", &["--seed", seed]);
    let seven = draw("7");
    assert!(seven == draw("7"), "the same seed gives another picture");
    let eight = draw("8");
    assert_ne!(seven.0["decoded"], eight.0["decoded"]);
    assert_ne!(seven.1, eight.1);
}

#[test]
fn a_picture_says_how_it_was_made() {
    let sandbox = Sandbox::new();
    let texts = |args: &[&str]| {
        let model = ["run", "tests/fixtures/edgefusion", "-o", "p.png", "--quiet"];
        sandbox.ok(&[&model, args].concat());
        read_png(&sandbox.path("p.png")).texts
    };
    let found = texts(&["--prompt", "a café 🐱", "--seed", "7", "--steps", "3", "--guidance", "7.5"]);
    let expected = [
        ("Software", concat!("edgetool ", env!("CARGO_PKG_VERSION"))),
        ("decoder", "vae_decoder"),
        ("guidance", "7.5"),
        ("prompt", "a café 🐱"),
        ("seed", "7"),
        ("size", "96x96"),
        ("steps", "3"),
    ];
    let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected);
}
