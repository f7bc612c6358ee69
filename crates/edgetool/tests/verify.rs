//! `edgetool verify`: healthy models pass in every form, and planted faults are found and named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Ran, Sandbox};
use edge_ir::onnx::{WeightMode, WriteOptions};
use edge_ir::{DType, Data, Graph, ValueId};
use edge_spec::{Report, Verdict};
use half::{bf16, f16};
use serde_json::{Value, json};

const FIXTURES: [(&str, &str); 3] = [("edgefusion", "8"), ("sd15", "1.5"), ("sd2", "1.5")];

fn checkpoint(fixture: &str) -> String {
    format!("tests/fixtures/{fixture}")
}

fn report(sandbox: &Sandbox, folder: &str) -> Report {
    Report::read(&sandbox.path(format!("{folder}/report.json"))).expect("a report")
}

/// Verifies `model` against the checkpoint of a fixture.
fn verify(sandbox: &Sandbox, fixture: &str, options: &[&str]) -> Ran {
    sandbox.run(&[&["verify", "model", "--against", &checkpoint(fixture), "--quiet"], options].concat())
}

#[test]
fn healthy_models_pass_in_every_form() {
    let sandbox = Sandbox::new();
    for (fixture, guidance) in FIXTURES {
        for options in [
            &[][..],
            &["--dtype", "float32", "--opset", "21"],
            &["--fold", "table"],
            &["--fold", "table", "--scheduler-step", "host"],
            &["--fold", "per-step", "--hoist-kv"],
            &["--fold", "unrolled", "--image", "nhwc-u8"],
            &["--fold", "pipeline", "--hoist-kv"],
            &["--target", "qnn", "--dtype", "float32"],
            &["--target", "enn", "--fold", "per-step"],
        ] {
            let folded: &[&str] = if options.contains(&"--fold") { &["--guidance", guidance] } else { &[] };
            sandbox.convert(&checkpoint(fixture), "model", &[options, folded, &["--force"]].concat());
            let ran = verify(&sandbox, fixture, &["--guidance", guidance, "--limit", "2"]);
            assert_eq!(ran.code, Some(0), "{fixture} {options:?}\n{}{}", ran.stdout, ran.stderr);
            let found = report(&sandbox, "model");
            assert_eq!((found.verdict, found.component), (Verdict::Pass, None));
            // What a form does not show is not checked; text encoder, UNet, scheduler and decoder always are.
            assert!(found.checks.len() >= 9, "{fixture} {options:?}: {:#?}", found.checks);
        }
    }
}

