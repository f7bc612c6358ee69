//! Qualcomm's QNN / QAIRT: ONNX Runtime's provider and its offline compiler, and the SDK's own tools.
//!
//! Sources: <https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html>;
//! <https://docs.qualcomm.com/bundle/publicresource/topics/80-63442-10> (converter, quantizer, input lists, back-end
//! extensions). Steps whose weights are the same are put into one context, which then holds them once.

use std::fmt::Write;

use edge_spec::Target;
use edge_spec::bundle::Verified;
use serde::Deserialize;
use serde_json::json;

use super::{Device, Emission, Emitter, Example, Job, Nothing, Scripts, accept, check_facts, device, examples, named};
use crate::{PackageError, groups};

pub(super) struct Qnn;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chip {
    /// Qualcomm's number of the system on a chip.
    soc_model: u32,
    /// The version of the Hexagon tensor processor.
    htp_arch: u32,
    /// Memory on the chip; the whole of it where this is absent.
    vtcm_mb: Option<u32>,
}

const COMPILE: &str = include_str!("qnn_compile.py");
const CONVERT: &str = include_str!("qnn_convert.sh");
const COMMANDS: &str = include_str!("qnn_readme.txt");

/// What both scripts share: the provider, and Qualcomm's library for it.
const LIBRARY: &str = include_str!("qnn_library.py");
/// Where it goes in the script that compiles.
const PLACE: &str = "# The library's part stands here.\n";
/// How `accept.py` loads a graph: compiled, where it is.
const LOAD: &str = include_str!("qnn_load.py");

impl Emitter for Qnn {
    fn name(&self) -> &'static str {
        "qnn"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Chip>(target)
    }

    fn takes_floats(&self) -> bool {
        true
    }

    fn compiler(&self, target: &Target, name: &str) -> Result<Option<Scripts>, PackageError> {
        let device = target.devices.get(name).ok_or_else(|| PackageError::NoDevice { target: target.name.clone() })?;
        Ok(Some(scripts(&named(target, name, device)?.facts)))
    }

    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
        let Device { about, facts } = device(job)?;
        let scripts = scripts(&facts);
        let mut files = vec![
            ("qnn/compile.py".to_owned(), scripts.compile.into_bytes()),
            ("qnn/accept.py".to_owned(), scripts.accept.into_bytes()),
            ("qnn/convert.sh".to_owned(), convert(job).into_bytes()),
            ("qnn/htp/config.json".to_owned(), text(&extensions())),
            ("qnn/htp/backend_ext.json".to_owned(), text(&backend(job, &facts))),
        ];
        for component in job.components {
            let mut list = String::new();
            for run in examples(job, &component.name, "raw") {
                let word = |example: &Example<'_>| format!("{}:=qnn/inputs/{}", example.input, example.file);
                // Writing into a String cannot fail.
                let _ = writeln!(list, "{}", run.iter().map(word).collect::<Vec<_>>().join(" "));
                let place =
                    |example: Example<'_>| (format!("qnn/inputs/{}", example.file), example.tensor.bytes.clone());
                files.extend(run.into_iter().map(place));
            }
            files.push((format!("qnn/inputs/{}.txt", component.name), list.into_bytes()));
        }
        let name = job.device.map_or("", |(name, _)| name);
        let about = format!("{about} ({})", name.to_uppercase());
        Ok(Emission {
            files,
            commands: COMMANDS.replace("ABOUT", &about).replace("WAY", &way(job)),
            graph_sqnr_db: 40.0,
            pipeline_sqnr_db: 30.0,
            verified: Verified::Source,
        })
    }
}

/// The scripts for one device.
fn scripts(device: &Chip) -> Scripts {
    let options = provider_options(device);
    let load = format!("{LIBRARY}{LOAD}").replace("OPTIONS", &options);
    Scripts {
        compile: COMPILE.replace(PLACE, LIBRARY).replace("OPTIONS", &options),
        accept: accept::script(&load, "HTP"),
        // Before, an HTP has no contexts of several graphs with common weights.
        shares_weights: device.htp_arch >= 73,
    }
}

/// What ONNX Runtime's provider is told, as a Python dictionary.
fn provider_options(device: &Chip) -> String {
    let vtcm = device.vtcm_mb.map_or(String::new(), |mb| format!(", \"vtcm_mb\": \"{mb}\""));
    format!("{{\"soc_model\": \"{}\", \"htp_arch\": \"{}\"{vtcm}}}", device.soc_model, device.htp_arch)
}

/// Groups of graphs that one context holds.
fn contexts<'a>(job: &Job<'a>) -> Vec<(&'a str, Vec<&'a str>)> {
    groups(job.components.iter().map(|c| c.name.as_str()))
}

/// What `qnn-context-binary-generator` reads first.
fn extensions() -> serde_json::Value {
    json!({"backend_extensions": {
        "shared_library_path": "libQnnHtpNetRunExtensions.so",
        "config_file_path": "qnn/htp/backend_ext.json",
    }})
}

/// What the HTP back end reads.
fn backend(job: &Job<'_>, device: &Chip) -> serde_json::Value {
    let graph = |(_, names): (&str, Vec<&str>)| {
        let mut graph = json!({"graph_names": names, "O": 3});
        if let Some(mb) = device.vtcm_mb {
            graph["vtcm_mb"] = json!(mb);
        }
        graph
    };
    json!({
        "devices": [{
            "soc_model": device.soc_model,
            "dsp_arch": format!("v{}", device.htp_arch),
            "cores": [{"core_id": 0, "perf_profile": "burst", "rpc_control_latency": 100}],
        }],
        "graphs": contexts(job).into_iter().map(graph).collect::<Vec<_>>(),
        "context": {"weight_sharing_enabled": contexts(job).iter().any(|(_, graphs)| graphs.len() > 1)},
        "memory": {"mem_type": "shared_buffer"},
    })
}

