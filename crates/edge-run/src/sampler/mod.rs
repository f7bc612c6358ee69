//! Prompt to picture: text encoder, LCM steps through the UNet, decoder, as diffusers' pipelines connect them
//! (`pipeline_latent_consistency_text2img.py`; `pipeline_stable_diffusion.py` for models without a guidance embedding).

mod feeds;
mod folded;
mod latent;
mod loader;
mod noise;

use std::collections::BTreeMap;

use edge_ir::{Checked, Executor, Graph, Tensor, TensorType};
use edge_lcm::{Schedule, guidance_embedding};

use crate::picture::{Picture, from_decoder, from_image};
use crate::tokenizer::Tokenizer;
use crate::{Error, Session};

pub use folded::{Folded, Form, Prompts};

use feeds::{Feeds, check_finite, input_type, run, run_for_one};
use latent::Latent;
use loader::Loader;

/// Gives a component's graph by name. Components are loaded when it is their turn and dropped after it.
pub type Graphs<'a> = &'a dyn Fn(&str) -> Result<Checked<Graph>, Error>;

/// Gives a component by name, ready to run on whatever runs it.
pub type Sessions<'a> = &'a dyn Fn(&str) -> Result<Box<dyn Executor>, Error>;

/// How the prompt's influence is strengthened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guidance {
    /// The UNet takes the scale as an embedding of this width.
    Embedding {
        /// Guidance scale; 1 means none.
        scale: f32,
        /// Width of `timestep_cond`.
        width: usize,
    },
    /// The UNet answers to the negative prompt as well where the scale is above 1.
    TwoPasses {
        /// Guidance scale; 1 means none.
        scale: f32,
    },
}

/// Where the noise comes from.
#[derive(Clone, Debug)]
pub enum Noise {
    /// torch's CPU generator: latents first, then each step's noise.
    Seed(u64),
    /// Given numbers: the latents, and the noise of each step but the last, one after the other.
    Given {
        /// The latents that sampling starts from.
        latent: Vec<f32>,
        /// The noise of all steps.
        noise: Vec<f32>,
    },
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// What not to draw, where guidance is by two passes.
    pub negative_prompt: String,
    /// Guidance.
    pub guidance: Guidance,
    /// Noise.
    pub noise: Noise,
}

/// What makes the picture of the latents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoder {
    /// `vae_decoder` or `taesd_decoder`.
    pub component: &'static str,
    /// Latents are divided by this before it.
    pub scaling_factor: f32,
}

/// Everything that happened, as the pipelines' own tensors.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// `ids`, `context`, `model_output`, `prev_sample`, `denoised` (stacked over steps), `decoded`, `image`.
    pub tensors: BTreeMap<String, Tensor>,
    /// Tokens of the prompt that did not fit were left out.
    pub truncated: bool,
}

/// Draws pictures with one model.
pub struct Sampler<'a> {
    /// Gives the graphs.
    pub graphs: Graphs<'a>,
    /// Splits prompts.
    pub tokenizer: &'a Tokenizer,
    /// The steps to take.
    pub plan: Plan<'a>,
    /// The decoder.
    pub decoder: Decoder,
}

