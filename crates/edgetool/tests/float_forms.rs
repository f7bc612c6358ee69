//! `package --with-float`: the float graphs and encodings in a bundle for QNN, and the script that gives them to the SDK's
//! tools, which are stand-ins here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::tensors::{self, Tensor, Tensors};
use common::{Ran, Sandbox};
use edge_ir::{Checked, Encoding, Granularity, Graph};
use serde_json::Value;

const CALIBRATION: &str = "recipes/shapes/prompts/calibration.txt";

/// A bundle for a device with float forms, `b.zip`, extracted to `x`; the model is in `model`.
fn packed(device: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let options = ["--target", "qnn", "--fold", "per-step", "--dtype", "float32"];
    sandbox.convert("tests/fixtures/edgefusion", "float", &options);
    let target = format!("qnn/{device}");
    let quantize = ["quantize", "float", "--target", &target, "--calibration", CALIBRATION, "--number", "2"];
    sandbox.ok(&[&quantize[..], &["-o", "model"]].concat());
    // Ranges of two prompts are not good; what is packed does not matter here.
    sandbox.run(&["verify", "model", "--against", "float", "--limit", "2", "--quiet"]);
    sandbox.edit_json("model/report.json", |fields| drop(fields.insert("verdict".into(), "pass".into())));
    sandbox.ok(&["package", "model", "--target", &target, "--with-float", "-o", "b.zip", "--quiet"]);
    sandbox.ok(&["bundle", "extract", "b.zip", "-o", "x"]);
    sandbox
}

fn json(sandbox: &Sandbox, file: &str) -> Value {
    serde_json::from_slice(&fs::read(sandbox.path(file)).unwrap()).unwrap()
}

fn graph(sandbox: &Sandbox, file: &str) -> Checked<Graph> {
    edge_ir::onnx::read(&sandbox.path(file)).unwrap()
}

#[test]
fn steps_of_newer_devices_share_float_weights() {
    let sandbox = packed("sm8650");
    encodings_and_float_graph_belong_together(&sandbox);
    integers_come_again(&sandbox, "unet/step_1.onnx");
    the_float_graph_computes_what_the_integers_do_nearly(&sandbox);
    the_script_calls_the_sdk_with_files_that_are_there(&sandbox);
}

#[test]
fn steps_of_older_devices_have_float_weights_of_their_own() {
    let sandbox = packed("sm8450");
    integers_come_again(&sandbox, "unet_step_1/step_1.onnx");
    a_bundle_with_float_forms_is_a_bundle(&sandbox);
}

