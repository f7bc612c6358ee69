//! The sinusoidal embeddings of the guidance scale and of the timestep.
//!
//! Two conventions live in one network and differ in order and in divisor: the guidance embedding is
//! [sin, cos] over `half - 1`, the timestep embedding of Stable Diffusion [cos, sin] over `half`.
//! Every operation is rounded to `f32` as in diffusers; the functions are computed in `f64` and
//! rounded once, so that they do not depend on a vector library.

/// ln 10000: the frequencies fall from 1 to 1/10000.
const LN_MAX_PERIOD: f64 = 9.210_340_371_976_184;

/// The embedding of the guidance weight `w`, `dim` values: sines, then cosines, of `1000 w` times each
/// frequency, then a zero if `dim` is odd.
///
/// The pipeline passes `w = guidance_scale - 1`; `dim` is the network's `time_cond_proj_dim`. Source:
/// `get_guidance_scale_embedding` in diffusers'
/// `pipelines/latent_consistency_models/pipeline_latent_consistency_text2img.py`.
pub fn guidance_embedding(w: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let scaled = w * 1000.0;
    let decay = to_f32(LN_MAX_PERIOD) / (index(half) - 1.0);
    let angles = (0..half).map(|i| scaled * exp(index(i) * -decay));
    sinusoids(angles, dim, false)
}

/// The embedding of timestep `t`, `dim` values: sines, then cosines (the other way round if
/// `flip_sin_to_cos`) of `t` times each frequency, then a zero if `dim` is odd.
///
/// `freq_shift` is subtracted from half of `dim` where the frequencies are spaced. Source:
/// `get_timestep_embedding` in diffusers' `models/embeddings.py`.
pub fn timestep_embedding(t: f32, dim: usize, flip_sin_to_cos: bool, freq_shift: f32) -> Vec<f32> {
    let half = dim / 2;
    let divisor = index(half) - freq_shift;
    let angles = (0..half).map(|i| t * exp(-to_f32(LN_MAX_PERIOD) * index(i) / divisor));
    sinusoids(angles, dim, flip_sin_to_cos)
}

fn sinusoids(angles: impl Iterator<Item = f32>, dim: usize, cosines_first: bool) -> Vec<f32> {
    let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(sin_cos).unzip();
    let (mut first, second) = if cosines_first { (cosines, sines) } else { (sines, cosines) };
    first.extend(second);
    first.resize(dim, 0.0);
    first
}

fn exp(x: f32) -> f32 {
    to_f32(libm::exp(f64::from(x)))
}

fn sin_cos(x: f32) -> (f32, f32) {
    let (sin, cos) = libm::sincos(f64::from(x));
    (to_f32(sin), to_f32(cos))
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to `f32` is the point")]
fn to_f32(x: f64) -> f32 {
    x as f32
}

#[expect(clippy::cast_precision_loss, reason = "an embedding has far fewer than 2^24 values")]
fn index(i: usize) -> f32 {
    i as f32
}
