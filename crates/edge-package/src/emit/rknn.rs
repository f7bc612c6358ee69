//! Rockchip's RKNN-Toolkit2: examples as `.npy` files, and a script that converts each graph.
//!
//! Source: `rknn/api/rknn.py` of the wheel `rknn-toolkit2` 2.5.0, and <https://github.com/airockchip/rknn-toolkit2>.

use edge_ir::{DType, Tensor};
use edge_spec::Target;
use edge_spec::bundle::Verified;
use serde::Deserialize;

use super::{Device, Emission, Emitter, Example, Job, Nothing, check_facts, device, examples};
use crate::PackageError;

pub(super) struct Rknn;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chip {
    /// What `RKNN.config` takes.
    target_platform: String,
}

const CONVERT: &str = include_str!("rknn_convert.py");

const COMMANDS: &str = "## RKNN-Toolkit2

The toolkit reads the ONNX files below `model/` and writes `build/GRAPH.rknn` for ABOUT; it runs on x86-64 Linux with the \
packages that its own requirements name.

```sh
python3 -m pip install rknn-toolkit2
python3 rknn/convert.py
python3 rknn/convert.py --quantize w8a8
```

The first converts in float16, the second lets the toolkit quantize on the examples below `rknn/samples`. `--simulate` runs \
the golden inputs in the toolkit's simulator. The toolkit chooses its own scales, so that the report speaks of the ONNX files \
and not of what it makes of them. A `.rknn` file is bound to the runtime's version.
";

impl Emitter for Rknn {
    fn name(&self) -> &'static str {
        "rknn"
    }

    fn check(&self, target: &Target) -> Result<(), PackageError> {
        check_facts::<Nothing, Chip>(target)
    }

    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
        let Device { about, facts: Chip { target_platform } } = device(job)?;
        let mut files = vec![("rknn/convert.py".into(), CONVERT.replace("PLATFORM", &target_platform).into_bytes())];
        for component in job.components {
            let name = &component.name;
            let mut list = String::new();
            for run in examples(job, name, "npy") {
                let line: Vec<String> = run.iter().map(|example| format!("samples/{}", example.file)).collect();
                list.push_str(&line.join(" "));
                list.push('\n');
                let place = |example: &Example<'_>| (format!("rknn/samples/{}", example.file), npy(example.tensor));
                files.extend(run.iter().map(place));
            }
            files.push((format!("rknn/{name}.txt"), list.into_bytes()));
        }
        Ok(Emission {
            files,
            commands: COMMANDS.replace("ABOUT", &about),
            graph_sqnr_db: 40.0,
            pipeline_sqnr_db: 30.0,
            verified: Verified::Source,
        })
    }
}

/// A tensor as numpy's format 1.0 has it: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
fn npy(tensor: &Tensor) -> Vec<u8> {
    let kind = match tensor.ty.dtype {
        DType::Int64 => "<i8",
        DType::Int32 => "<i4",
        DType::Bool => "|b1",
        _ => "<f4",
    };
    let axes: Vec<String> = tensor.ty.shape.iter().map(|axis| format!("{axis},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", axes.concat());
    // Magic, version and length take ten bytes; the content starts at a multiple of 64, behind a line's end.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(length - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(&tensor.bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::tests::{emit, text};
    use super::*;

    #[test]
    fn examples_are_listed_in_the_order_of_inputs() {
        let emission = emit("rknn/rk3576");
        assert_eq!(
            text(&emission, "rknn/unet_step_1.txt"),
            "samples/unet_step_1/000-sample.npy samples/unet_step_1/000-noise.npy\n\
             samples/unet_step_1/001-sample.npy samples/unet_step_1/001-noise.npy\n"
        );
        assert!(text(&emission, "rknn/convert.py").contains("target_platform=\"rk3576\""));
        assert!(emission.files.iter().any(|(name, _)| name == "rknn/samples/unet_step_1/001-noise.npy"));
    }

    #[test]
    fn numpy_reads_the_header() {
        let bytes = npy(&Tensor::f32s([2, 1], &[1.0, 2.0]));
        let (header, content) = bytes.split_at(128);
        let text = String::from_utf8_lossy(&header[10..]);
        assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (2,1,), }");
        assert_eq!((&header[..8], header[8], text.ends_with('\n')), (&b"\x93NUMPY\x01\x00"[..], 118, true));
        assert_eq!(content, [0, 0, 128, 63, 0, 0, 0, 64]);
    }
}
