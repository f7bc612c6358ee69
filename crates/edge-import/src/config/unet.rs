//! diffusers' `UNet2DConditionModel` configuration.

use super::fields::{Fields, Fixed};
use crate::Error;
use crate::source::Document;

/// The kind of a down or up block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// ResNets only (`DownBlock2D`, `UpBlock2D`).
    Plain,
    /// A transformer after each ResNet (`CrossAttnDownBlock2D`, `CrossAttnUpBlock2D`).
    CrossAttention,
}

/// A conditional UNet.
#[derive(Clone, Debug, PartialEq)]
pub struct Unet {
    /// Height and width of a latent, if the configuration says.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Time embedding is `[cos, sin]` if set, `[sin, cos]` otherwise.
    pub flip_sin_to_cos: bool,
    /// Taken off the divisor of the time embedding's exponents.
    pub freq_shift: usize,
    /// Down blocks, outermost first.
    pub down_blocks: Vec<Block>,
    /// Whether there is a mid block (BK-SDM's Small and Tiny have none).
    pub mid_block: bool,
    /// Up blocks, innermost first.
    pub up_blocks: Vec<Block>,
    /// Channels of each level, outermost first.
    pub block_out_channels: Vec<usize>,
    /// ResNets in each down block.
    pub layers_per_block: Vec<usize>,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Added to variances.
    pub norm_eps: f32,
    /// Channels of the text encoder's output.
    pub cross_attention_dim: usize,
    /// Transformer blocks per transformer, by level.
    pub transformer_layers: Vec<usize>,
    /// Attention heads by level: diffusers calls the field `attention_head_dim`.
    pub heads: Vec<usize>,
    /// Whether `proj_in` and `proj_out` are linear layers, not 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Width of the LCM guidance embedding.
    pub time_cond_proj_dim: Option<usize>,
}

/// Fields of which one value is implemented.
const FIXED: &[Fixed] = &[
    ("center_input_sample", &["false"]),
    ("only_cross_attention", &["false", "[false,false,false]", "[false,false,false,false]"]),
    ("downsample_padding", &["1"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("encoder_hid_dim", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("num_attention_heads", &["null"]),
    ("dual_cross_attention", &["false"]),
    ("class_embed_type", &["null"]),
    ("addition_embed_type", &["null"]),
    ("addition_time_embed_dim", &["null"]),
    ("num_class_embeds", &["null"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("resnet_skip_time_act", &["false"]),
    ("resnet_out_scale_factor", &["1.0", "1"]),
    ("time_embedding_type", &["\"positional\""]),
    ("time_embedding_dim", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("timestep_post_act", &["null"]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("projection_class_embeddings_input_dim", &["null"]),
    ("attention_type", &["\"default\""]),
    ("class_embeddings_concat", &["false"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("cross_attention_norm", &["null"]),
];

/// Fields without effect on inference in 32-bit arithmetic, or that only go with one that is refused.
const HARMLESS: &[&str] = &["dropout", "upcast_attention", "addition_embed_type_num_heads"];

const DOWN: &[(&str, Block)] = &[("CrossAttnDownBlock2D", Block::CrossAttention), ("DownBlock2D", Block::Plain)];
const UP: &[(&str, Block)] = &[("CrossAttnUpBlock2D", Block::CrossAttention), ("UpBlock2D", Block::Plain)];

impl Unet {
    /// Reads `unet/config.json`; absent fields have diffusers' defaults.
    pub fn read(document: &Document) -> Result<Self, Error> {
        let f = Fields::new(document, "UNet2DConditionModel")?;
        let channels = f.sizes("block_out_channels")?.unwrap_or_else(|| vec![320, 640, 1280, 1280]);
        let levels = channels.len();
        let config = Self {
            sample_size: f.pair("sample_size")?,
            in_channels: f.size("in_channels", Some(4))?,
            out_channels: f.size("out_channels", Some(4))?,
            flip_sin_to_cos: f.flag("flip_sin_to_cos", true)?,
            freq_shift: f.count("freq_shift", 0)?,
            down_blocks: f.words("down_block_types", DOWN)?,
            mid_block: mid_block(&f, document)?,
            up_blocks: f.words("up_block_types", UP)?,
            layers_per_block: f.per_place("layers_per_block", levels, Some(2))?,
            norm_num_groups: f.size("norm_num_groups", Some(32))?,
            norm_eps: f.number("norm_eps", 1e-5)?,
            cross_attention_dim: f.size("cross_attention_dim", Some(1280))?,
            transformer_layers: f.per_place("transformer_layers_per_block", levels, Some(1))?,
            heads: f.per_place("attention_head_dim", levels, Some(8))?,
            use_linear_projection: f.flag("use_linear_projection", false)?,
            time_cond_proj_dim: f.optional_size("time_cond_proj_dim")?,
            block_out_channels: channels,
        };
        config.check(&f)?;
        f.finish(FIXED, HARMLESS)?;
        Ok(config)
    }

    fn check(&self, f: &Fields<'_>) -> Result<(), Error> {
        let levels = self.block_out_channels.len();
        for (key, found) in [("down_block_types", self.down_blocks.len()), ("up_block_types", self.up_blocks.len())] {
            if found != levels {
                return Err(f.refuse(
                    key,
                    format!("a list of {found}"),
                    format!("a list of {levels}, as block_out_channels is"),
                ));
            }
        }
        for (channels, heads) in self.block_out_channels.iter().zip(&self.heads) {
            if channels % heads != 0 {
                return Err(f.refuse(
                    "attention_head_dim",
                    heads,
                    format!("a divisor of {channels}: it is the number of heads"),
                ));
            }
            if channels % self.norm_num_groups != 0 {
                return Err(f.refuse("norm_num_groups", self.norm_num_groups, format!("a divisor of {channels}")));
            }
        }
        if !self.block_out_channels[0].is_multiple_of(2) {
            return Err(f.refuse(
                "block_out_channels",
                self.block_out_channels[0],
                "an even number of channels at the first level",
            ));
        }
        Ok(())
    }
}

/// An absent field means diffusers' default, a null means that there is none.
fn mid_block(f: &Fields<'_>, document: &Document) -> Result<bool, Error> {
    if !f.has("mid_block_type") && document.fields.contains_key("mid_block_type") {
        return Ok(false);
    }
    f.word("mid_block_type", Some("UNetMidBlock2DCrossAttn"), &[("UNetMidBlock2DCrossAttn", true)])
}
