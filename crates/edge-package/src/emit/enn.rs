//! Samsung's Exynos AI Studio (ENN): a workspace per graph, which a script makes of the float ONNX files.
//!
//! Source: the flow and options of <https://soc-developer.semiconductor.samsung.com>: a folder with an ONNX file of its own
//! name, `DATA/` with an HDF5 file of float32 examples whose keys are the inputs' names, and one YAML file of options.

use std::fmt::Write;

use edge_spec::Target;
use edge_spec::bundle::Verified;

use super::{Emission, Emitter, Example, Job, Nothing, check_facts, examples};
use crate::PackageError;

pub(super) struct Enn;

const WORKSPACE: &str = include_str!("enn_workspace.py");

const COMMANDS: &str = "## Exynos AI Studio

The toolchain wants a workspace for each graph: one ONNX file of at most 2 GB, float32 examples in HDF5, and options. This \
makes them below `build/enn`:

```sh
python3 -m pip install onnx h5py numpy
python3 enn/workspace.py
```

Then, in the toolchain's container, for each of the folders below `build/enn`:

```sh
cd build/enn/NAME
enntools conversion
enntools compile
```

`enn/options.yaml` has the options that this model needs: 8-bit weights and 16-bit activations. The toolchain chooses its \
own scales, so that the report speaks of the ONNX files and not of what it makes of them.
";

const OPTIONS: &str = "model_type: LVM
quantizer:
  precision_weight: int8
  precision_activation: int16
";

impl Emitter for Enn {
    fn name(&self) -> &'static str {
        "enn"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Nothing>(target)
    }

    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
        let mut files = vec![
            ("enn/workspace.py".to_owned(), WORKSPACE.as_bytes().to_vec()),
            ("enn/options.yaml".to_owned(), OPTIONS.as_bytes().to_vec()),
        ];
        for component in job.components {
            let name = &component.name;
            let mut list = String::new();
            for Example { input, file, tensor } in examples(job, name, "raw").into_iter().flatten() {
                let file = format!("enn/samples/{file}");
                // Writing into a String cannot fail.
                let _ = writeln!(list, "{input} {file}");
                files.push((file, tensor.bytes.clone()));
            }
            files.push((format!("enn/{name}.txt"), list.into_bytes()));
        }
        let first = job.components.first().map_or("GRAPH", |c| c.name.as_str());
        Ok(Emission {
            files,
            commands: COMMANDS.replace("NAME", first),
            graph_sqnr_db: 40.0,
            pipeline_sqnr_db: 30.0,
            verified: Verified::Source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{emit, text};

    #[test]
    fn examples_are_listed_by_input() {
        let emission = emit("enn");
        assert_eq!(
            text(&emission, "enn/text_encoder.txt"),
            "input_ids enn/samples/text_encoder/000-input_ids.raw\n\
             input_ids enn/samples/text_encoder/001-input_ids.raw\n"
        );
        assert!(emission.files.iter().any(|(name, _)| name == "enn/samples/unet_step_0/001-noise.raw"));
    }
}
