//! What one tensor is called in the layouts of the family.

mod ldm_unet;
mod ldm_vae;

/// How a file names the tensors of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// diffusers' names; a VAE's attention may have the names from before version 0.13.
    Diffusers,
    /// transformers' names, with or without the `text_model.` in front.
    Transformers,
    /// The UNet in an original-layout file.
    LdmUnet {
        /// ResNets in a down block.
        layers: usize,
    },
    /// The autoencoder in an original-layout file.
    LdmVae {
        /// Number of levels.
        levels: usize,
    },
    /// The text encoder in an original-layout file.
    LdmText,
}

/// New and old names of the parts of a VAE's attention.
const OLD_ATTENTION: &[(&str, &str)] =
    &[(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];

/// Prefix of the text encoder in an original-layout file.
pub(crate) const LDM_TEXT: &str = "cond_stage_model.transformer.";
/// Prefix of the UNet in an original-layout file.
pub(crate) const LDM_UNET: &str = "model.diffusion_model.";
/// Prefix of the autoencoder in an original-layout file.
pub(crate) const LDM_VAE: &str = "first_stage_model.";

impl Naming {
    /// The names that the tensor may have in the file, likeliest first.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        match self {
            Self::Diffusers => {
                let old =
                    OLD_ATTENTION.iter().filter(|(new, _)| name.contains(new)).map(|(new, old)| name.replace(new, old));
                std::iter::once(name.to_owned()).chain(old).collect()
            }
            Self::Transformers => vec![name.to_owned(), bare(name).to_owned()],
            Self::LdmUnet { layers } => vec![format!("{LDM_UNET}{}", ldm_unet::key(name, *layers))],
            Self::LdmVae { levels } => vec![format!("{LDM_VAE}{}", ldm_vae::key(name, *levels))],
            Self::LdmText => vec![format!("{LDM_TEXT}{name}"), format!("{LDM_TEXT}{}", bare(name))],
        }
    }

    /// Whether a tensor of the file belongs to the component.
    pub(crate) fn owns(&self, key: &str) -> bool {
        match self {
            Self::Diffusers | Self::Transformers => true,
            Self::LdmUnet { .. } => key.starts_with(LDM_UNET),
            Self::LdmVae { .. } => key.starts_with(LDM_VAE),
            Self::LdmText => key.starts_with(LDM_TEXT),
        }
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("text_model.").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_original_layout() {
        let unet = Naming::LdmUnet { layers: 2 };
        let vae = Naming::LdmVae { levels: 4 };
        for (naming, name, expected) in [
            (&unet, "conv_in.weight", "input_blocks.0.0.weight"),
            (&unet, "time_embedding.linear_2.bias", "time_embed.2.bias"),
            (&unet, "down_blocks.1.resnets.1.conv1.weight", "input_blocks.5.0.in_layers.2.weight"),
            (&unet, "down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
            (&unet, "down_blocks.2.attentions.0.proj_in.bias", "input_blocks.7.1.proj_in.bias"),
            (&unet, "mid_block.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"),
            (&unet, "up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"),
            (&unet, "up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
            (&unet, "up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"),
            (&unet, "conv_norm_out.weight", "out.0.weight"),
            (&vae, "decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.up.3.block.2.conv1.weight"),
            (&vae, "encoder.down_blocks.1.downsamplers.0.conv.bias", "encoder.down.1.downsample.conv.bias"),
            (&vae, "decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
            (&vae, "decoder.mid_block.attentions.0.group_norm.bias", "decoder.mid.attn_1.norm.bias"),
            (&vae, "encoder.down_blocks.1.resnets.0.conv_shortcut.bias", "encoder.down.1.block.0.nin_shortcut.bias"),
            (&vae, "encoder.conv_norm_out.bias", "encoder.norm_out.bias"),
            (&vae, "post_quant_conv.weight", "post_quant_conv.weight"),
        ] {
            let found = naming.candidates(name).remove(0);
            let prefix = if naming == &unet { LDM_UNET } else { LDM_VAE };
            assert_eq!(found, format!("{prefix}{expected}"), "{name}");
        }
    }
}
