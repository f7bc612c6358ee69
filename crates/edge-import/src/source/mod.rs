//! Checkpoints on disk: what is where.

mod document;
mod folder;
mod hub;
mod single_file;

use std::path::{Path, PathBuf};

pub use document::Document;

use crate::Error;
use crate::config::{Kl, Tiny};
use crate::weights::Weights;

/// One network of a checkpoint.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its configuration.
    pub config: Document,
    /// Its tensors.
    pub weights: Weights,
}

/// An opened checkpoint: configurations are parsed, weight files are mapped, nothing is interpreted yet.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder that the configurations are in.
    pub root: PathBuf,
    /// `model_index.json`.
    pub model_index: Document,
    /// `text_encoder/`.
    pub text_encoder: Part,
    /// `unet/`.
    pub unet: Part,
    /// `vae/`.
    pub vae: Part,
    /// The folder of an `AutoencoderTiny` beside the VAE, if there is one.
    pub taesd: Option<Part>,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: Document,
    /// Files of `tokenizer/`, sorted.
    pub tokenizer: Vec<PathBuf>,
    /// Licence files at the top, sorted.
    pub licences: Vec<PathBuf>,
}

/// The configuration of what stands in `vae/`.
pub(crate) enum VaeConfig {
    /// An `AutoencoderKL`.
    Kl(Kl),
    /// An `AutoencoderTiny` in its place.
    Tiny(Tiny),
}

impl Checkpoint {
    /// Opens a diffusers folder, a Hugging Face cache entry, or an original-layout `.safetensors` file; the latter has
    /// no configurations, so `config` names a diffusers folder that has them.
    ///
    /// # Errors
    /// If something is not there, is damaged, or is not a checkpoint.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::not_found(
                path,
                "does not exist, expected a checkpoint: a diffusers folder or a .safetensors file",
            ));
        }
        if path.is_file() {
            return single_file::open(path, config);
        }
        folder::open(&hub::resolve(path)?)
    }
}

impl VaeConfig {
    /// Reads whichever the configuration's class is.
    pub(crate) fn read(document: &Document) -> Result<Self, Error> {
        match document.class() {
            Some("AutoencoderTiny") => Tiny::read(document).map(Self::Tiny),
            _ => Kl::read(document).map(Self::Kl),
        }
    }
}
