//! Plays models whose steps were folded into their graphs.

use edge_ir::{Executor, Tensor};
use edge_lcm::Affine;

use super::feeds::{Feeds, check_finite, input_type, run_for_one};
use super::latent::Latent;
use super::loader::Loader;
use super::noise::NoiseSource;
use super::{Guidance, Request, Sampler, Trace, condition};
use crate::Error;

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
    /// The latents after all steps. Each graph does its part for all requests before the next one.
    pub(super) fn sample(
        &self,
        graphs: &mut Loader<'_>,
        requests: &[Request],
        contexts: &[Vec<Feeds>],
        traces: &mut [Trace],
        progress: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Tensor>, Error> {
        if self.form == Form::Unrolled {
            let session = graphs.get("sampler")?;
            let drawings = requests.iter().zip(contexts).zip(traces).enumerate();
            return drawings
                .map(|(index, ((request, contexts), trace))| {
                    progress(index, "sampler");
                    self.unrolled(session, request, contexts, trace)
                })
                .collect();
        }
        let shape = input_type(graphs.get(&self.unet(0))?, "sample")?.shape;
        let size = shape.iter().product();
        let mut latents = requests.iter().map(|request| Latent::new(request, size)).collect::<Result<Vec<_>, _>>()?;
        for index in 0..self.steps.len() {
            let what = format!("step {} of {}", index + 1, self.steps.len());
            let session = graphs.get(&self.unet(index))?;
            for (number, latent) in latents.iter_mut().enumerate() {
                progress(number, &what);
                let feeds = self.join(&contexts[number]);
                self.step(index, session, feeds, &shape, requests[number].guidance, latent)?;
            }
            if self.form == Form::PerStep {
                graphs.clear();
            }
        }
        Ok(latents.into_iter().zip(traces).map(|(latent, trace)| latent.finish(&shape, false, trace)).collect())
    }

    /// All steps in one graph.
    fn unrolled(
        &self,
        session: &mut dyn Executor,
        request: &Request,
        contexts: &[Feeds],
        trace: &mut Trace,
    ) -> Result<Tensor, Error> {
        let mut feeds = self.join(contexts);
        self.noise(&mut feeds, session, request)?;
        guidance(&mut feeds, session, request.guidance);
        let denoised = run_for_one(session, &feeds)?;
        check_finite(&denoised.to_f32s(), "the sampler")?;
        trace.stack("denoised", &denoised.ty.shape, &denoised.to_f32s());
        Ok(denoised)
    }

    /// One step of one request.
    fn step(
        &self,
        index: usize,
        session: &mut dyn Executor,
        mut feeds: Feeds,
        shape: &[usize],
        scale: Guidance,
        latent: &mut Latent<'_>,
    ) -> Result<(), Error> {
        let step = &self.steps[index];
        let fresh = if step.takes_noise() { latent.noise.next()? } else { vec![0.0; latent.sample.len()] };
        feeds.insert("sample".into(), Tensor::f32s(shape, &latent.sample));
        feeds.insert("noise".into(), Tensor::f32s(shape, &fresh));
        if let Ok(ty) = input_type(session, "step") {
            feeds.insert("step".into(), Tensor::indices(&ty, &[i64::try_from(index).unwrap_or(i64::MAX)]));
        }
        guidance(&mut feeds, session, scale);
        let output = run_for_one(session, &feeds)?.to_f32s();
        check_finite(&output, "unet")?;
        if self.host {
            let next = step.next(&latent.sample, &output, &fresh);
            latent.advance(&output, next.clone(), &next);
        } else {
            latent.advance(&[], output.clone(), &output);
        }
        Ok(())
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
    fn noise(&self, feeds: &mut Feeds, session: &dyn Executor, request: &Request) -> Result<(), Error> {
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
fn guidance(feeds: &mut Feeds, session: &dyn Executor, guidance: Guidance) {
    let (Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale }) = guidance;
    feeds.insert("guidance".into(), Tensor::f32s([1], &[scale.max(1.0)]));
    if let Ok(ty) = input_type(session, "timestep_cond") {
        let numbers = condition(guidance, ty.shape[0]);
        feeds.insert("timestep_cond".into(), Tensor::f32s(ty.shape, &numbers));
    }
}
