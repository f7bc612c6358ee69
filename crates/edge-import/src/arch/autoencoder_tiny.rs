//! diffusers' `AutoencoderTiny` (`models/autoencoders/vae.py`, `DecoderTiny`): the decoder of TAESD.
//!
//! In: `latent_sample` `[batch,c,h,w]`, divided by the configuration's scaling factor. Out: `sample`
//! `[batch,3,8h,8w]`, about [-1, 1].

use edge_ir::{Checked, DType, Graph, ValueId};

use crate::Error;
use crate::config::Tiny;
use crate::net::{Net, Size};
use crate::source::Part;

/// Builds the decoder under this component name.
pub(crate) fn build(config: &Tiny, component: &str, part: &Part, size: Size) -> Result<Checked<Graph>, Error> {
    let mut net = Net::new(component, part, size);
    let x =
        net.b.input("latent_sample", DType::Float32, &[size.batch, config.latent_channels, size.height, size.width]);
    let x = soft_clamp(&mut net, x)?;
    let mut layer = 0;
    let mut next = || {
        layer += 1;
        format!("decoder.layers.{}", layer - 1)
    };
    let first = config.decoder_block_out_channels[0];
    let x = net.conv(&next(), x, first, 3, 1, 1)?;
    let mut x = net.b.node("Relu", &next(), &[x], &[])?;
    let last = config.num_decoder_blocks.len() - 1;
    for (level, (channels, blocks)) in
        config.decoder_block_out_channels.iter().zip(&config.num_decoder_blocks).enumerate()
    {
        for _ in 0..*blocks {
            x = block(&mut net, &next(), x, *channels)?;
        }
        if level == last {
            x = net.conv(&next(), x, config.out_channels, 3, 1, 1)?;
        } else {
            let (height, width) = (net.b.shape(x)[2] * 2, net.b.shape(x)[3] * 2);
            x = net.upsample(&next(), x, height, width)?;
            // The convolution after an upsampling keeps the channels: the next level's blocks need as many.
            x = net.conv_with(&next(), x, (*channels, 3, 1), [1; 4], false)?;
        }
    }
    let x = net.scale("decoder/Mul", x, 2.0)?;
    let one = net.scalar(1.0);
    let x = net.b.node("Sub", "decoder/Sub", &[x, one], &[])?;
    let (graph, used) = net.finish("sample", x)?;
    part.weights.check_all_used(component, &used, &["encoder."])?;
    Ok(graph)
}

/// `3 tanh(x / 3)`.
fn soft_clamp(net: &mut Net<'_>, x: ValueId) -> Result<ValueId, Error> {
    let three = net.scalar(3.0);
    let x = net.b.node("Div", "decoder/Div", &[x, three], &[])?;
    let x = net.b.node("Tanh", "decoder/Tanh", &[x], &[])?;
    net.scale("decoder/Mul.clamp", x, 3.0)
}

/// `AutoencoderTinyBlock`: three convolutions, and the input added before the last activation.
fn block(net: &mut Net<'_>, name: &str, x: ValueId, channels: usize) -> Result<ValueId, Error> {
    let skip = if net.b.shape(x)[1] == channels {
        x
    } else {
        net.conv_with(&format!("{name}.skip"), x, (channels, 1, 1), [0; 4], false)?
    };
    let mut h = x;
    for (index, more) in [(0, true), (2, true), (4, false)] {
        h = net.conv(&format!("{name}.conv.{index}"), h, channels, 3, 1, 1)?;
        if more {
            h = net.b.node("Relu", &format!("{name}.conv.{}", index + 1), &[h], &[])?;
        }
    }
    let sum = net.add(&format!("{name}/Add"), h, skip)?;
    Ok(net.b.node("Relu", &format!("{name}.fuse"), &[sum], &[])?)
}
