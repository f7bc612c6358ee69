//! Betas, the share of noise that each training timestep adds, and the alphas that cumulate from them.
//!
//! Source: `LCMScheduler.__init__`, `betas_for_alpha_bar` and `rescale_zero_terminal_snr` in diffusers'
//! `schedulers/scheduling_lcm.py`. The tables are rounded as `PyTorch` rounds them on an x86 machine
//! with AVX2. Rescaling to zero SNR alone can differ from it in the last bit: there `PyTorch` takes
//! square roots with MKL, which are not always the nearest `f32`.

use libm::{cos, sqrt};

use crate::{BetaSchedule, SchedulerConfig};

/// The cumulated alphas of all training timesteps.
pub(crate) fn alphas_cumprod(config: &SchedulerConfig) -> Vec<f32> {
    cumprod(&betas(config))
}

fn betas(config: &SchedulerConfig) -> Vec<f32> {
    let count = config.num_train_timesteps;
    let (start, end) = (config.beta_start, config.beta_end);
    let betas = match (&config.trained_betas, config.beta_schedule) {
        (Some(betas), _) => betas.iter().map(|b| to_f32(*b)).collect(),
        (None, BetaSchedule::Linear) => linspace(to_f32(start), to_f32(end), count),
        (None, BetaSchedule::ScaledLinear) => {
            linspace(to_f32(sqrt(start)), to_f32(sqrt(end)), count).into_iter().map(|b| b * b).collect()
        }
        (None, BetaSchedule::SquaredcosCapV2) => cosine_betas(count),
    };
    if config.rescale_betas_zero_snr { rescale_zero_terminal_snr(&betas) } else { betas }
}

/// `torch.linspace` in `f32`: symmetric, from both ends to the middle, each value one fused
/// multiply-add, as the vectorised kernel has it.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / to_f32(to_f64(count - 1));
    let value = |i: usize| {
        if i < count / 2 {
            step.mul_add(to_f32(to_f64(i)), start)
        } else {
            (-step).mul_add(to_f32(to_f64(count - 1 - i)), end)
        }
    };
    (0..count).map(value).collect()
}

/// `betas_for_alpha_bar` with the cosine transform, in `f64`, no beta above 0.999.
fn cosine_betas(count: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| {
        let t = to_f64(i) / to_f64(count);
        let c = cos((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0);
        c * c
    };
    (0..count).map(|i| to_f32((1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999))).collect()
}

/// Shifts and scales the square roots of the cumulated alphas so that the last one is zero and the
/// first one stays (arXiv 2305.08891, algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let mut roots: Vec<f32> = cumprod(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    for root in &mut roots {
        *root = (*root - last) * scale;
    }
    let bars: Vec<f32> = roots.iter().map(|root| root * root).collect();
    let alphas = bars.iter().take(1).copied().chain(bars.windows(2).map(|pair| pair[1] / pair[0]));
    alphas.map(|alpha| 1.0 - alpha).collect()
}

/// The cumulated product of `1 - beta`: the kernel multiplies in `f64` and rounds each product.
fn cumprod(betas: &[f32]) -> Vec<f32> {
    let products = betas.iter().scan(1.0_f64, |product, beta| {
        *product *= f64::from(1.0 - beta);
        Some(to_f32(*product))
    });
    products.collect()
}

#[expect(clippy::cast_precision_loss, reason = "a schedule has at most a million timesteps")]
pub(crate) fn to_f64(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the tables are `f32`")]
pub(crate) fn to_f32(x: f64) -> f32 {
    x as f32
}
