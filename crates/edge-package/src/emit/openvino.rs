//! `OpenVINO`, which reads the ONNX files as they are and compiles them in the driver of the device.
//!
//! Source: <https://docs.openvino.ai>, Core and NPU device.

use edge_spec::Target;
use edge_spec::bundle::Verified;
use serde::Deserialize;

use super::{Device, Emission, Emitter, Job, Nothing, accept, check_facts, device};
use crate::PackageError;

pub(super) struct OpenVino;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    /// The name that `Core.compile_model` takes.
    device: String,
}

const LOAD: &str = r#"def load(path, name, device):
    import openvino

    # A CPU computes in bfloat16 by itself where it can.
    options = {"INFERENCE_PRECISION_HINT": "f32"} if device == "CPU" else {}
    model = openvino.Core().compile_model(str(path), device, options)
    names = [o.get_any_name() for o in model.outputs]
    return lambda feeds: dict(zip(names, (model(feeds)[i] for i in range(len(names)))))


"#;

const COMMANDS: &str = "## OpenVINO

OpenVINO reads the ONNX files below `model/` and compiles them for ABOUT when they are loaded. This checks them against \
the golden run:

```sh
python3 -m pip install openvino numpy
python3 openvino/accept.py --device DEVICE
```

A compiled blob is bound to a driver's version, so that none is in this bundle; `CACHE_DIR` keeps what the driver compiled. \
An IR is made of a file by:

```sh
ovc FILE --output_model build/NAME
```
";

impl Emitter for OpenVino {
    fn name(&self) -> &'static str {
        "openvino"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Plugin>(target)
    }

    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
        let Device { about, facts: Plugin { device } } = device(job)?;
        let first = job.components.first().map_or(("model.onnx", "model"), |c| (c.file.as_str(), c.name.as_str()));
        let fill = |text: &str| {
            text.replace("DEVICE", &device).replace("ABOUT", &about).replace("FILE", first.0).replace("NAME", first.1)
        };
        Ok(Emission {
            files: vec![("openvino/accept.py".into(), accept::script(LOAD, &device).into_bytes())],
            commands: fill(COMMANDS),
            // The NPU computes in float16: 1e-2 of the output.
            graph_sqnr_db: 40.0,
            pipeline_sqnr_db: 30.0,
            verified: Verified::Source,
        })
    }
}
