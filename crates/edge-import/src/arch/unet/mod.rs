//! diffusers' `UNet2DConditionModel` (`models/unets/unet_2d_condition.py`) as Stable Diffusion 1.x and 2.x, BK-SDM and
//! LCM use it.
//!
//! In: `sample` `[batch,c,h,w]`, `timestep` int64 `[1]` or `[batch]`, `encoder_hidden_states` `[batch,tokens,width]` and,
//! where the model has a guidance embedding, `timestep_cond` `[batch,its width]`. Out: `out_sample` like `sample`.

mod time;
mod transformer;

use edge_ir::{Attribute, Checked, DType, Graph, ValueId};

use super::layers::Resnet;
use crate::Error;
use crate::config::{Block, Unet};
use crate::net::{Net, Size};
use crate::source::Part;

/// Builds the UNet for prompts of `tokens` tokens.
pub(crate) fn build(config: &Unet, part: &Part, size: Size, tokens: usize) -> Result<Checked<Graph>, Error> {
    let mut net = Net::new("unet", part, size);
    let x = net.b.input("sample", DType::Float32, &[size.batch, config.in_channels, size.height, size.width]);
    let time = time::inputs(&mut net, config, size);
    let context =
        net.b.input("encoder_hidden_states", DType::Float32, &[size.batch, tokens, config.cross_attention_dim]);
    let time = time::embedding(&mut net, config, &time)?;
    let context =
        net.reshape("encoder_hidden_states/Reshape", context, &[size.batch * tokens, config.cross_attention_dim])?;
    let mut unet = Body { net, config, batch: size.batch, time, context, skips: Vec::new() };
    let x = unet.net.conv("conv_in", x, config.block_out_channels[0], 3, 1, 1)?;
    unet.skips.push(x);
    let x = unet.down(x)?;
    let x = if config.mid_block { unet.mid(x)? } else { x };
    let x = unet.up(x)?;
    let mut net = unet.net;
    let x = net.group_norm("conv_norm_out", x, config.norm_num_groups, config.norm_eps)?;
    let x = net.silu("conv_act", x)?;
    let x = net.conv("conv_out", x, config.out_channels, 3, 1, 1)?;
    let (graph, used) = net.finish("out_sample", x)?;
    part.weights.check_all_used("unet", &used, &[])?;
    Ok(graph)
}

/// The UNet between its first and last convolution.
struct Body<'a> {
    net: Net<'a>,
    config: &'a Unet,
    batch: usize,
    /// The activated time embedding.
    time: ValueId,
    /// The prompt's hidden states as rows.
    context: ValueId,
    /// Outputs of the down path that the up path joins in, last first.
    skips: Vec<ValueId>,
}

impl Body<'_> {
    fn down(&mut self, mut x: ValueId) -> Result<ValueId, Error> {
        let levels = self.config.block_out_channels.len();
        for level in 0..levels {
            let name = format!("down_blocks.{level}");
            let out = self.config.block_out_channels[level];
            for index in 0..self.config.layers_per_block[level] {
                x = self.resnet(&format!("{name}.resnets.{index}"), x, out)?;
                if self.config.down_blocks[level] == Block::CrossAttention {
                    x = self.transformer(&format!("{name}.attentions.{index}"), x, level)?;
                }
                self.skips.push(x);
            }
            if level + 1 < levels {
                x = self.net.conv(&format!("{name}.downsamplers.0.conv"), x, out, 3, 2, 1)?;
                self.skips.push(x);
            }
        }
        Ok(x)
    }

    fn mid(&mut self, x: ValueId) -> Result<ValueId, Error> {
        let level = self.config.block_out_channels.len() - 1;
        let out = self.config.block_out_channels[level];
        let x = self.resnet("mid_block.resnets.0", x, out)?;
        let x = self.transformer("mid_block.attentions.0", x, level)?;
        self.resnet("mid_block.resnets.1", x, out)
    }

    fn up(&mut self, mut x: ValueId) -> Result<ValueId, Error> {
        let levels = self.config.block_out_channels.len();
        for (block, kind) in self.config.up_blocks.iter().enumerate() {
            let level = levels - 1 - block;
            let name = format!("up_blocks.{block}");
            let out = self.config.block_out_channels[level];
            for index in 0..=self.config.layers_per_block[level] {
                if let Some(skip) = self.skips.pop() {
                    x = self.net.b.node(
                        "Concat",
                        &format!("{name}.resnets.{index}/Concat"),
                        &[x, skip],
                        &[("axis", Attribute::Int(1))],
                    )?;
                }
                x = self.resnet(&format!("{name}.resnets.{index}"), x, out)?;
                if *kind == Block::CrossAttention {
                    x = self.transformer(&format!("{name}.attentions.{index}"), x, level)?;
                }
            }
            if let (true, Some(skip)) = (level > 0, self.skips.last()) {
                // Twice the size, or one less where the down path rounded up.
                let (height, width) = (self.net.b.shape(*skip)[2], self.net.b.shape(*skip)[3]);
                x = self.net.upsample(&format!("{name}.upsamplers.0/Resize"), x, height, width)?;
                x = self.net.conv(&format!("{name}.upsamplers.0.conv"), x, out, 3, 1, 1)?;
            }
        }
        Ok(x)
    }

    fn resnet(&mut self, name: &str, x: ValueId, out: usize) -> Result<ValueId, Error> {
        let spec =
            Resnet { out, groups: self.config.norm_num_groups, epsilon: self.config.norm_eps, time: Some(self.time) };
        self.net.resnet(name, x, spec)
    }
}
