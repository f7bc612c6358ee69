//! `edgetool verify` with the recipe of `recipes/shapes.yaml`: the quantized model passes, planted faults do not; what-ifs,
//! bundles, and what is kept of the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ran, Sandbox};
use edge_ir::onnx::{WeightMode, WriteOptions};
use edge_ir::{DType, Data, Graph, TensorType, ValueId};
use edge_spec::{Report, Verdict};
use serde_json::json;

const MODEL: &str = "recipes/shapes/model";
const PROMPTS: &str = "recipes/shapes/prompts/calibration.txt";

/// Of `float`, `w8a16` is made, once for all that is asked of it.
#[test]
fn a_quantized_model_is_held_to_its_recipe() {
    let sandbox = Sandbox::new();
    quantized(&sandbox, "w8a16", &["-n", "64"]);
    it_passes(&sandbox);
    faults_do_not(&sandbox, "w8a16");
    layers_in_float_gain(&sandbox);
}

#[test]
fn coarser_models_are_held_to_it_as_well() {
    let sandbox = Sandbox::new();
    // 8 bits take their ranges from what comes most; 16 take them from the extremes, of which more prompts have more.
    for (scheme, number) in [("w8a8", "16"), ("w4a16", "64")] {
        quantized(&sandbox, scheme, &["-n", number]);
        let ran = verify(&sandbox, scheme, &["--against", "float"]);
        assert_eq!(ran.code, Some(0), "{scheme}\n{}{}", ran.stdout, ran.stderr);
        faults_do_not(&sandbox, scheme);
    }
}

/// Makes `float`, and of it a folder with the scheme's name.
fn quantized(sandbox: &Sandbox, scheme: &str, options: &[&str]) {
    sandbox.convert(MODEL, "float", &["--target", "qnn", "--fold", "per-step", "--force"]);
    let args = ["quantize", "float", "-o", scheme, "--precision", scheme, "-c", PROMPTS];
    sandbox.ok(&[&args, options].concat());
}

fn verify(sandbox: &Sandbox, model: &str, options: &[&str]) -> Ran {
    let few: &[&str] = if options.contains(&"--limit") { &[] } else { &["--limit", "4"] };
    let recipe = ["verify", model, "--recipe", "recipes/shapes.yaml", "--quiet"];
    sandbox.run(&[&recipe, few, options].concat())
}

fn report(sandbox: &Sandbox, folder: &str) -> Report {
    Report::read(&sandbox.path(format!("{folder}/report.json"))).expect("a report")
}

/// A fault, and what must be named.
struct Fault {
    name: &'static str,
    plant: fn(&Sandbox),
    /// The schemes that it is planted in.
    schemes: &'static [&'static str],
    component: &'static str,
    module: Option<&'static str>,
}

const ALL: &[&str] = &["w8a16", "w8a8", "w4a16"];
const FINE: &[&str] = &["w8a16"];