/// A fault: how the candidate is converted, what is done to it, what must be named.
struct Fault {
    name: &'static str,
    convert: &'static [&'static str],
    plant: fn(&Sandbox),
    component: &'static str,
    module: Option<&'static str>,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "one weight has the wrong sign",
        convert: &[],
        plant: |s| edit(s, "unet", |g| change(g, "down_blocks_1_resnets_0_conv1_weight", flip_largest)),
        component: "unet",
        module: Some("down_blocks.1.resnets.0.conv1"),
    },
    Fault {
        name: "one weight has the wrong sign, in one step of a folded model for an NPU",
        convert: &["--fold", "unrolled", "--guidance", "8", "--target", "qnn", "--dtype", "float32"],
        plant: |s| edit(s, "sampler", |g| change(g, "up_blocks_1_resnets_0_conv2_weight", flip_largest)),
        component: "unet",
        module: Some("up_blocks.1.resnets.0.conv2"),
    },
    Fault {
        name: "one bias is zero",
        convert: &[],
        plant: |s| {
            edit(s, "text_encoder", |g| change(g, "text_model_encoder_layers_1_mlp_fc1_bias", |w| w.fill(0.0)));
        },
        component: "text_encoder",
        module: Some("text_model.encoder.layers.1.mlp.fc1"),
    },
    Fault {
        name: "queries and keys are exchanged",
        convert: &[],
        plant: |s| {
            edit(s, "unet", |g| {
                let attention = "up_blocks_1_attentions_0_transformer_blocks_0_attn1";
                let [q, k] = ["q", "k"].map(|part| named(g, &format!("{attention}_to_{part}_weight")));
                let [queries, keys] = [q, k].map(|id| g.value(id).data.clone());
                g.value_mut(q).data = keys;
                g.value_mut(k).data = queries;
            });
        },
        component: "unet",
        module: Some("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
    },
    Fault {
        name: "a weight's scale is twice what it is",
        convert: &["--fold", "table", "--guidance", "8"],
        plant: |s| {
            edit(s, "unet", |g| {
                change(g, "up_blocks_0_resnets_0_conv2_weight", |w| w.iter_mut().for_each(|v| *v *= 2.0));
            });
        },
        component: "unet",
        module: Some("up_blocks.0.resnets.0.conv2"),
    },
    Fault {
        name: "the scheduler's constants are those of another step",
        convert: &["--fold", "table", "--guidance", "8", "--scheduler-step", "host"],
        plant: |s| {
            s.convert(
                &checkpoint("edgefusion"),
                "other",
                &["--fold", "table", "--steps", "4", "--scheduler-step", "host"],
            );
            let other: Value = serde_json::from_slice(&fs::read(s.path("other/edgetool.json")).unwrap()).unwrap();
            // Timestep 999 with the noise level of the step after it in a schedule of four.
            s.edit_json("model/edgetool.json", |m| m["fold"]["steps"][0] = other["fold"]["steps"][0].clone());
        },
        component: "scheduler",
        module: None,
    },
    Fault {
        name: "one of the scheduler's constants in the graph is off",
        convert: &["--fold", "pipeline", "--guidance", "8"],
        plant: |s| {
            edit(s, "pipeline", |g| {
                let first = g.initializers().find(|(_, v, _)| v.name.contains("scheduler") && v.ty.dtype.is_float());
                let name = first.expect("a constant").1.name.clone();
                change(g, &name, |w| w.iter_mut().for_each(|v| *v *= 1.02));
            });
        },
        component: "scheduler",
        module: None,
    },
    Fault {
        name: "a term of the scheduler's step has the wrong sign",
        convert: &["--fold", "unrolled", "--guidance", "8"],
        plant: |s| {
            edit(s, "sampler", |g| {
                let node = g.nodes.iter_mut().find(|n| n.name == "steps.0.scheduler/Sub.next").expect("the node");
                node.inputs.swap(0, 1);
            });
        },
        component: "scheduler",
        module: None,
    },
    Fault {
        name: "w is embedded, not w - 1",
        convert: &["--fold", "per-step", "--guidance", "9"],
        plant: |s| s.edit_json("model/edgetool.json", |m| m["fold"]["guidance"]["scale"] = json!(8.0)),
        component: "unet",
        module: None,
    },
    Fault {
        name: "the timestep's sinusoids stand in the wrong order",
        convert: &[],
        plant: |s| {
            edit(s, "unet", |g| {
                let node = g.nodes.iter_mut().find(|n| n.name == "time_proj/Concat").expect("the node");
                node.inputs.swap(0, 1);
            });
        },
        component: "unet",
        module: Some("time_proj"),
    },
    Fault {
        name: "prompts are padded with token 0",
        convert: &[],
        plant: |s| {
            for file in ["tokenizer_config.json", "special_tokens_map.json"] {
                s.edit_json(&format!("model/tokenizer/{file}"), |m| m["pad_token"] = json!("!"));
            }
        },
        component: "tokenizer",
        module: None,
    },
    Fault {
        name: "the latent is scaled twice",
        convert: &[],
        plant: |s| {
            s.edit_json("model/edgetool.json", |m| {
                let factor = m["pipeline"]["vae_scaling_factor"].as_f64().unwrap();
                m["pipeline"]["vae_scaling_factor"] = json!(factor * factor);
            });
        },
        component: "vae_decoder",
        module: None,
    },
    Fault {
        name: "the latent is scaled twice, in the graph",
        convert: &["--fold", "unrolled", "--guidance", "8"],
        plant: |s| {
            edit(s, "vae_decoder", |g| {
                change(g, "post_quant_conv_weight_Cast_folded", |w| w.iter_mut().for_each(|v| *v /= 0.18215));
            });
        },
        component: "vae_decoder",
        module: Some("post_quant_conv"),
    },
    Fault {
        name: "an activation's uint16 range ends at the 90th percentile",
        convert: &[],
        plant: |s| {
            let values = activation(s);
            s.convert(&checkpoint("edgefusion"), "model", &["--force"]);
            edit(s, "unet", |g| *g = quantized(std::mem::take(g), [values[0], values[values.len() * 9 / 10]]));
        },
        component: "unet",
        module: None,
    },
    Fault {
        name: "the prompt is ignored",
        convert: &[],
        plant: |s| {
            edit(s, "unet", |g| {
                let values = g.initializers().filter(|(_, v, _)| v.name.ends_with("attn2_to_v_weight"));
                let names: Vec<_> = values.map(|(_, v, _)| v.name.clone()).collect();
                assert!(!names.is_empty());
                for name in &names {
                    change(g, name, |w| w.fill(0.0));
                }
            });
        },
        component: "unet",
        module: Some("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"),
    },
];

