//! diffusers' `AutoencoderTiny` configuration (TAESD).

use super::fields::{Fields, Fixed};
use crate::Error;
use crate::source::Document;

/// A tiny autoencoder, of which the decoder is imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiny {
    /// Channels of an image.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of the decoder's levels, innermost first.
    pub decoder_block_out_channels: Vec<usize>,
    /// Residual blocks of the decoder's levels, innermost first.
    pub num_decoder_blocks: Vec<usize>,
    /// Latents are divided by this before the decoder.
    pub scaling_factor: f32,
}

const FIXED: &[Fixed] = &[
    ("act_fn", &["\"relu\""]),
    ("upsample_fn", &["\"nearest\""]),
    ("upsampling_scaling_factor", &["2"]),
    ("shift_factor", &["0.0", "0", "null"]),
];

/// Fields of the encoder, of 16-bit arithmetic, of 8-bit latents, and of `register_to_config`'s by-products.
const HARMLESS: &[&str] = &[
    "in_channels",
    "encoder_block_out_channels",
    "num_encoder_blocks",
    "force_upcast",
    "latent_magnitude",
    "latent_shift",
    "block_out_channels",
];

impl Tiny {
    /// Reads the `config.json` of an `AutoencoderTiny`; absent fields have diffusers' defaults.
    pub fn read(document: &Document) -> Result<Self, Error> {
        let f = Fields::new(document, "AutoencoderTiny")?;
        let config = Self {
            out_channels: f.size("out_channels", Some(3))?,
            latent_channels: f.size("latent_channels", Some(4))?,
            decoder_block_out_channels: f.sizes("decoder_block_out_channels")?.unwrap_or_else(|| vec![64; 4]),
            num_decoder_blocks: f.sizes("num_decoder_blocks")?.unwrap_or_else(|| vec![3, 3, 3, 1]),
            scaling_factor: f.number("scaling_factor", 1.0)?,
        };
        let (channels, blocks) = (config.decoder_block_out_channels.len(), config.num_decoder_blocks.len());
        if channels != blocks {
            return Err(f.refuse(
                "num_decoder_blocks",
                format!("a list of {blocks}"),
                format!("a list of {channels}, as decoder_block_out_channels is"),
            ));
        }
        f.finish(FIXED, HARMLESS)?;
        Ok(config)
    }

    /// Pixels per latent element.
    pub fn scale_factor(&self) -> usize {
        1 << (self.decoder_block_out_channels.len() - 1)
    }
}
