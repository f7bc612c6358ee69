//! ONNX Runtime, on a CPU: the ONNX files as they are, and a script that checks them.
//!
//! Source: <https://onnxruntime.ai/docs/api/python/api_summary.html>.

use edge_spec::Target;
use edge_spec::bundle::Verified;

use super::{Emission, Emitter, Job, Nothing, accept, check_facts};
use crate::PackageError;

pub(super) struct OnnxRuntime;

const LOAD: &str = r"def load(path, name, device):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Optimized kernels of quantized operators are less exact than the operators themselves.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=[device])
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds)))


";

const COMMANDS: &str = "## ONNX Runtime

Any ONNX Runtime from 1.18 on loads the files below `model/`. This checks one against the golden run:

```sh
python3 -m pip install onnxruntime numpy
python3 onnxruntime/accept.py
```

`--device` names another execution provider. In code, load the file of each graph with `InferenceSession` and feed it as \
the tables below say.
";

impl Emitter for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Nothing>(target)
    }

    fn emit(&self, _job: &Job<'_>) -> Result<Emission, PackageError> {
        Ok(Emission {
            files: vec![("onnxruntime/accept.py".into(), accept::script(LOAD, "CPUExecutionProvider").into_bytes())],
            commands: COMMANDS.to_owned(),
            // The same float32 operators in another order of additions: 1e-4 of the output, and 1e-3 of the picture.
            graph_sqnr_db: 80.0,
            pipeline_sqnr_db: 60.0,
            verified: Verified::Artifact,
        })
    }
}
