//! Bundles: one file that holds a verified model, what an SDK needs to compile it, and what a device engineer needs to
//! check the result. `docs/bundle.md` is the specification.

mod compiled;
mod name;
mod read;
#[cfg(test)]
mod schema_test;
mod sign;
#[cfg(test)]
mod tests;
mod write;
mod zip;

use serde::{Deserialize, Serialize};

use crate::{Fold, FoldStep, Pipeline};

pub use compiled::{Compiled, CompiledGraph, EmulatedOutput};
pub use read::{Bundle, Damage};
pub use sign::{SignError, sign, verify};
pub use write::{Content, Contents, Measure, list, write};

/// The manifest's name in a bundle.
pub const BUNDLE_MANIFEST: &str = "manifest.json";
/// The name of the manifest's signature in a bundle.
pub const SIGNATURE: &str = "manifest.json.minisig";
/// The version of bundles that is written, and the only one that is read.
pub const BUNDLE_SCHEMA: &str = "edgetool-bundle/v1";
/// The folder that holds the verified model, file for file.
pub const MODEL_FOLDER: &str = "model";
/// The most files that a bundle has.
const ENTRIES: usize = 10_000;

/// `manifest.json`: what is in a bundle, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleManifest {
    /// Always [`BUNDLE_SCHEMA`].
    pub schema: String,
    /// Name and version of the program that wrote it.
    pub producer: String,
    /// What the bundle is for.
    pub target: BundleTarget,
    /// What the report speaks of.
    pub verified: Verified,
    /// The verification report.
    pub report: String,
    /// The licence of the weights, where the checkpoint has one.
    pub licence: Vec<String>,
    /// The folder of the tokenizer's files.
    pub tokenizer: String,
    /// What connects the graphs.
    pub pipeline: Pipeline,
    /// What of the sampler is in the graphs, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// What the caller does between the graphs.
    pub sampler: BundleSampler,
    /// The graphs, in the order of use.
    pub components: Vec<BundleComponent>,
    /// What the SDK's compiler made of them, if it is in the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<Compiled>,
    /// Inputs and outputs to check a device with.
    pub golden: Golden,
    /// Every other file of the bundle but the signature, sorted by path.
    pub files: Vec<BundleFile>,
}

/// What a bundle is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleTarget {
    /// The target's name.
    pub name: String,
    /// The target as it was used.
    pub file: String,
    /// The device, if the target has devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// The graphs that the device runs.
    Artifact,
    /// The graphs that the SDK's compiler makes the device's files of.
    Source,
    /// The same, and the SDK's emulator of the device gave the golden outputs from the device's files.
    Emulated,
}

/// What the caller of the graphs does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleSampler {
    /// The steps of the golden run, in order; where they are folded, the graphs do them already, unless
    /// `fold.scheduler_step` says otherwise.
    pub steps: Vec<FoldStep>,
    /// The guidance scale of the golden run.
    pub guidance: f32,
    /// The noise.
    pub noise: NoiseContract,
}

/// Where noise comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseContract {
    /// The generator that gives diffusers' pictures on a CPU; others draw as well.
    pub generator: String,
    /// What is drawn, in order: `latent`, then `noise_0`, `noise_1`, ... for the steps that take noise.
    pub draws: Vec<String>,
    /// The shape of each draw. Its elements are independent and normal, with mean 0 and variance 1.
    pub shape: Vec<usize>,
}

/// A graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleComponent {
    /// `text_encoder`, `unet_step_0`, `vae_decoder`, ...
    pub name: String,
    /// Its ONNX file.
    pub file: String,
    /// What is fed, in order.
    pub inputs: Vec<BundlePort>,
    /// What comes out, in order.
    pub outputs: Vec<BundlePort>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundlePort {
    /// Its name.
    pub name: String,
    /// Its element type, as numpy names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// A letter for each axis: `N` images, `C` channels, `H` height, `W` width, `L` tokens; absent where axes are
    /// nothing of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The integers that stand for its values on a device, where the graph quantizes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<PortQuantization>,
}

/// `value = (integer - zero_point) * scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortQuantization {
    /// The integers' type, as numpy names it.
    pub dtype: String,
    /// The distance of two values.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i64,
}

/// Runs to check a device with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The prompt.
    pub prompt: String,
    /// The seed of the noise.
    pub seed: u64,
    /// The picture.
    pub picture: String,
    /// The runs of single graphs, in order.
    pub runs: Vec<GoldenRun>,
    /// The whole pipeline: from the token ids and draws of noise to the picture's numbers.
    pub pipeline: GoldenRun,
}

/// Inputs and expected outputs. The files are little-endian, packed, in the port's own type and layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRun {
    /// The component, or `pipeline`.
    pub component: String,
    /// What is fed.
    pub inputs: Vec<GoldenTensor>,
    /// What comes out.
    pub outputs: Vec<GoldenTensor>,
    /// How near a device has to come to each output: the least signal-to-noise ratio, in decibels.
    pub min_sqnr_db: f32,
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTensor {
    /// The port's name.
    pub name: String,
    /// Its element type, as numpy names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The raw file.
    pub file: String,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFile {
    /// Its name in the bundle.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

impl BundleManifest {
    /// The manifest as it stands in the bundle.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
