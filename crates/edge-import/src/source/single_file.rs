//! An original-layout (CompVis) file: all networks in one `.safetensors`, without configurations and tokenizer. Those come
//! from a diffusers folder, as diffusers' `from_single_file(config=...)` takes them.

use std::path::Path;
use std::sync::Arc;

use super::{Checkpoint, Document, Part, VaeConfig, folder, hub};
use crate::config::Unet;
use crate::rename::{LDM_TEXT, LDM_UNET, LDM_VAE, Naming};
use crate::weights::{Tensors, Weights};
use crate::{Error, TensorProblem};

/// What training leaves in such files, by the start of the name: schedules that the scheduler's configuration states,
/// and a second, averaged copy of the UNet.
const HARMLESS: &[&str] = &[
    "alphas_cumprod",
    "betas",
    "log_one_minus_alphas_cumprod",
    "logvar",
    "lvlb_weights",
    "model_ema.",
    "posterior_",
    "sqrt_",
    "state_dict",
    "cond_stage_model.logit_scale",
    "cond_stage_model.text_projection",
];

/// Opens the file with the configurations of `config`.
pub(super) fn open(path: &Path, config: Option<&Path>) -> Result<Checkpoint, Error> {
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::not_found(path, "is not a checkpoint: expected a diffusers folder or a .safetensors file"));
    }
    let tensors = Weights::open_file(path)?;
    if !tensors.keys().any(|k| k.starts_with(LDM_UNET)) {
        return Err(Error::not_found(
            path,
            format!("has no `{LDM_UNET}*` tensors: it is not an original-layout checkpoint"),
        ));
    }
    let Some(config) = config else {
        return Err(Error::not_found(
            path,
            "has no configurations and no tokenizer: name a diffusers folder that has them with `--config`",
        ));
    };
    check_rest(path, &tensors)?;
    let root = hub::resolve(config)?;
    let unet_config = folder::config(&root, "unet")?;
    let vae_config = folder::config(&root, "vae")?;
    let layers = Unet::read(&unet_config)?.layers_per_block.first().copied().unwrap_or(1);
    let levels = match VaeConfig::read(&vae_config)? {
        VaeConfig::Kl(kl) => kl.block_out_channels.len(),
        VaeConfig::Tiny(_) => {
            return Err(Error::field(
                &vae_config.path,
                "_class_name",
                "AutoencoderTiny",
                "AutoencoderKL, for a single file",
            ));
        }
    };
    let tensors = Arc::new(tensors);
    let part = |config, naming| Part {
        config,
        weights: Weights { path: path.to_owned(), tensors: Arc::clone(&tensors), naming },
    };
    Ok(Checkpoint {
        model_index: Document::open(&root.join("model_index.json"))?,
        text_encoder: part(folder::config(&root, "text_encoder")?, Naming::LdmText),
        unet: part(unet_config, Naming::LdmUnet { layers }),
        vae: part(vae_config, Naming::LdmVae { levels }),
        taesd: folder::taesd(&root)?,
        scheduler: folder::scheduler(&root)?,
        tokenizer: folder::tokenizer(&root)?,
        licences: folder::licences(&root),
        root,
    })
}

/// Tensors outside of the three networks must be known.
fn check_rest(path: &Path, tensors: &Tensors) -> Result<(), Error> {
    let known = |key: &str| [LDM_TEXT, LDM_UNET, LDM_VAE].iter().chain(HARMLESS).any(|start| key.starts_with(start));
    let problems: Vec<_> = tensors
        .iter()
        .filter(|(key, _)| !known(key))
        .map(|(key, stored)| TensorProblem::Extra { name: key.clone(), found: stored.shape.clone() })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Tensors { component: "the checkpoint".into(), path: path.to_owned(), problems })
    }
}