#[test]
fn planted_faults_are_found_and_named() {
    let sandbox = Sandbox::new();
    for Fault { name, convert, plant, component, module } in FAULTS {
        sandbox.convert(&checkpoint("edgefusion"), "model", &[convert, &["--force"][..]].concat());
        plant(&sandbox);
        let ran = verify(&sandbox, "edgefusion", &["--limit", "2", "--bisect"]);
        assert_eq!(ran.code, Some(1), "{name}\n{}{}", ran.stdout, ran.stderr);
        let found = report(&sandbox, "model");
        assert_eq!(found.verdict, Verdict::Fail, "{name}");
        assert_eq!(found.component.as_deref(), Some(*component), "{name}\n{}", ran.stdout);
        let culprit = found.profile.expect("layers").culprit;
        let culprit = culprit.as_ref().map(|layer| layer.node.split('/').next().unwrap());
        if module.is_some() {
            assert_eq!(culprit, *module, "{name}\n{}", ran.stdout);
        }
        assert!(ran.stderr.starts_with(&format!("error: {component}: ")), "{name}\n{}", ran.stderr);
    }
}

#[test]
fn a_prompt_that_is_ignored_has_no_conditioning() {
    let sandbox = Sandbox::new();
    sandbox.convert(&checkpoint("edgefusion"), "model", &[]);
    let ignored = FAULTS.iter().find(|fault| fault.name == "the prompt is ignored").unwrap();
    (ignored.plant)(&sandbox);
    assert_eq!(verify(&sandbox, "edgefusion", &[]).code, Some(1));
    let check = report(&sandbox, "model").checks.into_iter().find(|c| c.name == "conditioning_deviation").unwrap();
    assert_eq!((check.value, check.verdict), (1.0, Verdict::Fail));
}

/// An activation in 16 bits passes with its whole range, and not with one that ends where a tenth of it begins.
#[test]
fn a_range_that_was_cut_is_found() {
    let sandbox = Sandbox::new();
    let values = activation(&sandbox);
    let (low, high) = (values[0], values[values.len() - 1]);
    let margin = high - low;
    for (range, code) in [([low - margin, high + margin], 0), ([low, values[values.len() * 9 / 10]], 1)] {
        sandbox.convert(&checkpoint("edgefusion"), "model", &["--force"]);
        edit(&sandbox, "unet", |g| *g = quantized(std::mem::take(g), range));
        let ran = verify(&sandbox, "edgefusion", &["--limit", "2"]);
        assert_eq!(ran.code, Some(code), "{range:?}\n{}{}", ran.stdout, ran.stderr);
        let found = report(&sandbox, "model");
        assert_eq!(found.precision, "w8a16");
        assert_eq!(found.component.as_deref(), (code == 1).then_some("unet"));
        let check = found.checks.iter().find(|check| check.name == "saturated_share").expect("the check");
        assert_eq!((check.verdict == Verdict::Fail, check.component.as_str()), (code == 1, "unet"), "{check:?}");
    }
}

/// What `conv_out` of the UNet reads on golden inputs, the least first.
fn activation(sandbox: &Sandbox) -> Vec<f32> {
    sandbox.convert(&checkpoint("edgefusion"), "model", &["--force"]);
    edit(sandbox, "unet", |g| {
        let read = g.nodes[last(g)].outputs[0];
        g.outputs = vec![read];
    });
    let golden = common::pipeline::golden("edgefusion");
    let inputs = [
        ("sample", golden["unet.latent"].clone()),
        ("timestep", common::tensors::Tensor::i64s(&[1], &[999])),
        ("timestep_cond", golden["unet.w_embedding"].clone()),
        ("encoder_hidden_states", golden["unet.context"].clone()),
    ];
    let mut outputs = sandbox.eval("model/unet/model.onnx", &common::pipeline::named(inputs));
    let mut values = outputs.pop_first().expect("an output").1.numbers();
    values.sort_by(f32::total_cmp);
    values
}

/// The node whose output `conv_out` reads.
fn last(graph: &Graph) -> usize {
    let read = graph.nodes.iter().find(|n| n.name == "conv_out").expect("the last layer").inputs[0].expect("an input");
    graph.nodes.iter().position(|n| n.outputs.contains(&read)).expect("its maker")
}