fn encodings_and_float_graph_belong_together(sandbox: &Sandbox) {
    let listed: BTreeSet<String> = json(sandbox, "x/manifest.json")["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap().into())
        .collect();
    for step in ["step_0", "step_1"] {
        let name = format!("unet_{step}");
        let float = graph(sandbox, &format!("x/qnn/float/unet/{step}.onnx"));
        assert!(!edge_package::has_integers(&float));
        let of = |graph: &Graph| graph.values().map(|(_, v)| v.name.clone()).collect::<BTreeSet<_>>();
        let (tensors, before) = (of(&float), of(&graph(sandbox, &format!("float/unet/{step}.onnx"))));
        for version in ["0.6.1", "1.0.0"] {
            let file = format!("qnn/encodings-{version}/{name}.json");
            assert!(listed.contains(&file), "{file}");
            let encodings = json(sandbox, &format!("x/{file}"));
            assert_eq!(encodings["version"], version);
            let names: BTreeSet<String> = ["activation_encodings", "param_encodings"]
                .iter()
                .flat_map(|kind| match &encodings[*kind] {
                    Value::Array(all) => all.iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect(),
                    all => all.as_object().unwrap().keys().cloned().collect::<Vec<_>>(),
                })
                .collect();
            assert!(names.is_subset(&tensors), "{:?}", names.difference(&tensors).collect::<Vec<_>>());
            // What has none is no number, or a bias, which follows from input and weight.
            let is_float = |name: &&String| {
                let (_, value) = float.values().find(|(_, v)| v.name == **name).unwrap();
                value.ty.dtype.is_float() && !name.ends_with("bias") && value.ty.shape.len() != 1
            };
            let missing: Vec<_> = tensors.difference(&names).filter(is_float).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
        // It is the graph that was quantized, whose names the training code knows.
        // Repaired biases are others.
        let lost: Vec<_> = before.difference(&tensors).filter(|name| !name.contains("bias")).collect();
        assert!(lost.is_empty(), "{lost:?}");
        for line in fs::read_to_string(sandbox.path(format!("x/qnn/inputs/{name}.txt"))).unwrap().lines() {
            for word in line.split(' ') {
                let (input, file) = word.split_once(":=").unwrap();
                let ty = &float.inputs.iter().map(|id| float.value(*id)).find(|v| v.name == input).unwrap().ty;
                assert_eq!(sandbox.path(format!("x/{file}")).metadata().unwrap().len(), ty.bytes(), "{file}");
                assert!(listed.contains(file));
            }
        }
    }
    assert!(listed.contains("qnn/float/unet/model.onnx_data"));
    assert!(!listed.iter().any(|file| file.starts_with("qnn/float/text_encoder")));
}

/// The nearest integers of the float graph's weights, by the encodings, are the integers that were verified.
fn integers_come_again(sandbox: &Sandbox, file: &str) {
    let float = graph(sandbox, &format!("x/qnn/float/{file}"));
    let integers = graph(sandbox, "x/model/unet/step_1.onnx");
    let encodings = json(sandbox, "x/qnn/encodings-1.0.0/unet_step_1.json");
    let mut compared = 0;
    for entry in encodings["param_encodings"].as_array().unwrap().iter().filter(|e| e["enc_type"] == "PER_CHANNEL") {
        let name = entry["name"].as_str().unwrap();
        let find = |graph: &Graph, name: &str| graph.values().find(|(_, v)| v.name == name).map(|(_, v)| v.clone());
        let (weight, stored) = (find(&float, name).unwrap(), find(&integers, &format!("{name}_q")).unwrap());
        let scales: Vec<f32> = serde_json::from_value(entry["scale"].clone()).unwrap();
        let axis = weight.ty.shape.iter().position(|d| *d == scales.len()).unwrap();
        assert_eq!(entry["bw"].as_u64().unwrap(), 8 * stored.ty.dtype.bytes(1));
        let code = Encoding::symmetric(stored.ty.dtype, Granularity::Axis(axis), scales);
        let again = weight.data.unwrap().quantize(&weight.ty.shape, code).unwrap();
        assert!(again.bytes() == stored.data.unwrap().bytes(), "{file}: {name}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

fn the_float_graph_computes_what_the_integers_do_nearly(sandbox: &Sandbox) {
    let golden = json(sandbox, "x/manifest.json")["golden"]["runs"][1].clone();
    assert_eq!(golden["component"], "unet_step_0");
    let tensor = |port: &Value| {
        let shape = port["shape"].as_array().unwrap().iter().map(|d| usize::try_from(d.as_u64().unwrap()).unwrap());
        let bytes = fs::read(sandbox.path(format!("x/{}", port["file"].as_str().unwrap()))).unwrap();
        let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (port["name"].as_str().unwrap().to_owned(), Tensor::f32s(&shape.collect::<Vec<_>>(), &numbers))
    };
    let inputs: Tensors = golden["inputs"].as_array().unwrap().iter().map(tensor).collect();
    let (name, expected) = tensor(&golden["outputs"][0]);
    let found = sandbox.eval("x/qnn/float/unet/step_0.onnx", &inputs)[&name].clone();
    let far = tensors::relative_l2(&found, &expected);
    assert!(far > 0.0 && far < 0.05, "{far}");
}

fn the_script_calls_the_sdk_with_files_that_are_there(sandbox: &Sandbox) {
    let bin = sandbox.path("sdk/bin/x86_64-linux-clang");
    fs::create_dir_all(&bin).unwrap();
    // Says what it was called with, fails if a file that it should read is not there, and makes what it should write.
    let tool = "#!/bin/sh\n\
        echo \"${0##*/} $*\" >> \"$LOG\"\n\
        while [ $# -gt 0 ]; do\n\
        case \"$1\" in\n\
        --input_network|--quantization_overrides|--input_dlc|--input_list|--config_file) test -f \"$2\" || exit 3 ;;\n\
        --output_path|--output_dlc) : > \"$2\" ;;\n\
        --dlc_path) for f in $(echo \"$2\" | tr , ' '); do test -f \"$f\" || exit 3; done ;;\n\
        --binary_file) : > \"build/$2.bin\" ;;\n\
        esac; shift; done\n";
    for name in ["qairt-converter", "qairt-quantizer", "qnn-context-binary-generator"] {
        fs::write(bin.join(name), tool).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |more: &[(&str, &str)]| {
        let log = sandbox.path("log");
        fs::remove_file(&log).ok();
        let mut command = sandbox.command("sh", &["x/qnn/convert.sh"]);
        command.env("QAIRT_SDK_ROOT", sandbox.path("sdk")).env("LOG", &log).envs(more.iter().copied());
        let ran = Ran::new(command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        fs::read_to_string(log).unwrap()
    };
    let said = run(&[]);
    let expected = "qairt-converter --input_network qnn/float/unet/step_1.onnx --output_path build/unet_step_1.float.dlc \
        --quantization_overrides qnn/encodings-1.0.0/unet_step_1.json\n\
        qairt-quantizer --input_dlc build/unet_step_1.float.dlc --output_dlc build/unet_step_1.dlc \
        --input_list qnn/inputs/unet_step_1.txt --use_native_input_files ";
    assert!(said.contains(expected), "{said}");
    assert!(
        said.contains(
            "--input_network model/vae_decoder/model.onnx --output_path build/vae_decoder.dlc --float_bitwidth 16\n"
        ),
        "{said}"
    );
    assert!(said.contains("--dlc_path build/unet_step_0.dlc,build/unet_step_1.dlc "), "{said}");
    assert!(run(&[("ENCODINGS", "0.6.1")]).contains("qnn/encodings-0.6.1/unet_step_0.json"));
    let said = run(&[("QDQ", "1")]);
    assert!(said.contains("--input_network model/unet/step_0.onnx ") && !said.contains("qnn/float"), "{said}");
    assert!(run(&[("CALIBRATE", "1")]).contains("--input_list qnn/inputs/vae_decoder.txt"));
}

fn a_bundle_with_float_forms_is_a_bundle(sandbox: &Sandbox) {
    let package = ["package", "model", "--target", "qnn/sm8450", "--with-float", "--quiet"];
    sandbox.ok(&[&package[..], &["-o", "c.zip", "--threads", "1"]].concat());
    let bytes = fs::read(sandbox.path("b.zip")).unwrap();
    assert!(bytes == fs::read(sandbox.path("c.zip")).unwrap(), "the bundles differ");
    let data = fs::read(sandbox.path("x/qnn/float/unet_step_0/model.onnx_data")).unwrap();
    let at = bytes.windows(64).position(|w| w == &data[..64]).unwrap();
    let mut damaged = bytes.clone();
    damaged[at + 3] ^= 1;
    fs::write(sandbox.path("c.zip"), &damaged).unwrap();
    let ran = sandbox.run(&["bundle", "check", "c.zip"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("`qnn/float/unet_step_0/model.onnx_data` has the SHA-256 "), "{}", ran.stderr);

    let said = sandbox.refusal(&["package", "model", "--target", "openvino", "--with-float", "-o", "o.zip"]);
    assert!(
        said.ends_with("`--with-float`: the SDK of `openvino` quantizes by no encodings\n\nhint: leave it out\n"),
        "{said}"
    );
    sandbox.ok(&["verify", "float", "--against", "tests/fixtures/edgefusion", "--limit", "2", "--quiet"]);
    let said = sandbox.refusal(&["package", "float", "--target", "qnn", "--with-float", "-o", "o.zip"]);
    assert!(
        said.ends_with("no graph of `float` has integers\n\nhint: leave it out: the graphs are float already\n"),
        "{said}"
    );
}

/// What a plan leaves in float is marked so, under the name of the training code, and has the numbers of its 16 bits.
#[test]
fn layers_in_float_are_marked() {
    let sandbox = Sandbox::new();
    let options = ["--target", "qnn", "--fold", "per-step", "--dtype", "float32"];
    sandbox.convert("tests/fixtures/edgefusion", "float", &options);
    let plan = "schema: precision-plan/v1\nscheme: w8a16\nrules: [{of: conv_out, weights: float16}]\n";
    fs::write(sandbox.path("plan.yaml"), plan).unwrap();
    let quantize = ["quantize", "float", "--plan", "plan.yaml", "--calibration", CALIBRATION, "--number", "2"];
    sandbox.ok(&[&quantize[..], &["--encodings", "1.0.0", "-o", "model"]].concat());
    sandbox.run(&["verify", "model", "--against", "float", "--limit", "2", "--quiet"]);
    sandbox.edit_json("model/report.json", |fields| drop(fields.insert("verdict".into(), "pass".into())));
    sandbox.ok(&["package", "model", "--target", "qnn", "--with-float", "-o", "b.zip", "--quiet"]);
    sandbox.ok(&["bundle", "extract", "b.zip", "-o", "x"]);
    let old = json(&sandbox, "x/qnn/encodings-0.6.1/unet_step_0.json");
    assert_eq!(old["param_encodings"]["conv_out_weight"], serde_json::json!([{"bitwidth": 16, "dtype": "float"}]));
    for file in ["x/qnn/encodings-1.0.0/unet_step_0.json", "model/encodings-1.0.0/unet_step_0.json"] {
        let encodings = json(&sandbox, file);
        let all = encodings["param_encodings"].as_array().unwrap();
        let floats: BTreeSet<_> =
            all.iter().filter(|e| e["dtype"] == "FLOAT").map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(floats, BTreeSet::from(["conv_out_bias", "conv_out_weight"]), "{file}");
    }
    let float = graph(&sandbox, "x/qnn/float/unet/step_0.onnx");
    let weight = float.values().find(|(_, v)| v.name == "conv_out_weight").unwrap().1.clone();
    let numbers = weight.data.unwrap().to_f32s();
    assert!(numbers.iter().all(|n| half::f16::from_f32(*n).to_f32().to_bits() == n.to_bits()));
}
