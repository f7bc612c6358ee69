//! transformers' `CLIPTextConfig`.

use super::fields::Fields;
use crate::Error;
use crate::source::Document;

/// The activation between the two layers of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x/2 * (1 + erf(x/sqrt 2))`.
    Gelu,
}

/// A CLIP text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipText {
    /// Tokens in the embedding table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels between the layers of an MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Tokens of a prompt.
    pub max_position_embeddings: usize,
    /// Activation of the MLPs.
    pub hidden_act: Activation,
    /// Added to variances.
    pub layer_norm_eps: f32,
}

/// Fields that matter to training, to generation of text, or to heads that diffusion models do not use.
const HARMLESS: &[&str] = &[
    "attention_dropout",
    "dropout",
    "initializer_factor",
    "initializer_range",
    "projection_dim",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
    "gradient_checkpointing",
    "export_model_type",
];

impl ClipText {
    /// Reads `text_encoder/config.json`; absent fields have `CLIPTextConfig`'s defaults.
    pub fn read(document: &Document) -> Result<Self, Error> {
        let f = Fields::new(document, "CLIPTextModel")?;
        let config = Self {
            vocab_size: f.size("vocab_size", Some(49408))?,
            hidden_size: f.size("hidden_size", Some(512))?,
            intermediate_size: f.size("intermediate_size", Some(2048))?,
            num_hidden_layers: f.size("num_hidden_layers", Some(12))?,
            num_attention_heads: f.size("num_attention_heads", Some(8))?,
            max_position_embeddings: f.size("max_position_embeddings", Some(77))?,
            hidden_act: f.word(
                "hidden_act",
                Some("quick_gelu"),
                &[("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu)],
            )?,
            layer_norm_eps: f.number("layer_norm_eps", 1e-5)?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(f.refuse(
                "num_attention_heads",
                config.num_attention_heads,
                format!("a divisor of hidden_size {}", config.hidden_size),
            ));
        }
        f.finish(&[("use_attention_mask", &["false"])], HARMLESS)?;
        Ok(config)
    }
}