/// Who takes the steps.
#[derive(Clone, Copy, Debug)]
pub enum Plan<'a> {
    /// The sampler here, around the UNet.
    Schedule(&'a Schedule),
    /// The graphs, into which they were folded.
    Folded(&'a Folded),
}

impl Sampler<'_> {
    /// Draws as many pictures as the graphs' batch. `progress` hears what begins: a component, or a step.
    ///
    /// # Errors
    /// If a graph does not fit into the pipeline, or makes numbers that are not finite.
    pub fn draw(&self, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<(Vec<Picture>, Trace), Error> {
        let mut drawn = None;
        self.draw_each(std::slice::from_ref(request), progress, &mut |_, pictures, trace| {
            drawn = Some((pictures, trace));
        })?;
        Ok(drawn.unwrap_or_default())
    }

    /// Draws for each request; of several, each graph is loaded once. `done` receives the requests' numbers and results,
    /// one after the other.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn draw_each(
        &self,
        requests: &[Request],
        progress: &mut dyn FnMut(&str),
        done: &mut dyn FnMut(usize, Vec<Picture>, Trace),
    ) -> Result<(), Error> {
        self.draw_on(&|name| Ok(Box::new(Session::load(&(self.graphs)(name)?)?)), requests, progress, done)
    }

    /// The same on executors that the caller loads: each component is asked for once where there are several requests.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn draw_on(
        &self,
        sessions: Sessions<'_>,
        requests: &[Request],
        progress: &mut dyn FnMut(&str),
        done: &mut dyn FnMut(usize, Vec<Picture>, Trace),
    ) -> Result<(), Error> {
        let mut graphs = Loader::new(sessions, requests.len() > 1);
        let mut traces = vec![Trace::default(); requests.len()];
        if let Plan::Folded(folded) = self.plan
            && folded.form == Form::Pipeline
        {
            for (index, (request, mut trace)) in requests.iter().zip(traces).enumerate() {
                progress(&numbered(index, requests.len(), "pipeline"));
                let image = self.whole(&mut graphs, folded, request, &mut trace)?;
                done(index, image_pictures(&image, folded, &mut trace)?, trace);
            }
            return Ok(());
        }
        let latents = self.latents(&mut graphs, requests, &mut traces, progress)?;
        for (index, (latent, mut trace)) in latents.iter().zip(traces).enumerate() {
            progress(&numbered(index, requests.len(), "decoder"));
            let pictures = self.decode(&mut graphs, latent, &mut trace)?;
            done(index, pictures, trace);
        }
        Ok(())
    }

    /// The same without decoder: what happened up to the denoised latents. A model of one graph ([`Form::Pipeline`]) runs
    /// whole.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn denoise_on(
        &self,
        sessions: Sessions<'_>,
        requests: &[Request],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Trace>, Error> {
        let mut traces = Vec::new();
        if matches!(self.plan, Plan::Folded(Folded { form: Form::Pipeline, .. })) {
            self.draw_on(sessions, requests, progress, &mut |_, _, trace| traces.push(trace))?;
            return Ok(traces);
        }
        traces.resize(requests.len(), Trace::default());
        self.latents(&mut Loader::new(sessions, requests.len() > 1), requests, &mut traces, progress)?;
        Ok(traces)
    }

    /// The denoised latents. No graph is loaded afterwards.
    fn latents(
        &self,
        graphs: &mut Loader<'_>,
        requests: &[Request],
        traces: &mut [Trace],
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Tensor>, Error> {
        progress("text encoder");
        let mut contexts = Vec::new();
        for (request, trace) in requests.iter().zip(&mut *traces) {
            contexts.push(self.encode(graphs, request, trace)?);
        }
        graphs.clear();
        let mut step = |index: usize, what: &str| progress(&numbered(index, requests.len(), what));
        let latents = match self.plan {
            Plan::Folded(folded) => folded.sample(graphs, requests, &contexts, traces, &mut step),
            Plan::Schedule(schedule) => sample(graphs, schedule, requests, &contexts, traces, &mut step),
        };
        graphs.clear();
        latents
    }

    /// What the text encoder says of the prompt and, for two passes, of the negative prompt before it.
    fn encode(&self, graphs: &mut Loader<'_>, request: &Request, trace: &mut Trace) -> Result<Vec<Feeds>, Error> {
        let session = graphs.get("text_encoder")?;
        let (name, ty) = session.inputs()[0].clone();
        let mut contexts = Vec::new();
        for prompt in self.prompts(request) {
            let ids = self.ids(prompt, &ty, trace)?;
            let mut outputs = run(session, &Feeds::from([(name.clone(), ids)]))?;
            if let Some(hidden) = outputs.remove("last_hidden_state") {
                trace.tensors.insert("context".into(), hidden.clone());
                outputs.insert("encoder_hidden_states".into(), hidden);
            }
            contexts.push(outputs);
        }
        Ok(contexts)
    }

    /// A prompt's tokens, for each image of the batch.
    fn ids(&self, prompt: &str, ty: &TensorType, trace: &mut Trace) -> Result<Tensor, Error> {
        let encoded = self.tokenizer.encode(prompt)?;
        let (expected, got) = (ty.shape.last().copied().unwrap_or(0), encoded.ids.len());
        if expected != got {
            return Err(Error::Tokens { expected, got });
        }
        let ids = Tensor::indices(ty, &encoded.ids.repeat(ty.shape[0]));
        trace.tensors.insert("ids".into(), ids.clone());
        trace.truncated |= encoded.truncated;
        Ok(ids)
    }

    fn decode(&self, graphs: &mut Loader<'_>, denoised: &Tensor, trace: &mut Trace) -> Result<Vec<Picture>, Error> {
        let Decoder { component, scaling_factor } = self.decoder;
        let session = graphs.get(component)?;
        let scaled: Vec<f32> = denoised.to_f32s().iter().map(|v| v / scaling_factor).collect();
        let latent = Tensor::f32s(denoised.ty.shape.clone(), &scaled);
        let name = session.inputs()[0].0.clone();
        let decoded = run_for_one(session, &Feeds::from([(name, latent)]))?;
        if let Plan::Folded(folded) = self.plan {
            return image_pictures(&decoded, folded, trace);
        }
        let numbers = decoded.to_f32s();
        check_finite(&numbers, "the decoder")?;
        let what = || Error::Graph { graph: component.into(), what: "output of four dimensions".into() };
        let shape: [usize; 4] = decoded.ty.shape.clone().try_into().map_err(|_| what())?;
        let pictures = from_decoder(&numbers, shape)?;
        trace.image(&pictures);
        trace.tensors.insert("decoded".into(), decoded);
        Ok(pictures)
    }

    /// The prompts whose answers are wanted, the negative one first.
    fn prompts<'r>(&self, request: &'r Request) -> Vec<&'r str> {
        let both = match self.plan {
            Plan::Schedule(_) => matches!(request.guidance, Guidance::TwoPasses { scale } if scale > 1.0),
            Plan::Folded(folded) => folded.prompts != Prompts::One,
        };
        let negative = both.then_some(request.negative_prompt.as_str());
        negative.into_iter().chain([request.prompt.as_str()]).collect()
    }
}

