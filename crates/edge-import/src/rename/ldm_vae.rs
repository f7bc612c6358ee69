//! diffusers' `AutoencoderKL` names in the original (CompVis) layout, as `convert_ldm_vae_checkpoint` of diffusers'
//! `loaders/single_file_utils.py` reads them.

const ATTENTION: &[(&str, &str)] =
    &[("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];

/// The original name of diffusers' tensor `name`, below the autoencoder's prefix, for a model of `levels` levels.
pub(super) fn key(name: &str, levels: usize) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let original = match *parts.as_slice() {
        [side @ ("encoder" | "decoder"), ref rest @ ..] => side_key(rest, levels).map(|rest| format!("{side}.{rest}")),
        _ => None,
    };
    original.unwrap_or_else(|| name.to_owned()).replace("conv_shortcut", "nin_shortcut")
}

fn side_key(rest: &[&str], levels: usize) -> Option<String> {
    match *rest {
        ["conv_norm_out", end] => Some(format!("norm_out.{end}")),
        ["mid_block", "resnets", index, ref end @ ..] => {
            Some(format!("mid.block_{}.{}", number(index)? + 1, end.join(".")))
        }
        ["mid_block", "attentions", "0", ref part @ .., end] => {
            let part = part.join(".");
            let (_, old) = ATTENTION.iter().find(|(new, _)| *new == part)?;
            Some(format!("mid.attn_1.{old}.{end}"))
        }
        ["down_blocks", block, "resnets", index, ref end @ ..] => {
            Some(format!("down.{block}.block.{index}.{}", end.join(".")))
        }
        ["down_blocks", block, "downsamplers", _, ref end @ ..] => {
            Some(format!("down.{block}.downsample.{}", end.join(".")))
        }
        ["up_blocks", block, "resnets", index, ref end @ ..] => {
            Some(format!("up.{}.block.{index}.{}", levels.checked_sub(number(block)? + 1)?, end.join(".")))
        }
        ["up_blocks", block, "upsamplers", _, ref end @ ..] => {
            Some(format!("up.{}.upsample.{}", levels.checked_sub(number(block)? + 1)?, end.join(".")))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}
