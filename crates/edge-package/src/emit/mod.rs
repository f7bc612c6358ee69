//! What SDKs want, one file each: [`EMITTERS`] lists them.

mod accept;
mod enn;
mod onnxruntime;
mod openvino;
mod qnn;
mod rknn;

use std::collections::BTreeMap;

use edge_ir::Tensor;
use edge_spec::Target;
use edge_spec::bundle::{BundleComponent, Verified};
use edge_spec::target::Facts;
use serde::de::DeserializeOwned;

use crate::{Call, PackageError};

/// All emitters, by name.
pub const EMITTERS: &[&dyn Emitter] =
    &[&enn::Enn, &onnxruntime::OnnxRuntime, &openvino::OpenVino, &qnn::Qnn, &rknn::Rknn];

/// Writes what one SDK wants.
pub trait Emitter: Sync {
    /// The name by which targets name it.
    fn name(&self) -> &'static str;

    /// Reads a target's `options` and each of its devices.
    ///
    /// # Errors
    /// If they are not what [`Emitter::emit`] needs.
    fn check(&self, target: &Target) -> Result<(), PackageError>;

    /// The SDK's files for a job.
    ///
    /// # Errors
    /// As [`Emitter::check`].
    fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError>;

    /// Whether the SDK can quantize float graphs by files of encodings: [`Job::floats`] may then have some.
    fn takes_floats(&self) -> bool {
        false
    }

    /// What compiles a bundle for the device of this name, if that can be done here.
    ///
    /// # Errors
    /// If the target has no such device, or as [`Emitter::check`].
    fn compiler(&self, _target: &Target, _device: &str) -> Result<Option<Scripts>, PackageError> {
        Ok(None)
    }
}

/// Python scripts that make the device's files of a bundle's graphs and check them. They work in the bundle's folder, with
/// packages that the user has installed.
#[derive(Clone, Debug)]
pub struct Scripts {
    /// Compiles the graphs that its arguments name into `build/GRAPH_ctx.onnx` and a binary beside it. With `--json` it
    /// says what came of each as [`crate::CompilerSaid`]; `--share-weights` puts them into one binary.
    pub compile: String,
    /// Runs golden inputs on the SDK's emulator. With `--json` it says how near each output is, as
    /// [`crate::EmulatorSaid`].
    pub accept: String,
    /// Whether graphs with common weights can be in one binary.
    pub shares_weights: bool,
}

/// What is to be packed.
#[derive(Debug)]
pub struct Job<'a> {
    /// The graphs that draw a picture; their files are paths in the bundle.
    pub components: &'a [BundleComponent],
    /// The names of those that have their integers in them; the others are float.
    pub quantized: &'a [String],
    /// The files of their float forms, by component, where they are in the bundle; the encodings of `NAME` are beside them.
    pub floats: &'a BTreeMap<String, String>,
    /// Their ONNX opset.
    pub opset: u32,
    /// The target.
    pub target: &'a Target,
    /// The device and its facts.
    pub device: Option<(&'a str, &'a Facts)>,
    /// Runs whose inputs are examples for an SDK that chooses ranges itself.
    pub samples: &'a [Call],
}

/// What an SDK wants.
#[derive(Debug)]
pub struct Emission {
    /// Files by their names in the bundle.
    pub files: Vec<(String, Vec<u8>)>,
    /// The part of the bundle's README, in Markdown, that says what to do with this SDK.
    pub commands: String,
    /// How near a device has to come to the golden output of one graph, in decibels.
    pub graph_sqnr_db: f32,
    /// The same for the picture of the whole pipeline.
    pub pipeline_sqnr_db: f32,
    /// What the report speaks of: the files that the device runs, or what its compiler makes them of.
    pub verified: Verified,
}

/// The emitter that a target names.
///
/// # Errors
/// If it names none, or one that is not there.
pub fn find(target: &Target) -> Result<&'static dyn Emitter, PackageError> {
    find_in(EMITTERS, target)
}

fn find_in<'a>(emitters: &[&'a dyn Emitter], target: &Target) -> Result<&'a dyn Emitter, PackageError> {
    let found = emitters.iter().find(|e| Some(e.name()) == target.emitter.as_deref());
    found.copied().ok_or_else(|| PackageError::Emitter {
        target: target.name.clone(),
        emitter: target.emitter.clone(),
        known: emitters.iter().map(|e| e.name()).collect(),
    })
}

/// Checks what a target says to its emitter.
///
/// # Errors
/// As [`find`], and if the emitter does not take the target's facts.
pub fn check(target: &Target) -> Result<(), PackageError> {
    if target.emitter.is_some() { find(target)?.check(target) } else { Ok(()) }
}

