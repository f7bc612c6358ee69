//! One step of the sampler: from a noisy sample and the network's output to the next sample.
//!
//! Source: `LCMScheduler.step` and `_threshold_sample` in diffusers' `schedulers/scheduling_lcm.py`;
//! the quantile is `torch.quantile` with linear interpolation.

use crate::{Coefficients, Error, PredictionType, Schedule};

/// What a step gives.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// The next step's sample: the denoised sample, noised to the next timestep. After the last step
    /// it equals `denoised`.
    pub prev_sample: Vec<f32>,
    /// The estimate of the sample without noise; after the last step, what the decoder is given.
    pub denoised: Vec<f32>,
}

impl Schedule {
    /// Takes step `step` (0 is the noisiest) on `sample`, `batch` images one after another, given the
    /// network's output for it and, in all steps but the last, normal noise.
    ///
    /// [`Coefficients::adds_noise`] says whether `noise` is wanted. All slices have the same length.
    /// Only thresholding looks at `batch`: it takes one quantile per image.
    pub fn step(
        &self,
        step: usize,
        batch: usize,
        model_output: &[f32],
        sample: &[f32],
        noise: Option<&[f32]>,
    ) -> Result<StepOutput, Error> {
        let count = self.coefficients().len();
        let c = self.coefficients().get(step).ok_or(Error::NoSuchStep { step, count })?;
        check_length(step, "model_output", model_output, sample)?;
        if batch == 0 || !sample.len().is_multiple_of(batch) {
            return Err(Error::Batch { step, batch, values: sample.len() });
        }
        let mut clean = self.predict_clean(c, model_output, sample);
        self.limit(&mut clean, batch);
        let denoised: Vec<f32> = clean.iter().zip(sample).map(|(p, x)| c.c_out * p + c.c_skip * x).collect();
        let prev_sample = match (noise, c.adds_noise) {
            (Some(noise), true) => {
                check_length(step, "noise", noise, sample)?;
                renoise(c, &denoised, noise)
            }
            (None, false) => denoised.clone(),
            (None, true) => return Err(Error::NoNoise { step }),
            (Some(noise), false) => {
                return Err(Error::UnusedNoise { step, got: noise.len() });
            }
        };
        Ok(StepOutput { prev_sample, denoised })
    }

    fn predict_clean(&self, c: &Coefficients, model_output: &[f32], sample: &[f32]) -> Vec<f32> {
        let signal = c.alpha_cumprod.sqrt();
        let noise = (1.0 - c.alpha_cumprod).sqrt();
        let pairs = sample.iter().zip(model_output);
        match self.config.prediction_type {
            PredictionType::Epsilon => pairs.map(|(x, output)| (x - noise * output) / signal).collect(),
            PredictionType::Sample => model_output.to_vec(),
            PredictionType::VPrediction => pairs.map(|(x, output)| signal * x - noise * output).collect(),
        }
    }

    /// Thresholds or clips the clean sample, if the config asks for it; thresholding goes first.
    fn limit(&self, clean: &mut [f32], batch: usize) {
        let config = &self.config;
        if config.thresholding {
            let ratio = to_f32(config.dynamic_thresholding_ratio);
            let max = to_f32(config.sample_max_value);
            for image in clean.chunks_mut((clean.len() / batch).max(1)) {
                threshold(image, ratio, max);
            }
        } else if config.clip_sample {
            let range = to_f32(config.clip_sample_range);
            for value in clean {
                *value = clamp(*value, -range, range);
            }
        }
    }
}

fn renoise(c: &Coefficients, denoised: &[f32], noise: &[f32]) -> Vec<f32> {
    let signal_share = c.alpha_cumprod_prev.sqrt();
    let noise_share = (1.0 - c.alpha_cumprod_prev).sqrt();
    denoised.iter().zip(noise).map(|(x, z)| signal_share * x + noise_share * z).collect()
}

/// Clamps one image to a quantile of its magnitudes (1 to `max`) and divides by it.
fn threshold(image: &mut [f32], ratio: f32, max: f32) {
    let mut magnitudes: Vec<f32> = image.iter().map(|value| value.abs()).collect();
    let limit = clamp(quantile(&mut magnitudes, ratio), 1.0, max);
    for value in image {
        *value = clamp(*value, -limit, limit) / limit;
    }
}

/// `torch.quantile` of `values`, linear between neighbours; NaN if a value is.
///
/// The ratio is a `f32`; its product with the last index is not rounded to one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rank is an index, and the weight is rounded as there"
)]
fn quantile(values: &mut [f32], ratio: f32) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    let Some(last) = values.last().filter(|last| !last.is_nan()) else {
        return f32::NAN;
    };
    let rank = f64::from(ratio) * (values.len() - 1) as f64;
    let low = values.get(rank as usize).unwrap_or(last);
    let high = values.get(rank.ceil() as usize).unwrap_or(last);
    lerp(*low, *high, (rank - rank.trunc()) as f32)
}

/// `torch.lerp`: it goes out from the nearer end.
fn lerp(low: f32, high: f32, weight: f32) -> f32 {
    if weight < 0.5 { weight.mul_add(high - low, low) } else { (weight - 1.0).mul_add(high - low, high) }
}

/// `torch.clamp`: NaN stays NaN, and `max` wins over `min`.
fn clamp(value: f32, min: f32, max: f32) -> f32 {
    if value.is_nan() || min.is_nan() || max.is_nan() { f32::NAN } else { value.max(min).min(max) }
}

fn check_length(step: usize, input: &'static str, values: &[f32], sample: &[f32]) -> Result<(), Error> {
    if values.len() == sample.len() {
        return Ok(());
    }
    Err(Error::Length { step, input, expected: sample.len(), got: values.len() })
}

#[expect(clippy::cast_possible_truncation, reason = "the config's numbers meet `f32` samples")]
fn to_f32(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::quantile;

    /// Checks against `torch.quantile` of the squares of 0, 1/64, 2/64 and so on, bit for bit.
    #[track_caller]
    fn check(count: u16, expected: [&str; 5]) {
        let mut values: Vec<f32> = (0..count).rev().map(|i| (f32::from(i) / 64.0).powi(2)).collect();
        let got = [0.5, 0.93, 0.995, 0.999, 1.0].map(|ratio| Ok(quantile(&mut values, ratio).to_bits()));
        let expected = expected.map(|text| text.parse().map(f32::to_bits));
        assert_eq!(got, expected, "{count} values");
    }

    #[test]
    fn quantiles_are_those_of_torch() {
        check(2, ["0.000122070312", "0.000227050783", "0.000242919923", "0.000243896488", "0.000244140625"]);
        check(100, ["0.598266602", "2.06956792", "2.36901498", "2.38806081", "2.39282227"]);
        check(1000, ["60.913208", "210.735138", "241.222153", "243.165527", "243.652588"]);
        check(16384, ["16382", "56675.168", "64874.3594", "65397.0117", "65528"]);
    }

    #[test]
    fn one_value_is_every_quantile() {
        assert_eq!(quantile(&mut [3.0], 0.995).to_bits(), 3.0_f32.to_bits());
    }
}