/// What is being done, and for which request where there are several.
fn numbered(index: usize, of: usize, what: &str) -> String {
    if of == 1 { what.to_owned() } else { format!("picture {} of {of}: {what}", index + 1) }
}

impl Trace {
    /// Stores the tensors of all steps, one after another, as one.
    fn stack(&mut self, name: &str, shape: &[usize], numbers: &[f32]) {
        let steps = numbers.len() / shape.iter().product::<usize>().max(1);
        self.tensors.insert(name.into(), Tensor::f32s([&[steps], shape].concat(), numbers));
    }

    fn image(&mut self, pictures: &[Picture]) {
        let values: Vec<f32> = pictures.iter().flat_map(|p| p.values.iter().copied()).collect();
        let [height, width] = pictures.first().map_or([0; 2], |p| [p.height, p.width].map(|v| v as usize));
        self.tensors.insert("image".into(), Tensor::f32s([pictures.len(), 3, height, width], &values));
    }
}

/// The pictures that a folded decoder gives.
fn image_pictures(image: &Tensor, folded: &Folded, trace: &mut Trace) -> Result<Vec<Picture>, Error> {
    check_finite(&image.to_f32s(), "the decoder")?;
    let pictures = from_image(image, folded.channels_last)?;
    trace.image(&pictures);
    Ok(pictures)
}

/// The latents after the steps of a schedule. Each step is done for all requests before the next one.
fn sample(
    graphs: &mut Loader<'_>,
    schedule: &Schedule,
    requests: &[Request],
    contexts: &[Vec<Feeds>],
    traces: &mut [Trace],
    progress: &mut dyn FnMut(usize, &str),
) -> Result<Vec<Tensor>, Error> {
    let unet = graphs.get("unet")?;
    let shape = input_type(unet, "sample")?.shape;
    let size = shape.iter().product();
    let mut latents = requests.iter().map(|request| Latent::new(request, size)).collect::<Result<Vec<_>, _>>()?;
    for (index, step) in schedule.coefficients().iter().enumerate() {
        let what = format!("step {} of {}", index + 1, schedule.coefficients().len());
        for (number, latent) in latents.iter_mut().enumerate() {
            progress(number, &what);
            let guidance = requests[number].guidance;
            let output = predict(unet, &latent.sample, &shape, step.timestep, &contexts[number], guidance)?;
            let fresh = if step.adds_noise { Some(latent.noise.next()?) } else { None };
            let result = schedule.step(index, shape[0], &output, &latent.sample, fresh.as_deref())?;
            check_finite(&result.denoised, "unet")?;
            latent.advance(&output, result.prev_sample, &result.denoised);
        }
    }
    Ok(latents.into_iter().zip(traces).map(|(latent, trace)| latent.finish(&shape, true, trace)).collect())
}

/// The UNet's prediction, after guidance.
fn predict(
    unet: &mut dyn Executor,
    sample: &[f32],
    shape: &[usize],
    timestep: usize,
    contexts: &[Feeds],
    guidance: Guidance,
) -> Result<Vec<f32>, Error> {
    let types: BTreeMap<String, TensorType> = unet.inputs().iter().cloned().collect();
    let mut predictions = Vec::new();
    for context in contexts {
        let mut feeds = context.clone();
        feeds.insert("sample".into(), Tensor::f32s(shape, sample));
        if let Some(ty) = types.get("timestep") {
            let timestep = i64::try_from(timestep).unwrap_or(i64::MAX);
            feeds.insert("timestep".into(), Tensor::indices(ty, &vec![timestep; ty.shape.iter().product()]));
        }
        if let Some(ty) = types.get("timestep_cond") {
            feeds.insert("timestep_cond".into(), Tensor::f32s(ty.shape.clone(), &condition(guidance, ty.shape[0])));
        }
        predictions.push(run_for_one(unet, &feeds)?.to_f32s());
    }
    Ok(combine(predictions, guidance))
}

/// Guidance by two passes moves the prediction away from that for the negative prompt.
fn combine(mut predictions: Vec<Vec<f32>>, guidance: Guidance) -> Vec<f32> {
    let prompted = predictions.pop().unwrap_or_default();
    match (predictions.pop(), guidance) {
        (Some(negative), Guidance::TwoPasses { scale }) => {
            negative.iter().zip(&prompted).map(|(n, p)| n + scale * (p - n)).collect()
        }
        _ => prompted,
    }
}

/// diffusers embeds the scale less one.
fn condition(guidance: Guidance, batch: usize) -> Vec<f32> {
    match guidance {
        Guidance::Embedding { scale, width } => guidance_embedding(scale - 1.0, width).repeat(batch),
        Guidance::TwoPasses { .. } => Vec::new(),
    }
}