/// Facts of a target as an emitter reads them: every field is known, none is missing.
pub(crate) fn facts<T: DeserializeOwned>(target: &Target, place: &str, facts: &Facts) -> Result<T, PackageError> {
    serde_json::from_value(serde_json::Value::Object(facts.clone())).map_err(|e| PackageError::Facts {
        target: target.name.clone(),
        place: place.to_owned(),
        reason: e.to_string(),
    })
}

/// A device: what it is for people, and the facts that its emitter reads.
#[derive(Debug)]
pub(crate) struct Device<T> {
    pub(crate) about: String,
    pub(crate) facts: T,
}

/// A target's device of a name, as an emitter reads it.
pub(crate) fn named<T: DeserializeOwned>(
    target: &Target,
    name: &str,
    known: &Facts,
) -> Result<Device<T>, PackageError> {
    let place = format!("device `{name}`");
    let mut rest = known.clone();
    let Some(serde_json::Value::String(about)) = rest.remove("about") else {
        let reason = "missing field `about`, a text".to_owned();
        return Err(PackageError::Facts { target: target.name.clone(), place, reason });
    };
    Ok(Device { about, facts: facts(target, &place, &rest)? })
}

/// Reads the options as `O`, and the facts of each device as `D`.
pub(crate) fn check_facts<O: DeserializeOwned, D: DeserializeOwned>(target: &Target) -> Result<(), PackageError> {
    facts::<O>(target, "options", &target.options)?;
    target.devices.iter().try_for_each(|(name, device)| named::<D>(target, name, device).map(drop))
}

/// The job's device.
pub(crate) fn device<D: DeserializeOwned>(job: &Job<'_>) -> Result<Device<D>, PackageError> {
    let (name, device) = job.device.ok_or_else(|| PackageError::NoDevice { target: job.target.name.clone() })?;
    named(job.target, name, device)
}

/// An example of an input.
pub(crate) struct Example<'a> {
    /// The input's name.
    pub(crate) input: &'a str,
    /// The name of its file, below the folder of examples.
    pub(crate) file: String,
    /// Its content.
    pub(crate) tensor: &'a Tensor,
}

/// The examples of a component's inputs, run by run; their files end in `ending`.
pub(crate) fn examples<'a>(job: &Job<'a>, component: &str, ending: &str) -> Vec<Vec<Example<'a>>> {
    let runs = job.samples.iter().filter(|call| call.component == component).enumerate();
    let example = |index: usize, input: &'a str, tensor: &'a Tensor| {
        let file = format!("{component}/{index:03}-{input}.{ending}");
        Example { input, file, tensor }
    };
    runs.map(|(index, call)| call.inputs.iter().map(|(input, tensor)| example(index, input, tensor)).collect())
        .collect()
}

/// Options or a device of an emitter that needs to know nothing.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[cfg(test)]
mod tests {
    use edge_spec::bundle::BundlePort;

    use super::*;

    /// A made-up NPU: one file with a list of the graphs.
    struct Abacus;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Beads {
        beads: usize,
    }

    impl Emitter for Abacus {
        fn name(&self) -> &'static str {
            "abacus"
        }

        fn check(&self, target: &Target) -> Result<(), PackageError> {
            check_facts::<Nothing, Beads>(target)
        }

