//! A trained checkpoint on disk becomes a float [`Model`].
//!
//! A diffusers folder, a Hugging Face cache entry or an original-layout single file is opened (`source`), its
//! configurations are read strictly ([`config`]), and the graphs are built from them (`arch`), one file an
//! architecture. Weights stay where they are: the graphs hold views into the mapped files.

mod arch;
pub mod config;
mod error;
mod net;
mod rename;
mod source;
mod weights;

use std::path::Path;

use edge_ir::Model;
use indexmap::IndexMap;

pub use error::{Error, TensorProblem};
pub use net::{Options, TimestepShape, WeightType};
pub use source::{Checkpoint, Document};

use config::{ClipText, Kl, Tiny, Unet};

/// A checkpoint as graphs.
#[derive(Debug)]
pub struct Imported {
    /// `text_encoder`, `unet`, `vae_decoder`, `vae_encoder` and, where the checkpoint has one, `taesd_decoder`.
    pub model: Model,
    /// The checkpoint that the graphs were built from: its configurations, scheduler and tokenizer.
    pub checkpoint: Checkpoint,
    /// What the pipeline around the graphs has to know.
    pub pipeline: Pipeline,
}

/// Facts of the pipeline that are not in the graphs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Images per run.
    pub batch: usize,
    /// Pixels per latent element.
    pub vae_scale_factor: usize,
    /// Latents are divided by this before the decoder.
    pub vae_scaling_factor: f32,
    /// The same for the tiny decoder, if there is one.
    pub taesd_scaling_factor: Option<f32>,
    /// Width of the LCM guidance embedding, if the UNet has one.
    pub guidance_embedding: Option<usize>,
    /// Channels of a latent.
    pub latent_channels: usize,
}

/// Opens a checkpoint and builds all its graphs.
///
/// # Errors
/// If a file is missing or damaged, a configuration asks for something that is not implemented, or tensors are
/// missing, left over or of the wrong shape.
pub fn import(path: &Path, config: Option<&Path>, options: Options) -> Result<Imported, Error> {
    let checkpoint = Checkpoint::open(path, config)?;
    let unet = Unet::read(&checkpoint.unet.config)?;
    let text = ClipText::read(&checkpoint.text_encoder.config)?;
    let vae = source::VaeConfig::read(&checkpoint.vae.config)?;
    let taesd = checkpoint.taesd.as_ref().map(|c| Tiny::read(&c.config)).transpose()?;
    check_agreement(&checkpoint, &unet, &text, &vae)?;
    let factor = vae.scale_factor();
    let size = net::Size::new(options, unet.sample_size, factor, &checkpoint.unet.config)?;

    let mut components = IndexMap::new();
    let mut add = |name: &str, graph| components.insert(name.to_owned(), graph);
    add("text_encoder", arch::clip_text::build(&text, &checkpoint.text_encoder, size)?);
    let unet_size = net::Size { batch: options.unet_batch.unwrap_or(size.batch), ..size };
    add("unet", arch::unet::build(&unet, &checkpoint.unet, unet_size, text.max_position_embeddings)?);
    match &vae {
        source::VaeConfig::Kl(kl) => {
            let [decoder, encoder] = arch::autoencoder_kl::build(kl, &checkpoint.vae, size)?;
            add("vae_decoder", decoder);
            add("vae_encoder", encoder);
        }
        source::VaeConfig::Tiny(tiny) => {
            add("vae_decoder", arch::autoencoder_tiny::build(tiny, "vae_decoder", &checkpoint.vae, size)?);
        }
    }
    if let (Some(tiny), Some(part)) = (&taesd, &checkpoint.taesd) {
        add("taesd_decoder", arch::autoencoder_tiny::build(tiny, "taesd_decoder", part, size)?);
    }
    let pipeline = Pipeline {
        height: size.height * factor,
        width: size.width * factor,
        batch: size.batch,
        vae_scale_factor: factor,
        vae_scaling_factor: vae.scaling_factor(),
        taesd_scaling_factor: taesd.map(|t| t.scaling_factor),
        guidance_embedding: unet.time_cond_proj_dim,
        latent_channels: unet.in_channels,
    };
    Ok(Imported { model: Model { components }, checkpoint, pipeline })
}

/// Widths that two configurations state must be the same.
fn check_agreement(
    checkpoint: &Checkpoint,
    unet: &Unet,
    text: &ClipText,
    vae: &source::VaeConfig,
) -> Result<(), Error> {
    let file = &checkpoint.unet.config.path;
    if unet.cross_attention_dim != text.hidden_size {
        return Err(Error::field(
            file,
            "cross_attention_dim",
            unet.cross_attention_dim,
            format!("{}, the text encoder's hidden_size", text.hidden_size),
        ));
    }
    let latent = vae.latent_channels();
    if unet.in_channels != latent || unet.out_channels != latent {
        let found = format!("{} and {}", unet.in_channels, unet.out_channels);
        return Err(Error::field(
            file,
            "in_channels, out_channels",
            found,
            format!("{latent}, the VAE's latent_channels"),
        ));
    }
    Ok(())
}

impl source::VaeConfig {
    fn scale_factor(&self) -> usize {
        match self {
            Self::Kl(kl) => kl.scale_factor(),
            Self::Tiny(tiny) => tiny.scale_factor(),
        }
    }

    fn scaling_factor(&self) -> f32 {
        match self {
            Self::Kl(Kl { scaling_factor, .. }) | Self::Tiny(Tiny { scaling_factor, .. }) => *scaling_factor,
        }
    }

    fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(Kl { latent_channels, .. }) | Self::Tiny(Tiny { latent_channels, .. }) => *latent_channels,
        }
    }
}
