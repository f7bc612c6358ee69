//! Plays models whose steps were folded into their graphs.

use edge_ir::Tensor;
use edge_lcm::Affine;

use super::feeds::{Feeds, check_finite, input_type, run_for_one};
use super::loader::Loader;
use super::noise::NoiseSource;
use super::{Guidance, Request, Sampler, Trace, condition};
use crate::{Error, Session};

/// How the steps lie in graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `unet`, with the input `step`.
    Table,
    /// `unet_step_0`, `unet_step_1`, ...
    PerStep,
    /// `sampler`.
    Unrolled,
    /// `pipeline`.
    Pipeline,
}

/// What a folded model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// How the steps lie in graphs.
    pub form: Form,
    /// The scheduler's steps.
    pub steps: Vec<Affine>,
    /// Whether the steps are done here, on the network's output, and not in the graphs.
    pub host: bool,
    /// Which prompts the graphs answer to.
    pub prompts: Prompts,
    /// Whether a pixel's colours are together in the decoder's output.
    pub channels_last: bool,
}

/// Which prompts graphs answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// The prompt alone.
    One,
    /// The negative prompt as well, in inputs of its own.
    Two,
    /// The negative prompt as well, in the same inputs, before the prompt.
    Joined,
}

/// Before the names of inputs that stem from the negative prompt.
const NEGATIVE: &str = "negative_";

impl Sampler<'_> {
    /// The picture from one graph.
    pub(super) fn whole(
        &self,
        graphs: &mut Loader<'_>,
        folded: &Folded,
        request: &Request,
        trace: &mut Trace,
    ) -> Result<Tensor, Error> {
        let session = graphs.get("pipeline")?;
        let mut feeds = Feeds::new();
        let ty = input_type(session, "input_ids")?;
        for (prompt, prefix) in self.prompts(request).into_iter().rev().zip(["", NEGATIVE]).rev() {
            feeds.insert(format!("{prefix}input_ids"), self.ids(prompt, &ty, trace)?);
        }
        folded.noise(&mut feeds, session, request)?;
        guidance(&mut feeds, session, request.guidance);
        run_for_one(session, &feeds)
    }
}

impl Folded {
    /// The latent after all steps.
    pub(super) fn sample(
        &self,
        graphs: &mut Loader<'_>,
        request: &Request,
        contexts: &[Feeds],
        trace: &mut Trace,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Tensor, Error> {
        let mut feeds = self.join(contexts);
        if self.form == Form::Unrolled {
            progress("sampler");
            let session = graphs.get("sampler")?;
            self.noise(&mut feeds, session, request)?;
            guidance(&mut feeds, session, request.guidance);
            let denoised = run_for_one(session, &feeds)?;
            check_finite(&denoised.to_f32s(), "the sampler")?;
            trace.stack("denoised", &denoised.ty.shape, &denoised.to_f32s());
            return Ok(denoised);
        }
        let shape = input_type(graphs.get(&self.unet(0))?, "sample")?.shape;
        let mut noise = NoiseSource::new(&request.noise, shape.iter().product());
        let mut sample = noise.next()?;
        let [mut outputs, mut samples] = [Vec::new(), Vec::new()];
        for (index, step) in self.steps.iter().enumerate() {
            progress(&format!("step {} of {}", index + 1, self.steps.len()));
            let session = graphs.get(&self.unet(index))?;
            let fresh = if step.takes_noise() { noise.next()? } else { vec![0.0; sample.len()] };
            feeds.insert("sample".into(), Tensor::f32s(shape.clone(), &sample));
            feeds.insert("noise".into(), Tensor::f32s(shape.clone(), &fresh));
            if let Ok(ty) = input_type(session, "step") {
                feeds.insert("step".into(), Tensor::indices(&ty, &[i64::try_from(index).unwrap_or(i64::MAX)]));
            }
            guidance(&mut feeds, session, request.guidance);
            let output = run_for_one(session, &feeds)?.to_f32s();
            check_finite(&output, "unet")?;
            sample = if self.host { step.next(&sample, &output, &fresh) } else { output.clone() };
            samples.extend_from_slice(&sample);
            outputs.extend(output);
        }
        trace.stack("prev_sample", &shape, &samples);
        trace.stack("denoised", &shape, &sample);
        if self.host {
            trace.stack("model_output", &shape, &outputs);
        }
        Ok(Tensor::f32s(shape, &sample))
    }

    fn unet(&self, step: usize) -> String {
        if self.form == Form::PerStep { format!("unet_step_{step}") } else { "unet".into() }
    }

    /// What all prompts give, as the UNet takes it.
    fn join(&self, contexts: &[Feeds]) -> Feeds {
        let [negative, prompted] = contexts else { return contexts.last().cloned().unwrap_or_default() };
        let mut feeds = prompted.clone();
        for (name, tensor) in negative {
            if self.prompts == Prompts::Two {
                feeds.insert(format!("{NEGATIVE}{name}"), tensor.clone());
            } else if let Some(there) = feeds.get_mut(name) {
                there.bytes.splice(0..0, tensor.bytes.iter().copied());
                there.ty.shape[0] *= 2;
            }
        }
        feeds
    }

    /// The latents and the noise of all steps.
    fn noise(&self, feeds: &mut Feeds, session: &Session, request: &Request) -> Result<(), Error> {
        let shape = input_type(session, "sample")?.shape;
        let mut noise = NoiseSource::new(&request.noise, shape.iter().product());
        feeds.insert("sample".into(), Tensor::f32s(shape.clone(), &noise.next()?));
        for (index, _) in self.steps.iter().enumerate().filter(|(_, step)| step.takes_noise()) {
            feeds.insert(format!("noise_{index}"), Tensor::f32s(shape.clone(), &noise.next()?));
        }
        Ok(())
    }
}

/// The guidance scale, for graphs that take it; up to 1 there is none, as around a model that is not folded.
fn guidance(feeds: &mut Feeds, session: &Session, guidance: Guidance) {
    let (Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale }) = guidance;
    feeds.insert("guidance".into(), Tensor::f32s([1], &[scale.max(1.0)]));
    if let Ok(ty) = input_type(session, "timestep_cond") {
        let numbers = condition(guidance, ty.shape[0]);
        feeds.insert("timestep_cond".into(), Tensor::f32s(ty.shape, &numbers));
    }
}
