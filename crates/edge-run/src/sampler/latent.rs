//! A picture between its steps.

use edge_ir::Tensor;

use super::noise::NoiseSource;
use super::{Request, Trace};
use crate::Error;

/// The latent of one request, and what the steps so far made of it.
pub(super) struct Latent<'a> {
    /// Where its noise comes from.
    pub(super) noise: NoiseSource<'a>,
    /// The latent.
    pub(super) sample: Vec<f32>,
    outputs: Vec<f32>,
    samples: Vec<f32>,
    estimates: Vec<f32>,
}

impl<'a> Latent<'a> {
    /// Noise of `size` numbers.
    pub(super) fn new(request: &'a Request, size: usize) -> Result<Self, Error> {
        let mut noise = NoiseSource::new(&request.noise, size);
        let sample = noise.next()?;
        Ok(Self { noise, sample, outputs: Vec::new(), samples: Vec::new(), estimates: Vec::new() })
    }

    /// Takes what a step made: the network's output, if it was seen, the next latent, and the estimate of the last one.
    pub(super) fn advance(&mut self, output: &[f32], next: Vec<f32>, estimate: &[f32]) {
        self.outputs.extend_from_slice(output);
        self.estimates.extend_from_slice(estimate);
        self.samples.extend_from_slice(&next);
        self.sample = next;
    }

    /// The estimate of the last step, the steps told to the trace. `denoised` has all steps' estimates or the last one's.
    pub(super) fn finish(self, shape: &[usize], all_estimates: bool, trace: &mut Trace) -> Tensor {
        let last = self.estimates.len().saturating_sub(shape.iter().product());
        let told = if all_estimates { &self.estimates[..] } else { &self.estimates[last..] };
        for (name, numbers) in [("model_output", &self.outputs[..]), ("prev_sample", &self.samples), ("denoised", told)]
        {
            if !numbers.is_empty() {
                trace.stack(name, shape, numbers);
            }
        }
        Tensor::f32s(shape, &self.estimates[last..])
    }
}
