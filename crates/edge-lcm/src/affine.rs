//! A step as sums of products: what is left of the sampler when the schedule is known.

use crate::betas::to_f32;
use crate::{Coefficients, PredictionType, Schedule};

/// Products below this share of the largest one vanish when `f32` numbers of like size are added.
const NEGLIGIBLE: f64 = 1.0 / (1_u32 << 25) as f64;

/// One step on a sample `x`, a network's output `o` and normal noise `z`.
///
/// `next = sample * x + clean * c + noise * z`, where `c` is `o` itself or, if the configuration clips, the predicted
/// clean sample, cut to a range: [`Clip`]. A product that cannot change an `f32` sum has the coefficient 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The timestep.
    pub timestep: usize,
    /// Weight of the sample.
    pub sample: f64,
    /// Weight of the output, or of the clipped clean sample.
    pub clean: f64,
    /// Weight of the noise; 0 in the last step, which takes none.
    pub noise: f64,
    /// How the clean sample is predicted and cut, if it is cut.
    pub clip: Option<Clip>,
}

impl Affine {
    /// Whether the step takes noise.
    pub fn takes_noise(&self) -> bool {
        self.noise != 0.0
    }

    /// The next sample: all three slices have one length. Rounded once, from `f64`.
    pub fn next(&self, sample: &[f32], output: &[f32], noise: &[f32]) -> Vec<f32> {
        let numbers = sample.iter().zip(output).zip(noise);
        let next = |((x, o), z): ((&f32, &f32), &f32)| {
            let [x, o, z] = [x, o, z].map(|v| f64::from(*v));
            let clean = self.clip.map_or(o, |c| (c.sample * x + c.output * o).clamp(-c.limit, c.limit));
            to_f32(self.sample * x + self.clean * clean + self.noise * z)
        };
        numbers.map(next).collect()
    }
}

/// `c = clamp(sample * x + output * o, -limit, limit)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Weight of the sample.
    pub sample: f64,
    /// Weight of the output.
    pub output: f64,
    /// The magnitude to cut to.
    pub limit: f64,
}

impl Schedule {
    /// Every step as sums of products, from the same `f32` tables as [`Schedule::step`], multiplied out in `f64`; none
    /// where the configuration thresholds, which no fixed coefficient can say.
    pub fn affine(&self) -> Option<Vec<Affine>> {
        let steps = self.coefficients().iter().map(|c| self.affine_step(c)).collect();
        (!self.config.thresholding).then_some(steps)
    }

    fn affine_step(&self, c: &Coefficients) -> Affine {
        let (keep, noise) = if c.adds_noise { shares(c.alpha_cumprod_prev) } else { (1.0, 0.0) };
        let [skip, out] = [keep * f64::from(c.c_skip), keep * f64::from(c.c_out)];
        let [sample, output] = self.clean(c);
        let (clip, [sample, clean]) = if self.config.clip_sample {
            let [sample, output] = without_negligible([sample, output]);
            let limit = self.config.clip_sample_range;
            (Some(Clip { sample, output, limit }), [skip, out])
        } else {
            (None, [out * sample + skip, out * output])
        };
        let [sample, clean] = without_negligible([sample, clean]);
        Affine { timestep: c.timestep, sample, clean, noise, clip }
    }

    /// Weights of the sample and of the output in the predicted clean sample.
    fn clean(&self, c: &Coefficients) -> [f64; 2] {
        let (signal, noise) = shares(c.alpha_cumprod);
        match self.config.prediction_type {
            PredictionType::Epsilon => [1.0 / signal, -noise / signal],
            PredictionType::Sample => [0.0, 1.0],
            PredictionType::VPrediction => [signal, -noise],
        }
    }
}

/// The shares of signal and noise in a sample, rounded as the sampler rounds them.
fn shares(alpha_cumprod: f32) -> (f64, f64) {
    (f64::from(alpha_cumprod.sqrt()), f64::from((1.0 - alpha_cumprod).sqrt()))
}

fn without_negligible(terms: [f64; 2]) -> [f64; 2] {
    let largest = terms[0].abs().max(terms[1].abs());
    terms.map(|term| if term.abs() < NEGLIGIBLE * largest { 0.0 } else { term })
}

#[cfg(test)]
mod tests {
    use crate::{Schedule, SchedulerConfig, StepRequest};

    /// diffusers' coefficients of the denoised sample, to the digits that `float32` has.
    #[test]
    fn coefficients_are_those_of_diffusers() {
        let one = |timestep| {
            let request = StepRequest::timesteps(vec![timestep]);
            let schedule = Schedule::new(&SchedulerConfig::default(), &request).expect("a schedule");
            schedule.affine().expect("no thresholding")[0]
        };
        for (timestep, sample, output) in [
            (999, 14.648_819_4, -14.614_647_8),
            (759, 4.376_340_62, -4.260_558_12),
            (499, 1.897_736_65, -1.612_887_02),
            (139, 1.089_056, -0.431_326_868),
        ] {
            let step = one(timestep);
            assert!((step.sample / sample - 1.0).abs() < 1e-6, "{step:?}");
            assert!((step.clean / output - 1.0).abs() < 1e-6, "{step:?}");
            assert!(!step.takes_noise() && step.clip.is_none());
        }
    }

    #[test]
    fn thresholding_is_not_affine() {
        let config = SchedulerConfig { thresholding: true, ..SchedulerConfig::default() };
        assert_eq!(Schedule::new(&config, &StepRequest::steps(2)).expect("a schedule").affine(), None);
    }
}