/// The same with that output in uint16 of this range.
fn quantized(graph: Graph, [low, high]: [f32; 2]) -> Graph {
    let (at, scale) = (last(&graph), (high - low) / 65_535.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 16 bits")]
    let zero = (-low / scale).round() as u16;
    let done = edge_ir::rewrite(graph, 1, &mut |view, index, b| {
        let node = &view.graph.nodes[index];
        if index != at {
            return Ok(None);
        }
        let attributes: Vec<_> = node.attributes.iter().map(|(name, value)| (*name, value.clone())).collect();
        let y = b.nodes(node.op.name, &format!("{}/float", node.name), node.inputs.clone(), &attributes)?[0];
        let scale = b.floats("range_scale", &[], &[scale]);
        let ty = edge_ir::TensorType::new(DType::Uint16, []);
        let zero = b.weight("range_zero", ty, Data::owned(zero.to_le_bytes().to_vec()));
        let q = b.node("QuantizeLinear", "conv_out/QuantizeLinear", &[y, scale, zero], &[])?;
        Ok(Some(vec![b.node("DequantizeLinear", "conv_out/DequantizeLinear", &[q, scale, zero], &[])?]))
    });
    done.expect("a rewrite").graph
}

#[test]
fn golden_values_are_a_reference() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("prompt.txt"), format!("{}\n", common::PROMPT)).unwrap();
    for (fixture, guidance) in FIXTURES {
        let golden = format!("tests/fixtures/{fixture}/golden.safetensors");
        let args = ["verify", "model", "--against", &golden, "--prompts", "prompt.txt", "--quiet"];
        for options in [&["--fold", "unrolled"][..], &["--fold", "none"]] {
            let folded: &[&str] = if options[1] == "none" { &[] } else { &["--guidance", guidance] };
            sandbox.convert(&checkpoint(fixture), "model", &[options, folded, &["--force"]].concat());
            sandbox.ok(&[&args[..], &["--guidance", guidance]].concat());
            let found = report(&sandbox, "model");
            let names: Vec<_> = found.checks.iter().map(|check| check.name.as_str()).collect();
            let expected = [
                "token_mismatches",
                "unet_output_sqnr_db",
                "latent_sqnr_db",
                "later_unet_output_sqnr_db",
                "latent_sqnr_db",
                "picture_psnr_db",
                "picture_ssim",
            ];
            assert_eq!(names, expected);
        }
        edit(&sandbox, "unet", |g| change(g, "conv_in_bias", |w| w.fill(0.0)));
        assert_eq!(sandbox.run(&[&args[..], &["--guidance", guidance]].concat()).code, Some(1));
        assert_eq!(report(&sandbox, "model").component.as_deref(), Some("unet"));
    }
}