        fn emit(&self, job: &Job<'_>) -> Result<Emission, PackageError> {
            let Device { about, facts: Beads { beads } } = device(job)?;
            let list: Vec<&str> = job.components.iter().map(|c| c.file.as_str()).collect();
            Ok(Emission {
                files: vec![("abacus/graphs.txt".into(), list.join("\n").into_bytes())],
                commands: format!("Count with {beads} beads on {about}."),
                graph_sqnr_db: 40.0,
                pipeline_sqnr_db: 30.0,
                verified: Verified::Source,
            })
        }
    }

    const YAML: &str = "schema: target/v1\nname: abacus\nabout: Beads.\nemitter: abacus\n\
        graph: {opset: 17, max_rank: 4}\nops: [Conv]\n\
        devices: {desk: {about: a desk, beads: 40}}\ndefault_device: desk\n";

    pub(super) fn components() -> Vec<BundleComponent> {
        let port = |name: &str, dtype: &str, shape: &[usize]| BundlePort {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            layout: None,
            quantization: None,
        };
        let component = |name: &str, file: &str, inputs, outputs| BundleComponent {
            name: name.into(),
            file: format!("model/{file}"),
            inputs,
            outputs,
        };
        let unet = |step: usize| {
            let name = format!("unet_step_{step}");
            let inputs = vec![port("sample", "float32", &[1, 4, 8, 8]), port("noise", "float32", &[1, 4, 8, 8])];
            component(&name, &format!("unet/step_{step}.onnx"), inputs, vec![port("out", "float32", &[1, 4, 8, 8])])
        };
        let text = component(
            "text_encoder",
            "text_encoder/model.onnx",
            vec![port("input_ids", "int32", &[1, 77])],
            vec![port("last_hidden_state", "float32", &[1, 77, 32])],
        );
        vec![text, unet(0), unet(1)]
    }

    /// Two runs of each graph.
    pub(super) fn samples() -> Vec<Call> {
        let call = |c: &BundleComponent, value: f32| Call {
            component: c.name.clone(),
            inputs: c.inputs.iter().map(|p| (p.name.clone(), Tensor::f32s(p.shape.clone(), &[value]))).collect(),
            outputs: Vec::new(),
        };
        let components = components();
        components.iter().map(|c| call(c, 1.0)).chain(components.iter().map(|c| call(c, 2.0))).collect()
    }

    /// What an emitter makes of the sample job for a built-in target.
    pub(super) fn emit(target: &str) -> Emission {
        emit_with(target, [])
    }

    /// The same, with float forms of some graphs.
    pub(super) fn emit_with<const N: usize>(target: &str, floats: [(&str, &str); N]) -> Emission {
        let (target, device) = Target::find_for_device(target).expect("a target");
        let device = device.as_deref().map(|name| (name, &target.devices[name]));
        let (components, samples) = (components(), samples());
        let (quantized, opset) = (["unet_step_1".to_owned()], target.graph.opset);
        let components = &components;
        let floats = &BTreeMap::from(floats.map(|(name, file)| (name.to_owned(), file.to_owned())));
        let job = Job { components, quantized: &quantized, floats, opset, target: &target, device, samples: &samples };
        find(&target).expect("an emitter").emit(&job).expect("files")
    }

    pub(super) fn text<'a>(emission: &'a Emission, name: &str) -> &'a str {
        let found = emission.files.iter().find(|(file, _)| file == name);
        let (_, bytes) = found.unwrap_or_else(|| {
            panic!("no `{name}` among {:?}", emission.files.iter().map(|(name, _)| name).collect::<Vec<_>>())
        });
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_new_npu_is_a_file_a_line_and_a_target() {
        let target = Target::parse(YAML, "abacus.yaml").expect("a target");
        let emitter = find_in(&[&qnn::Qnn, &Abacus], &target).expect("the emitter");
        emitter.check(&target).expect("its facts");
        let components = components();
        let device = target.devices.get("desk").map(|facts| ("desk", facts));
        let floats = &BTreeMap::new();
        let job =
            Job { components: &components, quantized: &[], floats, opset: 17, target: &target, device, samples: &[] };
        let emission = emitter.emit(&job).expect("files");
        assert_eq!(
            text(&emission, "abacus/graphs.txt"),
            "model/text_encoder/model.onnx\nmodel/unet/step_0.onnx\nmodel/unet/step_1.onnx"
        );
        assert_eq!(emission.commands, "Count with 40 beads on a desk.");
    }

    #[test]
    fn facts_that_an_emitter_does_not_know_are_refused() {
        let refuses = |from: &str, to: &str, expected: &str| {
            let target = Target::parse(&YAML.replace(from, to), "abacus.yaml").expect("a target");
            let error = Abacus.check(&target).expect_err("other facts").to_string();
            assert_eq!(error, expected);
        };
        refuses("beads: 40", "bead: 40", "target `abacus`: device `desk`: unknown field `bead`, expected `beads`");
        refuses(", beads: 40", "", "target `abacus`: device `desk`: missing field `beads`");
        let error = find(&Target::parse(YAML, "abacus.yaml").expect("a target")).err().expect("unknown").to_string();
        assert_eq!(
            error,
            "target `abacus`: field `emitter` is `abacus`, expected one of enn, onnxruntime, openvino, qnn, rknn"
        );
    }

    #[test]
    fn every_built_in_target_has_an_emitter_that_takes_its_facts() {
        assert!(EMITTERS.is_sorted_by_key(|e| e.name()));
        for name in Target::names() {
            let target = Target::find(&name).expect("a target");
            check(&target).unwrap_or_else(|e| panic!("{name}: {e}"));
            let Emission { files, commands, .. } = emit(&name);
            assert!(!files.is_empty() && !commands.is_empty(), "{name}");
            for (file, _) in &files {
                assert!(file.starts_with(&format!("{name}/")), "{file}");
            }
        }
    }
}
