//! A folder as diffusers' `save_pretrained` writes it.

use std::path::{Path, PathBuf};

use super::{Checkpoint, Document, Part};
use crate::Error;
use crate::rename::Naming;
use crate::weights::Weights;

/// File name of diffusers' weights, without its ending.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";
/// File name of transformers' weights, without its ending.
const TRANSFORMERS_STEM: &str = "model";

/// Opens everything that edgetool reads of a diffusers folder.
pub(super) fn open(root: &Path) -> Result<Checkpoint, Error> {
    let index = root.join("model_index.json");
    if !index.exists() {
        return Err(Error::not_found(root, "is not a diffusers folder: it has no `model_index.json`"));
    }
    Ok(Checkpoint {
        root: root.to_owned(),
        model_index: Document::open(&index)?,
        text_encoder: part(root, "text_encoder", TRANSFORMERS_STEM, Naming::Transformers)?,
        unet: part(root, "unet", DIFFUSERS_STEM, Naming::Diffusers)?,
        vae: part(root, "vae", DIFFUSERS_STEM, Naming::Diffusers)?,
        taesd: taesd(root)?,
        scheduler: scheduler(root)?,
        tokenizer: tokenizer(root)?,
        licences: licences(root),
    })
}

/// One component's configuration and weights.
pub(super) fn part(root: &Path, name: &str, stem: &str, naming: Naming) -> Result<Part, Error> {
    Ok(Part { config: config(root, name)?, weights: Weights::in_folder(&root.join(name), stem, naming)? })
}

/// One component's configuration.
pub(super) fn config(root: &Path, name: &str) -> Result<Document, Error> {
    let path = root.join(name).join("config.json");
    if path.exists() {
        Document::open(&path)
    } else {
        Err(Error::not_found(&path, format!("is not there: the checkpoint has no {name}")))
    }
}

/// The first folder, by name, that holds an `AutoencoderTiny` and is not the VAE.
pub(super) fn taesd(root: &Path) -> Result<Option<Part>, Error> {
    for folder in entries(root).into_iter().filter(|p| p.is_dir() && !p.ends_with("vae")) {
        let path = folder.join("config.json");
        let document = if path.exists() { Document::open(&path)? } else { continue };
        if document.class() == Some("AutoencoderTiny") {
            let weights = Weights::in_folder(&folder, DIFFUSERS_STEM, Naming::Diffusers)?;
            return Ok(Some(Part { config: document, weights }));
        }
    }
    Ok(None)
}

pub(super) fn scheduler(root: &Path) -> Result<Document, Error> {
    let path = root.join("scheduler/scheduler_config.json");
    if path.exists() {
        Document::open(&path)
    } else {
        Err(Error::not_found(&path, "is not there: the checkpoint has no scheduler"))
    }
}

pub(super) fn tokenizer(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let folder = root.join("tokenizer");
    let files: Vec<_> = entries(&folder).into_iter().filter(|p| p.is_file()).collect();
    let named = |name: &str| files.iter().any(|p| p.ends_with(name));
    if named("tokenizer.json") || (named("vocab.json") && named("merges.txt")) {
        return Ok(files);
    }
    Err(Error::not_found(&folder, "holds no tokenizer, expected `tokenizer.json`, or `vocab.json` and `merges.txt`"))
}

pub(super) fn licences(root: &Path) -> Vec<PathBuf> {
    let is_licence = |p: &PathBuf| {
        let name = p.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        name.starts_with("license") || name.starts_with("licence")
    };
    entries(root).into_iter().filter(|p| p.is_file() && is_licence(p)).collect()
}

/// What is in a folder, sorted; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).map(|e| e.filter_map(Result::ok).map(|e| e.path()).collect()).unwrap_or_default();
    paths.sort();
    paths
}
