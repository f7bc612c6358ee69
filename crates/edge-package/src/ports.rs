//! What a bundle says of a graph's inputs and outputs.

use edge_spec::bundle::{BundleComponent, BundlePort, MODEL_FOLDER};
use edge_spec::{Component, Fold, ImageLayout, Port};

/// Ports whose axes are images, channels, height and width.
const PLANES: &[&str] = &["sample", "noise", "out_sample", "latent_sample", "denoised", "prev_sample", "image"];
/// Ports whose axes are images, tokens and channels.
const TOKENS: &[&str] = &["encoder_hidden_states", "last_hidden_state"];
/// Ports whose axes are images and tokens.
const IDS: &[&str] = &["input_ids"];
/// Before the names of ports that belong to the negative prompt.
const NEGATIVE: &str = "negative_";

/// A component as the bundle's manifest describes it.
pub(crate) fn component(component: &Component, fold: Option<&Fold>) -> BundleComponent {
    let ports = |ports: &[Port]| ports.iter().map(|p| port(p, fold)).collect();
    BundleComponent {
        name: component.name.clone(),
        file: format!("{MODEL_FOLDER}/{}", component.file),
        inputs: ports(&component.inputs),
        outputs: ports(&component.outputs),
    }
}

fn port(port: &Port, fold: Option<&Fold>) -> BundlePort {
    let Port { name, dtype, shape } = port.clone();
    let layout = layout(&name, shape.len(), fold).map(str::to_owned);
    BundlePort { name, dtype, shape, layout, quantization: None }
}

/// The axes of a port, where its name says what it is.
fn layout(name: &str, rank: usize, fold: Option<&Fold>) -> Option<&'static str> {
    let name = name.strip_prefix(NEGATIVE).unwrap_or(name);
    // The noise of step 1 is `noise_1` where all steps are in one graph.
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let channels_last = fold.is_some_and(|f| matches!(f.image, ImageLayout::Nhwc | ImageLayout::NhwcU8));
    match rank {
        4 if name == "image" && channels_last => Some("NHWC"),
        4 if PLANES.contains(&name) => Some("NCHW"),
        3 if TOKENS.contains(&name) => Some("NLC"),
        2 if IDS.contains(&name) => Some("NL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_known_by_name() {
        for (name, rank, expected) in [
            ("sample", 4, Some("NCHW")),
            ("noise_1", 4, Some("NCHW")),
            ("negative_input_ids", 2, Some("NL")),
            ("last_hidden_state", 3, Some("NLC")),
            ("image", 4, Some("NCHW")),
            ("image", 3, None),
            ("timestep", 1, None),
        ] {
            assert_eq!(layout(name, rank, None), expected, "{name}");
        }
    }
}
