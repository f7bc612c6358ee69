//! diffusers' `AutoencoderKL` (`models/autoencoders/autoencoder_kl.py`, `vae.py`).
//!
//! Decoder: `latent_sample` `[batch,c,h,w]`, divided by the scaling factor, to `sample` `[batch,3,8h,8w]`, about [-1, 1].
//! Encoder: `sample` to `latent_parameters` `[batch,2c,h,w]`, the mean and the logarithm of the variance.

use edge_ir::{Checked, DType, Graph, ValueId};

use super::layers::{Attention, Resnet};
use crate::Error;
use crate::config::Kl;
use crate::net::{Net, Size};
use crate::source::Part;

/// diffusers fixes this for all norms of the autoencoder.
const EPSILON: f32 = 1e-6;

/// Builds `vae_decoder` and `vae_encoder`.
pub(crate) fn build(config: &Kl, part: &Part, size: Size) -> Result<[Checked<Graph>; 2], Error> {
    let (decoder, mut used) = decoder(config, part, size)?;
    let (encoder, more) = encoder(config, part, size)?;
    used.extend(more);
    part.weights.check_all_used("vae", &used, &[])?;
    Ok([decoder, encoder])
}

type Built = (Checked<Graph>, std::collections::BTreeSet<String>);

fn decoder(config: &Kl, part: &Part, size: Size) -> Result<Built, Error> {
    let mut net = Net::new("vae_decoder", part, size);
    let shape = [size.batch, config.latent_channels, size.height, size.width];
    let mut x = net.b.input("latent_sample", DType::Float32, &shape);
    if config.use_post_quant_conv {
        x = net.conv("post_quant_conv", x, config.latent_channels, 1, 1, 0)?;
    }
    let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
    x = net.conv("decoder.conv_in", x, channels[0], 3, 1, 1)?;
    x = mid_block(&mut net, "decoder.mid_block", x, config, size.batch)?;
    for (level, out) in channels.iter().enumerate() {
        let name = format!("decoder.up_blocks.{level}");
        for index in 0..=config.layers_per_block {
            x = net.resnet(&format!("{name}.resnets.{index}"), x, resnet(config, *out))?;
        }
        if level + 1 < channels.len() {
            let (height, width) = (net.b.shape(x)[2] * 2, net.b.shape(x)[3] * 2);
            x = net.upsample(&format!("{name}.upsamplers.0/Resize"), x, height, width)?;
            x = net.conv(&format!("{name}.upsamplers.0.conv"), x, *out, 3, 1, 1)?;
        }
    }
    let x = output_head(&mut net, "decoder", x, config, config.out_channels)?;
    net.finish("sample", x)
}

fn encoder(config: &Kl, part: &Part, size: Size) -> Result<Built, Error> {
    let mut net = Net::new("vae_encoder", part, size);
    let shape = [size.batch, config.in_channels, size.height * size.factor, size.width * size.factor];
    let x = net.b.input("sample", DType::Float32, &shape);
    let channels = &config.block_out_channels;
    let mut x = net.conv("encoder.conv_in", x, channels[0], 3, 1, 1)?;
    for (level, out) in channels.iter().enumerate() {
        let name = format!("encoder.down_blocks.{level}");
        for index in 0..config.layers_per_block {
            x = net.resnet(&format!("{name}.resnets.{index}"), x, resnet(config, *out))?;
        }
        if level + 1 < channels.len() {
            // diffusers pads below and to the right only.
            x = net.conv_with(&format!("{name}.downsamplers.0.conv"), x, (*out, 3, 2), [0, 0, 1, 1], true)?;
        }
    }
    let x = mid_block(&mut net, "encoder.mid_block", x, config, size.batch)?;
    let moments = 2 * config.latent_channels;
    let mut x = output_head(&mut net, "encoder", x, config, moments)?;
    if config.use_quant_conv {
        x = net.conv("quant_conv", x, moments, 1, 1, 0)?;
    }
    net.finish("latent_parameters", x)
}

fn resnet(config: &Kl, out: usize) -> Resnet {
    Resnet { out, groups: config.norm_num_groups, epsilon: EPSILON, time: None }
}

/// `UNetMidBlock2D`: ResNet, attention with one head over all pixels, ResNet.
fn mid_block(net: &mut Net<'_>, name: &str, x: ValueId, config: &Kl, batch: usize) -> Result<ValueId, Error> {
    let shape = net.b.shape(x).to_vec();
    let spec = resnet(config, shape[1]);
    let mut x = net.resnet(&format!("{name}.resnets.0"), x, spec)?;
    if config.mid_block_add_attention {
        let name = format!("{name}.attentions.0");
        let attention =
            Attention { projections: ["to_q", "to_k", "to_v", "to_out.0"], bias: true, batch, heads: 1, mask: None };
        let h = net.group_norm(&format!("{name}.group_norm"), x, config.norm_num_groups, EPSILON)?;
        let h = net.rows_of(&name, h)?;
        let h = net.attention(&name, h, h, &attention)?;
        let h = net.image_of(&name, h, &shape)?;
        x = net.add(&format!("{name}/Add"), h, x)?;
    }
    net.resnet(&format!("{name}.resnets.1"), x, spec)
}

fn output_head(net: &mut Net<'_>, side: &str, x: ValueId, config: &Kl, out: usize) -> Result<ValueId, Error> {
    let x = net.group_norm(&format!("{side}.conv_norm_out"), x, config.norm_num_groups, EPSILON)?;
    let x = net.silu(&format!("{side}.conv_act"), x)?;
    net.conv(&format!("{side}.conv_out"), x, out, 3, 1, 1)
}
