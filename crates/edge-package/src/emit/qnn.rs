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

use super::{Emission, Emitter, Job, Nothing, accept, check_facts, device};
use crate::PackageError;

pub(super) struct Qnn;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    about: String,
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

const LOAD: &str = r#"def load(path, name, device):
    import onnxruntime
    import onnxruntime_qnn as qnn

    if not any(d.ep_name == qnn.get_ep_name() for d in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(qnn.get_ep_name(), qnn.get_library_path())
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == qnn.get_ep_name()]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(devices[:1], {"backend_path": qnn.get_qnn_htp_path(), **OPTIONS})
    compiled = ROOT / "build" / f"{name}_ctx.onnx"
    session = onnxruntime.InferenceSession(str(compiled if compiled.exists() else path), options)
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds)))


"#;

impl Emitter for Qnn {
    fn name(&self) -> &'static str {
        "qnn"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Device>(target)
    }

    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
        let facts: Device = device(job)?;
        let options = provider_options(&facts);
        let load = LOAD.replace("OPTIONS", &options);
        let mut files = vec![
            ("qnn/compile.py".to_owned(), COMPILE.replace("OPTIONS", &options).into_bytes()),
            ("qnn/accept.py".to_owned(), accept::script(&load, "HTP")),
            ("qnn/convert.sh".to_owned(), convert(job).into_bytes()),
            ("qnn/htp/config.json".to_owned(), text(&extensions())),
            ("qnn/htp/backend_ext.json".to_owned(), text(&backend(job, &facts))),
        ];
        for component in job.components {
            let mut list = String::new();
            for (index, call) in job.samples.iter().filter(|c| c.component == component.name).enumerate() {
                let mut line = Vec::new();
                for (input, tensor) in &call.inputs {
                    let file = format!("qnn/inputs/{}/{index:03}-{input}.raw", component.name);
                    line.push(format!("{input}:={file}"));
                    files.push((file, tensor.bytes.clone()));
                }
                // Writing into a String cannot fail.
                let _ = writeln!(list, "{}", line.join(" "));
            }
            files.push((format!("qnn/inputs/{}.txt", component.name), list.into_bytes()));
        }
        let name = job.device.map_or("", |(name, _)| name);
        let about = format!("{} ({})", facts.about, name.to_uppercase());
        Ok(Emission {
            files,
            commands: COMMANDS.replace("ABOUT", &about),
            graph_sqnr_db: 40.0,
            pipeline_sqnr_db: 30.0,
            verified: Verified::Source,
        })
    }
}

/// What ONNX Runtime's provider is told, as a Python dictionary.
fn provider_options(device: &Device) -> String {
    let vtcm = device.vtcm_mb.map_or(String::new(), |mb| format!(", \"vtcm_mb\": \"{mb}\""));
    format!("{{\"soc_model\": \"{}\", \"htp_arch\": \"{}\"{vtcm}}}", device.soc_model, device.htp_arch)
}

/// Groups of graphs that one context holds: the steps of the UNet together, any other by itself.
fn contexts<'a>(job: &Job<'a>) -> Vec<(String, Vec<&'a str>)> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for component in job.components {
        let name = component.name.as_str();
        let group = name.split_once("_step_").map_or(name, |(group, _)| group);
        match groups.iter_mut().find(|(known, _)| known == group) {
            Some((_, graphs)) => graphs.push(name),
            None => groups.push((group.to_owned(), vec![name])),
        }
    }
    groups
}

/// What `qnn-context-binary-generator` reads first.
fn extensions() -> serde_json::Value {
    json!({"backend_extensions": {
        "shared_library_path": "libQnnHtpNetRunExtensions.so",
        "config_file_path": "qnn/htp/backend_ext.json",
    }})
}

/// What the HTP back end reads.
fn backend(job: &Job<'_>, device: &Device) -> serde_json::Value {
    let graph = |(_, names): (String, Vec<&str>)| {
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

/// The script for the SDK's own tools: a line for each graph and each context.
fn convert(job: &Job<'_>) -> String {
    let mut lines = String::new();
    for component in job.components {
        // Writing into a String cannot fail.
        let kind = if job.quantized.contains(&component.name) { "quantized" } else { "float" };
        let _ = writeln!(lines, "{kind} {} {}", component.name, component.file);
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

    use super::super::tests::{emit, text};
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
}
