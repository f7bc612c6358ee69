//! The pictures of `report.html`.

use anyhow::{Context, Result};
use edge_ir::Tensor;
use edge_run::picture::{Picture, write_png};
use edge_verify::metrics::pictures::{Pixels, difference_map};
use edge_verify::{Shown, ShownStep, aligned};

use super::drawn::{Drawn, pixels};

/// Prompts whose pictures are on the page.
const MOST: usize = 16;
/// How much brighter a difference is shown, at most.
const GAIN: u8 = 64;

/// What the page shows of the first prompts that both models have a picture of.
pub(super) fn shown(candidate: &[Drawn], reference: &[Drawn]) -> Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for (ours, theirs) in candidate.iter().zip(reference).take(MOST) {
        let (Some(ours_picture), Some(theirs_picture)) = (&ours.picture, &theirs.picture) else { break };
        let (c, r) = (pixels(ours_picture), pixels(theirs_picture));
        if (c.width, c.height) != (r.width, r.height) {
            break;
        }
        let gain = gain(&c, &r);
        shown.push(Shown {
            candidate: png(&c)?,
            difference: png(&difference_map(&c, &r, gain))?,
            width: c.width,
            reference: png(&r)?,
            gain,
            steps: steps(ours, theirs)?,
        });
    }
    Ok(shown)
}

/// So much that the greatest difference is white, or a power of two less.
fn gain(c: &Pixels, r: &Pixels) -> u8 {
    let most = c.rgb.iter().zip(&r.rgb).map(|(c, r)| c.abs_diff(*r)).max().unwrap_or_default();
    let gains = std::iter::successors(Some(GAIN), |gain| Some(gain / 2).filter(|half| *half > 0));
    gains.into_iter().find(|gain| most.checked_mul(*gain).is_some()).unwrap_or(1)
}

fn steps(ours: &Drawn, theirs: &Drawn) -> Result<Vec<ShownStep>> {
    let mut steps = Vec::new();
    for (step, reference) in &theirs.drawing.latents {
        let Some(candidate) = ours.drawing.latents.get(step).and_then(|c| aligned(c, reference)) else { continue };
        let numbers = reference.to_f32s();
        let (low, high) = numbers.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let latent = |numbers: &[f32]| latent(numbers, reference, (low, high));
        if let (Some(r), Some(c)) = (latent(&numbers), latent(&candidate)) {
            steps.push(ShownStep { step: *step, reference: png(&r)?, candidate: png(&c)? });
        }
    }
    Ok(steps)
}

/// The first three channels of a latent as colours, the range of the reference's numbers as that of a pixel.
fn latent(numbers: &[f32], like: &Tensor, (low, high): (f32, f32)) -> Option<Pixels> {
    let [.., channels, height, width] = like.ty.shape[..] else { return None };
    let plane = height * width;
    if channels < 3 || numbers.len() < 3 * plane || high <= low {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is between 0 and 255")]
    let byte = |v: f32| (((v - low) / (high - low)).clamp(0.0, 1.0) * 255.0).round() as u8;
    let rgb = (0..plane).flat_map(|at| [0, 1, 2].map(|channel| byte(numbers[channel * plane + at]))).collect();
    Some(Pixels { width, height, rgb })
}

fn png(pixels: &Pixels) -> Result<Vec<u8>> {
    let side = |pixels: usize| u32::try_from(pixels).context("a picture is too large");
    let picture = Picture {
        width: side(pixels.width)?,
        height: side(pixels.height)?,
        values: Vec::new(),
        rgb: pixels.rgb.clone(),
    };
    let mut bytes = Vec::new();
    write_png(&mut bytes, &picture, &[])?;
    Ok(bytes)
}