fn text(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// How the SDK's tools get the integers, in words.
fn way(job: &Job<'_>) -> String {
    let way = match (job.quantized.is_empty(), job.floats.is_empty()) {
        (true, _) => {
            "All graphs of this bundle are float: `convert.sh` keeps them in float16, and with `CALIBRATE=1` quantizes them, \
             with ranges from the examples in `qnn/inputs`. One golden run is few; `edgetool package --examples FILE` takes \
             more."
        }
        (false, true) => {
            "`convert.sh` takes graphs with integers as they are, `QuantizeLinear` and `DequantizeLinear` in them, and others \
             in float16. `edgetool package --with-float` adds float graphs and files of encodings, for `--quantization_overrides`."
        }
        (false, false) => {
            "`convert.sh` takes the float graphs in `qnn/float`, whose weights are the numbers of the integers, with the \
             encodings in `qnn/encodings-1.0.0` (`ENCODINGS=0.6.1` takes the older form). The examples in `qnn/inputs` give \
             ranges to tensors that the converter makes itself. With `QDQ=1` it takes the graphs with `QuantizeLinear` and \
             `DequantizeLinear` instead. Graphs without integers are kept in float16."
        }
    };
    way.to_owned()
}

/// The script for the SDK's own tools: a line for each graph and each context.
fn convert(job: &Job<'_>) -> String {
    let mut lines = String::new();
    for component in job.components {
        // Writing into a String cannot fail.
        let _ = match job.floats.get(&component.name) {
            Some(float) => writeln!(lines, "encoded {} {} {float}", component.name, component.file),
            None if job.quantized.contains(&component.name) => {
                writeln!(lines, "quantized {} {}", component.name, component.file)
            }
            None => writeln!(lines, "float {} {}", component.name, component.file),
        };
    }
    lines.push('\n');
    for (context, graphs) in contexts(job) {
        let _ = writeln!(lines, "context {context} {}", graphs.join(" "));
    }
    CONVERT.replace("# GRAPHS\n", &lines)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{emit, emit_with, text};
    use super::*;

    #[test]
    fn a_device_is_told_to_every_tool() {
        let emission = emit("qnn/sm8750");
        for script in ["qnn/compile.py", "qnn/accept.py"] {
            let options = "{\"soc_model\": \"69\", \"htp_arch\": \"79\", \"vtcm_mb\": \"8\"}";
            assert!(text(&emission, script).contains(options), "{script}");
        }
        let backend: Value = serde_json::from_str(text(&emission, "qnn/htp/backend_ext.json")).expect("JSON");
        assert_eq!(
            (&backend["devices"][0]["soc_model"], &backend["devices"][0]["dsp_arch"]),
            (&json!(69), &json!("v79"))
        );
        assert_eq!(backend["graphs"][0], json!({"graph_names": ["text_encoder"], "O": 3, "vtcm_mb": 8}));
        let laptop: Value = serde_json::from_str(text(&emit("qnn/x-elite"), "qnn/htp/backend_ext.json")).expect("JSON");
        assert_eq!(laptop["graphs"][0], json!({"graph_names": ["text_encoder"], "O": 3}));
        assert!(emission.commands.contains("Snapdragon 8 Elite (SM8750)"), "{}", emission.commands);
    }

    #[test]
    fn steps_share_a_context() {
        let emission = emit("qnn");
        let backend: Value = serde_json::from_str(text(&emission, "qnn/htp/backend_ext.json")).expect("JSON");
        assert_eq!(backend["graphs"][1]["graph_names"], json!(["unet_step_0", "unet_step_1"]));
        assert_eq!(backend["context"]["weight_sharing_enabled"], json!(true));
        let script = text(&emission, "qnn/convert.sh");
        assert!(script.contains("\nfloat unet_step_0 model/unet/step_0.onnx\n"), "{script}");
        assert!(script.contains("\nquantized unet_step_1 model/unet/step_1.onnx\n"), "{script}");
        assert!(script.contains("\ncontext unet unet_step_0 unet_step_1\n"), "{script}");
        assert_eq!(
            text(&emission, "qnn/inputs/unet_step_0.txt"),
            "sample:=qnn/inputs/unet_step_0/000-sample.raw noise:=qnn/inputs/unet_step_0/000-noise.raw\n\
             sample:=qnn/inputs/unet_step_0/001-sample.raw noise:=qnn/inputs/unet_step_0/001-noise.raw\n"
        );
    }

    #[test]
    fn float_forms_are_converted_by_their_encodings() {
        let emission = emit_with("qnn", [("unet_step_1", "qnn/float/unet/step_1.onnx")]);
        let script = text(&emission, "qnn/convert.sh");
        assert!(
            script.contains("\nencoded unet_step_1 model/unet/step_1.onnx qnn/float/unet/step_1.onnx\n"),
            "{script}"
        );
        assert!(script.contains("\nfloat unet_step_0 model/unet/step_0.onnx\n"), "{script}");
        assert!(emission.commands.contains("`ENCODINGS=0.6.1`"), "{}", emission.commands);
        assert!(emit("qnn").commands.contains("`edgetool package --with-float`"));
    }
}