const FAULTS: &[Fault] = &[
    Fault {
        name: "one weight has the wrong sign",
        plant: |s| unets(s, |g| weights(g, "conv_in_weight", flip_largest)),
        schemes: FINE,
        component: "unet",
        module: Some("conv_in"),
    },
    Fault {
        name: "one bias is zero",
        plant: |s| unets(s, |g| weights(g, "conv_in_bias_corrected", |bytes| bytes.fill(0))),
        schemes: ALL,
        component: "unet",
        module: Some("conv_in"),
    },
    Fault {
        name: "queries and keys are exchanged",
        plant: |s| unets(s, exchange_queries_and_keys),
        schemes: ALL,
        component: "unet",
        module: Some("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
    },
    Fault {
        name: "a weight's scales are twice what they are",
        plant: |s| unets(s, |g| scale(g, "up_blocks_2_resnets_0_conv2_weight_scale", |_, v| v * 2.0)),
        schemes: ALL,
        component: "unet",
        module: Some("up_blocks.2.resnets.0.conv2"),
    },
    Fault {
        name: "one channel's scale is twice what it is",
        plant: |s| unets(s, |g| scale(g, "conv_out_weight_scale", |i, v| if i == 0 { v * 2.0 } else { v })),
        schemes: FINE,
        component: "unet",
        module: Some("conv_out"),
    },
    Fault {
        name: "the scheduler's constants are those of another step",
        plant: |s| {
            let other = edge_ir::onnx::read(&s.path("model/unet/step_1.onnx")).unwrap().into_inner();
            step(s, 0, |g| {
                for part in ["q", "scale", "zero_point"] {
                    for name in [format!("scheduler_next_part_factor_{part}"), format!("scheduler_next_factor_{part}")]
                    {
                        let there = initializer(&other, &name);
                        let here = initializer(g, &name);
                        g.value_mut(here).data.clone_from(&other.value(there).data);
                    }
                }
            });
        },
        schemes: FINE,
        component: "scheduler",
        module: None,
    },
    Fault {
        name: "a term of the scheduler's step has the wrong sign",
        plant: |s| {
            unets(s, |g| {
                let node = g.nodes.iter_mut().find(|node| node.name == "scheduler/Sub.next").expect("the node");
                node.inputs.swap(0, 1);
            });
        },
        schemes: ALL,
        component: "scheduler",
        module: None,
    },
    Fault {
        name: "w is embedded, not w - 1",
        plant: |s| {
            requantized(s, MODEL, &["--guidance", "9"]);
            s.edit_json("model/edgetool.json", |m| m["fold"]["guidance"]["scale"] = json!(8.0));
        },
        schemes: FINE,
        component: "unet",
        module: None,
    },
    Fault {
        name: "the timestep's sinusoids stand in the wrong order",
        plant: |s| {
            copy(&s.path(MODEL), &s.path("other"));
            s.edit_json("other/unet/config.json", |m| {
                assert_eq!(m["flip_sin_to_cos"], json!(true));
                m.insert("flip_sin_to_cos".into(), json!(false));
            });
            requantized(s, "other", &[]);
        },
        schemes: FINE,
        component: "unet",
        module: Some("down_blocks.0.resnets.0.conv1"),
    },
    Fault {
        name: "prompts are padded with token 0",
        plant: |s| s.edit_json("model/tokenizer/tokenizer_config.json", |m| m["pad_token"] = json!("!")),
        schemes: FINE,
        component: "tokenizer",
        module: None,
    },
    Fault {
        name: "the latent is scaled twice",
        plant: |s| {
            edit(&s.path("model/vae_decoder/model.onnx"), |g| {
                scale(g, "post_quant_conv_weight_Cast_folded", |_, v| v / 0.18215);
            });
        },
        schemes: FINE,
        component: "vae_decoder",
        module: Some("post_quant_conv"),
    },
    Fault {
        name: "an activation's range is cut",
        // With its headroom a range is one and a half times what was seen: 0.4 of that is left.
        plant: |s| unets(s, |g| scale(g, "conv_in_scale", |_, v| v * 0.27)),
        schemes: ALL,
        component: "unet",
        module: None,
    },
    Fault {
        name: "the prompt is ignored",
        plant: |s| unets(s, |g| weights(g, "attn2_to_v_weight", |bytes| bytes.fill(0))),
        schemes: ALL,
        component: "unet",
        module: None,
    },
];

fn it_passes(sandbox: &Sandbox) {
    let ran = verify(sandbox, "w8a16", &["--bisect", "--against", "float"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let healthy = report(sandbox, "w8a16");
    assert_eq!((healthy.verdict, healthy.precision.as_str()), (Verdict::Pass, "w8a16"));
    let limited = healthy.checks.iter().filter(|check| check.reason.starts_with("Measured"));
    assert!(limited.count() >= 6, "{:#?}", healthy.checks);
    assert_eq!(healthy.profile.expect("layers").histograms.len(), 12);
    assert!(healthy.ranges.iter().any(|range| range.used > 0.5 && range.step == Some(2)));
}

fn faults_do_not(sandbox: &Sandbox, scheme: &str) {
    for Fault { name, plant, schemes, component, module } in FAULTS {
        if !schemes.contains(&scheme) {
            continue;
        }
        let _ = fs::remove_dir_all(sandbox.path("model"));
        copy(&sandbox.path(scheme), &sandbox.path("model"));
        plant(sandbox);
        let ran = verify(sandbox, "model", &["--bisect", "--against", "float", "--limit", "2"]);
        assert_eq!(ran.code, Some(1), "{scheme}: {name}\n{}{}", ran.stdout, ran.stderr);
        let found = report(sandbox, "model");
        assert_eq!(found.component.as_deref(), Some(*component), "{scheme}: {name}\n{}", ran.stdout);
        let culprit = found.profile.expect("layers").culprit;
        let culprit = culprit.as_ref().map(|layer| layer.node.split('/').next().unwrap());
        if module.is_some() {
            assert_eq!(culprit, *module, "{scheme}: {name}\n{}", ran.stdout);
        }
    }
}

fn layers_in_float_gain(sandbox: &Sandbox) {
    let against = |reference: &str, float: &[&str]| {
        let options = [&["--against", reference, "--report", "out", "--force"], float].concat();
        (verify(sandbox, "w8a16", &options), float.len() / 2)
    };
    // The float folder has the same nodes; the checkpoint has the same weights in other shapes.
    for (reference, float) in
        [("float", &["--float", "conv_out", "--float", "Conv, MatMul,conv_out"][..]), (MODEL, &["--float", "conv_out"])]
    {
        let (ran, count) = against(reference, float);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        let found = report(sandbox, "out").what_if;
        assert_eq!(found.len(), count);
        let gain = |index: usize| {
            let gains = &found[index].checks;
            let gain = gains.iter().find(|gain| gain.name == "unet_output_sqnr_db").expect("the check");
            gain.after - gain.before
        };
        assert!(gain(0) > 0.5 && gain(count - 1) >= gain(0), "{found:#?}");
        assert!(ran.stdout.contains("with conv_out in float (3 nodes): unet_output_sqnr_db 1 "), "{}", ran.stdout);
    }
    let (ran, _) = against("float", &["--float", "conv_inn"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`--float conv_inn`: the candidate has no module and no operator"), "{}", ran.stderr);
}

#[test]
fn a_bundle_is_checked_before_it_is_played() {
    let sandbox = Sandbox::new();
    sandbox.convert(MODEL, "float", &["--target", "onnxruntime"]);
    let ran = sandbox.run(&["verify", "float", "--against", MODEL, "--quiet"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    sandbox.ok(&["package", "float", "--target", "onnxruntime", "-o", "b.zip", "--prompt", "a red ring", "--quiet"]);
    let ran = verify(&sandbox, "b.zip", &["--against", MODEL, "--report", "out"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let found = report(&sandbox, "out");
    let paths: Vec<_> = found.measured.iter().map(|m| m.path.as_str()).collect();
    assert!(paths.contains(&"b.zip") && paths.contains(&"model/unet/model.onnx"), "{paths:?}");
    // A bundle is a reference as well.
    assert_eq!(verify(&sandbox, "float", &["--against", "b.zip"]).code, Some(0));

    let whole = fs::read(sandbox.path("b.zip")).unwrap();
    let mut damaged = whole.clone();
    let at = damaged.windows(10).position(|w| w == b"pytorch.or").unwrap_or(damaged.len() / 2);
    damaged[at] ^= 1;
    fs::write(sandbox.path("b.zip"), &damaged).unwrap();
    let ran = verify(&sandbox, "b.zip", &["--against", MODEL]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("`b.zip` is damaged:\n  `"), "{}", ran.stderr);
    fs::write(sandbox.path("b.zip"), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(verify(&sandbox, "b.zip", &["--against", MODEL]).code, Some(1));

    fs::write(sandbox.path("b.zip"), &whole).unwrap();
    repack(&sandbox, |report| report.measured[0].sha256 = "0".repeat(64));
    let ran = verify(&sandbox, "other.zip", &["--against", MODEL]);
    let expected = "`other.zip`: the report in it measured `model/";
    assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{}", ran.stderr);
    repack(&sandbox, |report| report.verdict = Verdict::Fail);
    let ran = verify(&sandbox, "other.zip", &["--against", MODEL]);
    assert!(ran.code == Some(1) && ran.stderr.contains("says that the model failed"), "{}", ran.stderr);
}

/// Makes `other.zip` of `b.zip` with another report, all sums right.
fn repack(sandbox: &Sandbox, change: impl FnOnce(&mut Report)) {
    use edge_spec::bundle::{Bundle, Content, Contents};
    let bundle = Bundle::open(&sandbox.path("b.zip")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    bundle.extract(folder.path(), &|_| true).unwrap();
    let mut manifest = bundle.manifest().clone();
    let path = folder.path().join(&manifest.report);
    let mut report = Report::read(&path).unwrap();
    change(&mut report);
    fs::write(&path, report.text()).unwrap();
    let files = std::mem::take(&mut manifest.files);
    let contents: Contents =
        files.iter().map(|file| (file.path.clone(), Content::File(folder.path().join(&file.path)))).collect();
    let measures = edge_spec::bundle::list(&mut manifest, &contents, &std::collections::BTreeMap::new()).unwrap();
    edge_spec::bundle::write(&sandbox.path("other.zip"), &manifest, None, &contents, &measures).unwrap();
}

#[test]
fn what_the_reference_made_is_kept() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/edgefusion", "model", &["--fold", "table"]);
    let entries = || -> Vec<PathBuf> {
        let files = fs::read_dir(sandbox.cache().join("edgetool/verify"));
        let mut found: Vec<_> = files.into_iter().flatten().map(|file| file.unwrap().path()).collect();
        found.sort();
        found
    };
    let run = |options: &[&str]| {
        let args = ["verify", "model", "--against", "tests/fixtures/edgefusion", "--bisect", "--format", "json"];
        sandbox.run(&[&args, options].concat())
    };
    let fresh = run(&["--no-cache"]);
    assert_eq!((fresh.code, entries()), (Some(0), vec![]), "{}", fresh.stderr);
    assert_eq!(run(&[]).stdout, fresh.stdout);
    let kept = entries();
    assert_eq!(kept.len(), 2);
    assert_eq!(run(&[]).stdout, fresh.stdout);
    assert_eq!(entries(), kept);
    // Other prompts are others.
    assert_eq!(run(&["--limit", "2"]).code, Some(0));
    assert_eq!(entries().len(), 4);

    // A damaged entry is none: it is computed again.
    let whole = fs::read(&kept[0]).unwrap();
    for damage in [&whole[..whole.len() / 2], &[&whole[..whole.len() - 1], &[whole[whole.len() - 1] ^ 1]].concat()] {
        fs::write(&kept[0], damage).unwrap();
        let again = run(&[]);
        assert_eq!((again.code, &again.stdout), (Some(0), &fresh.stdout), "{}", again.stderr);
        assert_eq!(fs::read(&kept[0]).unwrap(), whole);
    }

    // What is whole is used: a reference of other numbers is told from the candidate.
    for entry in &kept {
        let mut tensors = common::tensors::read(entry);
        let Some(latent) = tensors.get_mut("0.latent.0") else { continue };
        latent.bytes[2] ^= 0x40;
        fs::remove_file(entry).unwrap();
        let scratch = sandbox.path("entry");
        common::tensors::write(&scratch, &tensors);
        let sum = edge_spec::sha256(fs::read(&scratch).unwrap().as_slice()).unwrap();
        let name = entry.file_name().unwrap().to_str().unwrap();
        let (key, _) = name.split_once('-').unwrap();
        fs::rename(&scratch, entry.with_file_name(format!("{key}-{sum}.safetensors"))).unwrap();
    }
    assert_eq!(run(&[]).code, Some(1));
    assert_eq!(run(&["--no-cache"]).code, Some(0));
}

#[test]
fn executors_are_found_or_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/edgefusion", "model", &[]);
    fs::write(sandbox.path("libonnxruntime.so"), "no library").unwrap();
    let args = ["verify", "model", "--against", "tests/fixtures/edgefusion", "--executor", "onnxruntime"];
    let ran = sandbox.run(&[&args[..], &["--ort-lib", "libonnxruntime.so"]].concat());
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("libonnxruntime.so` as ONNX Runtime: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: name the library with `--ort-lib`, or `pip install 'onnxruntime>=1.17'`"));
    let output =
        sandbox.command(common::EDGETOOL, &args).env("PATH", "").env_remove("ORT_DYLIB_PATH").output().unwrap();
    let ran = Ran::new(output);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: no ONNX Runtime was found: "), "{}", ran.stderr);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::write(&target, fs::read(&path).unwrap()).unwrap();
        }
    }
}

/// Makes `model` of another conversion.
fn requantized(sandbox: &Sandbox, checkpoint: &str, options: &[&str]) {
    let form = ["--target", "qnn", "--fold", "per-step", "--force"];
    sandbox.convert(checkpoint, "wrong", &[&form, options].concat());
    let nearest = ["--rounding", "nearest", "--repair", "none", "-n", "8", "--force"];
    sandbox.ok(&[&["quantize", "wrong", "-o", "model", "--precision", "w8a16", "-c", PROMPTS], &nearest[..]].concat());
}

/// Changes both UNets in `model` and writes them in place.
fn unets(sandbox: &Sandbox, change: impl Fn(&mut Graph)) {
    step(sandbox, 0, &change);
    step(sandbox, 1, &change);
}

fn step(sandbox: &Sandbox, step: usize, change: impl Fn(&mut Graph)) {
    edit(&sandbox.path(format!("model/unet/step_{step}.onnx")), change);
}

fn edit(file: &Path, change: impl Fn(&mut Graph)) {
    let mut graph = edge_ir::onnx::read(file).unwrap().into_inner();
    change(&mut graph);
    let scratch = tempfile::tempdir().unwrap();
    let options = WriteOptions { opset: 21, weights: WeightMode::Inline };
    edge_ir::onnx::write(&graph.check().unwrap(), scratch.path(), options).unwrap();
    fs::copy(scratch.path().join("model.onnx"), file.with_extension("new")).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

fn initializer(graph: &Graph, name: &str) -> ValueId {
    let found = graph.initializers().find(|(_, v, _)| v.name == name);
    found.unwrap_or_else(|| panic!("no constant `{name}`")).0
}

/// Changes the numbers of this constant; of each, by its index.
fn scale(graph: &mut Graph, name: &str, change: impl Fn(usize, f32) -> f32) {
    let id = initializer(graph, name);
    let data = graph.value(id).data.as_ref().unwrap();
    let numbers: Vec<f32> = data.to_f32s().into_iter().enumerate().map(|(i, v)| change(i, v)).collect();
    graph.value_mut(id).data = Some(Data::f32s(&numbers));
}

/// Changes the integers of all weights whose names end so.
fn weights(graph: &mut Graph, end: &str, change: impl Fn(&mut [u8])) {
    let is_weight =
        |name: &str, ty: &TensorType| name.trim_end_matches("_q").ends_with(end) && ty.dtype != DType::Float32;
    let found: Vec<_> = graph.initializers().filter(|(_, v, _)| is_weight(&v.name, &v.ty)).map(|(id, ..)| id).collect();
    assert!(!found.is_empty(), "no weight `{end}`");
    for id in found {
        let mut bytes = graph.value(id).data.as_ref().unwrap().bytes().to_vec();
        change(&mut bytes);
        graph.value_mut(id).data = Some(Data::owned(bytes));
    }
}

/// Of int8.
fn flip_largest(bytes: &mut [u8]) {
    let largest = bytes.iter_mut().max_by_key(|byte| byte.cast_signed().unsigned_abs()).unwrap();
    *largest = largest.cast_signed().saturating_neg().cast_unsigned();
}

/// With all that belongs to their integers.
fn exchange_queries_and_keys(graph: &mut Graph) {
    let attention = "up_blocks_1_attentions_0_transformer_blocks_0_attn1";
    for part in ["weight_q", "weight_scale", "weight_zero_point"] {
        let [q, k] = ["q", "k"].map(|of| initializer(graph, &format!("{attention}_to_{of}_{part}")));
        let [queries, keys] = [q, k].map(|id| graph.value(id).data.clone());
        graph.value_mut(q).data = keys;
        graph.value_mut(k).data = queries;
    }
}
