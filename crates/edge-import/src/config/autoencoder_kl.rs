//! diffusers' `AutoencoderKL` configuration.

use super::fields::{Fields, Fixed};
use crate::Error;
use crate::source::Document;

/// A variational autoencoder, as Stable Diffusion's.
#[derive(Clone, Debug, PartialEq)]
pub struct Kl {
    /// Channels of an image on the way in.
    pub in_channels: usize,
    /// Channels of an image on the way out.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level, outermost first.
    pub block_out_channels: Vec<usize>,
    /// ResNets in a down block; an up block has one more.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this after the encoder and divided by it before the decoder.
    pub scaling_factor: f32,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the mid blocks have an attention.
    pub mid_block_add_attention: bool,
}

const FIXED: &[Fixed] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("shift_factor", &["null", "0.0", "0"]),
    ("latents_mean", &["null"]),
    ("latents_std", &["null"]),
];

/// `force_upcast` is about 16-bit arithmetic, `sample_size` about tiling.
const HARMLESS: &[&str] = &["force_upcast", "sample_size"];

impl Kl {
    /// Reads `vae/config.json`; absent fields have diffusers' defaults.
    pub fn read(document: &Document) -> Result<Self, Error> {
        let f = Fields::new(document, "AutoencoderKL")?;
        let config = Self {
            in_channels: f.size("in_channels", Some(3))?,
            out_channels: f.size("out_channels", Some(3))?,
            latent_channels: f.size("latent_channels", Some(4))?,
            block_out_channels: f.sizes("block_out_channels")?.unwrap_or_else(|| vec![64]),
            layers_per_block: f.size("layers_per_block", Some(1))?,
            norm_num_groups: f.size("norm_num_groups", Some(32))?,
            scaling_factor: f.number("scaling_factor", 0.18215)?,
            use_quant_conv: f.flag("use_quant_conv", true)?,
            use_post_quant_conv: f.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: f.flag("mid_block_add_attention", true)?,
        };
        let levels = config.block_out_channels.len();
        for (key, table) in
            [("down_block_types", [("DownEncoderBlock2D", ())]), ("up_block_types", [("UpDecoderBlock2D", ())])]
        {
            let found = f.words(key, &table)?.len();
            if found != levels {
                return Err(f.refuse(
                    key,
                    format!("a list of {found}"),
                    format!("a list of {levels}, as block_out_channels is"),
                ));
            }
        }
        if let Some(channels) = config.block_out_channels.iter().find(|c| *c % config.norm_num_groups != 0) {
            return Err(f.refuse("norm_num_groups", config.norm_num_groups, format!("a divisor of {channels}")));
        }
        f.finish(FIXED, HARMLESS)?;
        Ok(config)
    }

    /// Pixels per latent element.
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