#[test]
fn reports_do_not_depend_on_threads() {
    let sandbox = Sandbox::new();
    sandbox.convert(&checkpoint("edgefusion"), "model", &["--fold", "table"]);
    let verified = |threads: &str| {
        let ran = verify(&sandbox, "edgefusion", &["--bisect", "--threads", threads, "--report", threads]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        (ran.stdout, sandbox.tree(threads))
    };
    let (one, two) = (verified("1"), verified("2"));
    assert_eq!(one.0, two.0);
    common::assert_same_trees(&one.1, &two.1);
    assert_eq!(one.1.keys().collect::<Vec<_>>(), ["report.html", "report.json"]);
    let page = String::from_utf8(one.1["report.html"].clone()).unwrap();
    assert_eq!(page.matches("<img src=\"data:image").count(), 4 * (3 + 2 * 2));
    let json = verify(&sandbox, "edgefusion", &["--bisect", "--format", "json"]);
    assert_eq!(json.stdout.as_bytes(), one.1["report.json"]);
}

#[test]
fn the_report_says_what_was_measured() {
    let sandbox = Sandbox::new();
    sandbox.convert(&checkpoint("edgefusion"), "model", &[]);
    for _ in 0..2 {
        // The second run finds the first one's report there, which is none of what it measures.
        assert_eq!(verify(&sandbox, "edgefusion", &["--limit", "1"]).code, Some(0));
        let mut files = sandbox.tree("model");
        files.remove("report.json").expect("a report");
        let measured: Vec<_> =
            report(&sandbox, "model").measured.into_iter().map(|m| (m.path, m.size, m.sha256)).collect();
        let expected: Vec<_> = files
            .into_iter()
            .map(|(name, bytes)| (name, bytes.len() as u64, edge_spec::sha256(bytes.as_slice()).unwrap()))
            .collect();
        assert_eq!(measured, expected);
    }
}

#[test]
fn limits_may_be_given() {
    let sandbox = Sandbox::new();
    sandbox.convert(&checkpoint("edgefusion"), "model", &[]);
    let limits = "schema: tolerances/v1\ntolerances:\n- {name: picture_ssim, least: 1.5, reason: a test}\n";
    fs::write(sandbox.path("limits.yaml"), limits).unwrap();
    let ran = verify(&sandbox, "edgefusion", &["--thresholds", "limits.yaml", "--limit", "1"]);
    assert_eq!(ran.code, Some(1));
    let expected = "error: vae_decoder: picture_ssim is 1 (prompt 1), expected at least 1.5\n\n\
        hint: `--bisect` finds the layer at which the models part\n";
    assert_eq!(ran.stderr, expected);
    fs::write(sandbox.path("limits.yaml"), limits.replace("ssim", "sim")).unwrap();
    let said = sandbox.refusal(&["verify", "model", "--against", "model", "--thresholds", "limits.yaml"]);
    let expected =
        "error: `limits.yaml` is not a file of tolerances: `picture_sim` is not a tolerance, expected one of ";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let sandbox = Sandbox::new();
    let against = checkpoint("edgefusion");
    sandbox.convert(&against, "model", &["--fold", "table", "--guidance", "8"]);
    sandbox.convert(&against, "four", &["--fold", "table", "--steps", "4"]);
    sandbox.convert(&against, "two", &["--batch", "2"]);
    let golden = format!("{against}/golden.safetensors");
    for (args, expected) in [
        (vec!["verify", "model", "--against", &golden], "a golden file is of one prompt, which it does not name"),
        (vec!["verify", "model", "--against", "four"], "`four` has 4 steps folded in, not 2"),
        (
            vec!["verify", "two", "--against", &against],
            "expected a model that draws one picture at a time, got a batch of 2",
        ),
        (vec!["verify", "model", "--against", "nothing"], "`nothing`"),
        (
            vec!["verify", "model", "--against", &golden, "--guidance", "3"],
            "`tests/fixtures/edgefusion/golden.safetensors` has no run of the steps and the guidance that are asked for",
        ),
    ] {
        let said = sandbox.refusal(&args);
        assert!(said.contains(expected), "{args:?}\n{said}");
    }
}

/// Changes a component's graph in `model` and writes it in place.
fn edit(sandbox: &Sandbox, component: &str, change: impl FnOnce(&mut Graph)) {
    let folder = sandbox.path(format!("model/{component}"));
    let mut graph = edge_ir::onnx::read(&folder.join("model.onnx")).expect("a graph").into_inner();
    change(&mut graph);
    let scratch = tempfile::tempdir().expect("a folder");
    let options = WriteOptions { opset: 21, weights: WeightMode::Inline };
    edge_ir::onnx::write(&graph.check().expect("a graph"), scratch.path(), options).expect("written");
    fs::copy(scratch.path().join("model.onnx"), folder.join("new")).expect("a copy");
    fs::rename(folder.join("new"), folder.join("model.onnx")).expect("in its place");
}

fn named(graph: &Graph, end: &str) -> ValueId {
    let found = graph.initializers().find(|(_, value, _)| value.name.ends_with(end));
    found.unwrap_or_else(|| panic!("no weight `{end}`")).0
}

/// Changes the numbers of a weight whose name ends so.
fn change(graph: &mut Graph, end: &str, change: impl FnOnce(&mut [f32])) {
    let id = named(graph, end);
    let value = graph.value(id);
    let data = value.data.clone().expect("a weight");
    let dtype = value.ty.dtype;
    let bytes = data.bytes();
    let (pairs, _) = bytes.as_chunks::<2>();
    let mut numbers: Vec<f32> = match dtype {
        DType::Float16 => pairs.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        DType::BFloat16 => pairs.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => data.to_f32s(),
    };
    change(&mut numbers);
    let bytes: Vec<u8> = match dtype {
        DType::Float16 => numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BFloat16 => numbers.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    graph.value_mut(id).data = Some(Data::owned(bytes));
}

fn flip_largest(numbers: &mut [f32]) {
    let largest = numbers.iter_mut().max_by(|a, b| a.abs().total_cmp(&b.abs())).expect("a weight");
    *largest = -*largest;
}
