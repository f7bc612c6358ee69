//! `edgetool.json`: what a converted model is, for edgetool itself.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Fold, Precision, PrecisionRule, Scheme, SpecError, Target};

/// The manifest's file name, at the top of a converted model.
pub const MANIFEST_FILE: &str = "edgetool.json";

/// The version of the manifest that is written, and the only one that is read.
pub const SCHEMA: &str = "edgetool-model/v1";

/// A converted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Name and version of the program that wrote it.
    pub producer: String,
    /// The ONNX opset of all graphs.
    pub opset: u32,
    /// Where the weights are: `link`, `copy` or `inline`.
    pub weights: String,
    /// What the graphs were rewritten for, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowering: Option<Lowering>,
    /// How graphs were quantized, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// What was done to float graphs, so that others quantize them better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// What connects the graphs.
    pub pipeline: Pipeline,
    /// What of the sampler is in the graphs, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// The graphs, in the order of use.
    pub components: Vec<Component>,
}

/// How the graphs were rewritten for a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lowering {
    /// The target, as it was used.
    pub target: Target,
    /// The pass and number of rewrites after which the rewriting was stopped, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<String>,
    /// The passes that changed a graph, in order.
    pub passes: Vec<PassRun>,
}

/// How graphs were quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Bits of weights and activations.
    pub scheme: Scheme,
    /// The types that stand for them, as they were used.
    pub precision: Precision,
    /// The device whose rules they follow, if the target has devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How ranges of activations were chosen: `min-max`, `mse`, `percentile:P`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<String>,
    /// By how much of itself a range of 16 bits goes further on either side than what was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<f64>,
    /// SHA-256 of the statistics that ranges were chosen from, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// What some layers have instead, as a precision plan says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PrecisionRule>,
    /// Factors that were put into the scheduler's steps of the graphs, and stand in `fold` as well; none if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler: Vec<SchedulerFit>,
    /// How weights became integers: `min-max`, `nearest`, `sequential-mse`, `gptq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<String>,
    /// What was done to the float graphs before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<String>,
    /// The components that are quantized, in the order of use; the others are as they were.
    pub components: Vec<String>,
}

/// Factors of one step of the scheduler, fitted to the quantized network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerFit {
    /// Of the weight of the sample.
    pub sample: f64,
    /// Of the weight of the UNet's output.
    pub output: f64,
}

/// What was done to float graphs that others are to quantize.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repaired {
    /// Bits of weights and activations that they are meant for.
    pub scheme: Scheme,
    /// How weights are expected to become integers: symmetric, a scale for each output channel.
    pub rounding: String,
    /// What was done: `smooth`, `bias`.
    pub repairs: Vec<String>,
    /// The components, in the order of use.
    pub components: Vec<String>,
}

/// What one pass did to one graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRun {
    /// The component's name.
    pub component: String,
    /// The pass's name.
    pub pass: String,
    /// In how many places it rewrote the graph.
    pub rewrites: usize,
    /// How far it is from exact, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approximation: Option<Approximation>,
}

/// A function that stands in for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approximation {
    /// What is approximated, and by what.
    pub what: String,
    /// The greatest difference of the two functions, for all arguments.
    pub bound: f32,
}

/// Facts that connect the graphs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Images per run.
    pub batch: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Pixels per latent element.
    pub vae_scale_factor: usize,
    /// Latents are divided by this before `vae_decoder`.
    pub vae_scaling_factor: f32,
    /// Latents are divided by this before `taesd_decoder`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taesd_scaling_factor: Option<f32>,
    /// Width of the UNet's guidance embedding, `timestep_cond`, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_embedding: Option<usize>,
}

/// One graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// `text_encoder`, `unet`, `vae_decoder`, ...
    pub name: String,
    /// Path of the model file from the manifest's folder, with `/`.
    pub file: String,
    /// SHA-256 of that file, in hexadecimal; external weights are not in it.
    pub sha256: String,
    /// What is fed, in order.
    pub inputs: Vec<Port>,
    /// What comes out, in order.
    pub outputs: Vec<Port>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, as numpy names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Manifest {
    /// Reads `folder/edgetool.json`.
    ///
    /// # Errors
    /// If it is not there, or not of this schema.
    pub fn open(folder: &Path) -> Result<Self, SpecError> {
        let path = folder.join(MANIFEST_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| SpecError::Io { path: path.clone(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.clone(), what: "manifest", reason };
        let manifest: Self = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {SCHEMA}", manifest.schema)));
        }
        Ok(manifest)
    }

    /// The manifest as it stands in its file.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The component with this name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|c| c.name == name)
    }
}

/// The SHA-256 of what a reader gives, in hexadecimal. Memory use does not grow with it.
///
/// # Errors
/// If reading fails.
pub fn sha256(mut reader: impl Read) -> std::io::Result<String> {
    let mut hash = Hasher::default();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hash.finish()),
            size => hash.update(&buffer[..size]),
        }
    }
}

/// The SHA-256 of bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum, in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_schema_is_read() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut manifest = Manifest {
            schema: SCHEMA.into(),
            producer: "edgetool".into(),
            opset: 17,
            weights: "copy".into(),
            lowering: None,
            quantization: None,
            repaired: None,
            pipeline: Pipeline {
                height: 64,
                width: 64,
                batch: 1,
                latent_channels: 4,
                vae_scale_factor: 8,
                vae_scaling_factor: 0.18215,
                taesd_scaling_factor: None,
                guidance_embedding: Some(256),
            },
            fold: None,
            components: Vec::new(),
        };
        let path = dir.path().join(MANIFEST_FILE);
        std::fs::write(&path, manifest.text()).expect("write");
        assert_eq!(Manifest::open(dir.path()).expect("a manifest"), manifest);
        manifest.schema = "edgetool-model/v9".into();
        std::fs::write(&path, manifest.text()).expect("write");
        let error = Manifest::open(dir.path()).expect_err("another version").to_string();
        assert!(error.ends_with("field `schema` is `edgetool-model/v9`, supported: edgetool-model/v1"), "{error}");
        assert_eq!(
            sha256(&b"abc"[..]).expect("memory"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
