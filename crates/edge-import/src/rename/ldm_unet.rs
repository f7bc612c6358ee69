//! diffusers' UNet names in the original (CompVis) layout, as `convert_ldm_unet_checkpoint` of diffusers'
//! `loaders/single_file_utils.py` reads them.

const TOP: &[(&str, &str)] = &[
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
];

const RESNET: &[(&str, &str)] = &[
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The original name of diffusers' tensor `name`, below the UNet's prefix. `layers` is the ResNets in a down block.
/// Names that have no place there come back unchanged, and are then missing.
pub(super) fn key(name: &str, layers: usize) -> String {
    if let Some((new, old)) = TOP.iter().find(|(new, _)| name.starts_with(new)) {
        return name.replacen(new, old, 1);
    }
    block_key(name, layers).unwrap_or_else(|| name.to_owned())
}

fn block_key(name: &str, layers: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let (slot, kind, rest) = match *parts.as_slice() {
        ["mid_block", kind, index, ref rest @ ..] => {
            let slot = if kind == "resnets" { 2 * number(index)? } else { 1 };
            (format!("middle_block.{slot}"), kind, rest)
        }
        ["down_blocks", block, kind, index, ref rest @ ..] => {
            (down(number(block)?, kind, number(index)?, layers), kind, rest)
        }
        ["up_blocks", block, kind, index, ref rest @ ..] => {
            (up(number(block)?, kind, number(index)?, layers), kind, rest)
        }
        _ => return None,
    };
    match (kind, rest) {
        ("resnets", [part, end @ ..]) => {
            let (_, old) = RESNET.iter().find(|(new, _)| new == part)?;
            Some(format!("{slot}.{old}.{}", end.join(".")))
        }
        // The convolution of a down- or upsampler is `op` or `conv`, which the slot already says.
        ("downsamplers" | "upsamplers", [_, end @ ..]) => Some(format!("{slot}.{}", end.join("."))),
        _ => Some(format!("{slot}.{}", rest.join("."))),
    }
}

fn down(block: usize, kind: &str, index: usize, layers: usize) -> String {
    let per_block = layers + 1;
    match kind {
        "downsamplers" => format!("input_blocks.{}.0.op", (block + 1) * per_block),
        "resnets" => format!("input_blocks.{}.0", 1 + block * per_block + index),
        _ => format!("input_blocks.{}.1", 1 + block * per_block + index),
    }
}

fn up(block: usize, kind: &str, index: usize, layers: usize) -> String {
    let per_block = layers + 1;
    match kind {
        // The first up block has no attention in front of its upsampler.
        "upsamplers" => format!("output_blocks.{}.{}.conv", block * per_block + layers, if block == 0 { 1 } else { 2 }),
        "resnets" => format!("output_blocks.{}.0", block * per_block + index),
        _ => format!("output_blocks.{}.1", block * per_block + index),
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}
