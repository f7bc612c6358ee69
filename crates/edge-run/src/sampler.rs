//! Prompt to picture: text encoder, LCM steps through the UNet, decoder, as diffusers' pipelines connect them
//! (`pipeline_latent_consistency_text2img.py`; `pipeline_stable_diffusion.py` for models without a guidance embedding).

use std::collections::BTreeMap;

use edge_ir::{Checked, DType, Executor, Graph, Tensor};
use edge_lcm::{Schedule, TorchGenerator, guidance_embedding};

use crate::picture::{Picture, from_decoder};
use crate::tokenizer::Tokenizer;
use crate::{Error, Session};

/// Gives a component's graph by name. Components are loaded when it is their turn and dropped after it.
pub type Graphs<'a> = &'a dyn Fn(&str) -> Result<Checked<Graph>, Error>;

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
    /// The UNet runs on the negative prompt as well where the scale is above 1.
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
    /// `vae_decoder` or `taesd_decoder`.
    pub decoder: &'static str,
    /// Latents are divided by this before the decoder.
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
    pub schedule: &'a Schedule,
}

impl Sampler<'_> {
    /// Draws as many pictures as the graphs' batch. `progress` hears what begins: a component, or a step.
    ///
    /// # Errors
    /// If a graph does not fit into the pipeline, or makes numbers that are not finite.
    pub fn draw(&self, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<(Vec<Picture>, Trace), Error> {
        let mut trace = Trace::default();
        progress("text encoder");
        let contexts = self.encode(request, &mut trace)?;
        let denoised = self.sample(request, &contexts, &mut trace, progress)?;
        progress("decoder");
        let pictures = self.decode(request, &denoised, &mut trace)?;
        Ok((pictures, trace))
    }

    /// Hidden states of the prompt and, for two passes, of the negative prompt before them.
    fn encode(&self, request: &Request, trace: &mut Trace) -> Result<Vec<Tensor>, Error> {
        let mut session = self.load("text_encoder")?;
        let (_, ty) = session.inputs()[0].clone();
        let mut prompts = vec![&request.prompt];
        if matches!(request.guidance, Guidance::TwoPasses { scale } if scale > 1.0) {
            prompts.insert(0, &request.negative_prompt);
        }
        let mut contexts = Vec::new();
        for prompt in prompts {
            let encoded = self.tokenizer.encode(prompt)?;
            let (expected, got) = (ty.shape.last().copied().unwrap_or(0), encoded.ids.len());
            if expected != got {
                return Err(Error::Tokens { expected, got });
            }
            let ids = encoded.ids.repeat(ty.shape[0]);
            let ids = Tensor::indices(&ty, &ids);
            trace.tensors.insert("ids".into(), ids.clone());
            trace.truncated |= encoded.truncated;
            contexts.push(only(run(&mut session, &[ids])?, &session)?);
        }
        if let Some(context) = contexts.last() {
            trace.tensors.insert("context".into(), context.clone());
        }
        Ok(contexts)
    }

    fn sample(
        &self,
        request: &Request,
        contexts: &[Tensor],
        trace: &mut Trace,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Tensor, Error> {
        let mut unet = self.load("unet")?;
        let shape = input_shape(&unet, "sample")?;
        let mut noise = NoiseSource::new(&request.noise, shape.iter().product());
        let mut sample = noise.next()?;
        let [mut outputs, mut samples, mut estimates] = [Vec::new(), Vec::new(), Vec::new()];
        for (index, step) in self.schedule.coefficients().iter().enumerate() {
            progress(&format!("step {} of {}", index + 1, self.schedule.coefficients().len()));
            let output = predict(&mut unet, &sample, &shape, step.timestep, contexts, request.guidance)?;
            let fresh = if step.adds_noise { Some(noise.next()?) } else { None };
            let result = self.schedule.step(index, shape[0], &output, &sample, fresh.as_deref())?;
            check_finite(&result.denoised, "unet")?;
            outputs.extend(output);
            samples.extend_from_slice(&result.prev_sample);
            estimates.extend_from_slice(&result.denoised);
            sample = result.prev_sample;
        }
        let stacked: Vec<usize> =
            std::iter::once(self.schedule.coefficients().len()).chain(shape.iter().copied()).collect();
        for (name, numbers) in [("model_output", &outputs), ("prev_sample", &samples), ("denoised", &estimates)] {
            trace.tensors.insert(name.into(), Tensor::f32s(stacked.clone(), numbers));
        }
        let last = estimates.len() - shape.iter().product::<usize>();
        Ok(Tensor::f32s(shape, &estimates[last..]))
    }

    fn decode(&self, request: &Request, denoised: &Tensor, trace: &mut Trace) -> Result<Vec<Picture>, Error> {
        let mut session = self.load(request.decoder)?;
        let scaled: Vec<f32> = denoised.to_f32s().iter().map(|v| v / request.scaling_factor).collect();
        let decoded = only(run(&mut session, &[Tensor::f32s(denoised.ty.shape.clone(), &scaled)])?, &session)?;
        let numbers = decoded.to_f32s();
        check_finite(&numbers, "the decoder")?;
        let what = || Error::Graph { graph: request.decoder.into(), what: "output of four dimensions".into() };
        let shape: [usize; 4] = decoded.ty.shape.clone().try_into().map_err(|_| what())?;
        let pictures = from_decoder(&numbers, shape)?;
        let values: Vec<f32> = pictures.iter().flat_map(|p| p.values.iter().copied()).collect();
        trace.tensors.insert("image".into(), Tensor::f32s(shape, &values));
        trace.tensors.insert("decoded".into(), decoded);
        Ok(pictures)
    }

    fn load(&self, component: &str) -> Result<Session, Error> {
        Session::load(&(self.graphs)(component)?)
    }
}

/// The UNet's prediction, after guidance.
fn predict(
    unet: &mut Session,
    sample: &[f32],
    shape: &[usize],
    timestep: usize,
    contexts: &[Tensor],
    guidance: Guidance,
) -> Result<Vec<f32>, Error> {
    let mut predictions = Vec::new();
    for context in contexts {
        let mut inputs = Vec::new();
        for (name, ty) in unet.inputs() {
            inputs.push(match name.as_str() {
                "sample" => Tensor::f32s(shape, sample),
                "timestep" => {
                    Tensor::indices(ty, &vec![i64::try_from(timestep).unwrap_or(i64::MAX); ty.shape.iter().product()])
                }
                "encoder_hidden_states" => context.clone(),
                "timestep_cond" => Tensor::f32s(ty.shape.clone(), &condition(guidance, ty.shape[0])),
                other => return Err(Error::Input { graph: unet.name().into(), input: other.to_owned() }),
            });
        }
        predictions.push(only(run(unet, &inputs)?, unet)?.to_f32s());
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

/// Hands out noise, one latent's worth at a time.
enum NoiseSource<'a> {
    Generator { torch: Box<TorchGenerator>, size: usize },
    Given { parts: std::iter::Chain<std::slice::Chunks<'a, f32>, std::slice::Chunks<'a, f32>>, size: usize },
}

impl<'a> NoiseSource<'a> {
    fn new(noise: &'a Noise, size: usize) -> Self {
        match noise {
            Noise::Seed(seed) => Self::Generator { torch: Box::new(TorchGenerator::new(*seed)), size },
            Noise::Given { latent, noise } => {
                Self::Given { parts: latent.chunks(size).chain(noise.chunks(size)), size }
            }
        }
    }

    fn next(&mut self) -> Result<Vec<f32>, Error> {
        match self {
            Self::Generator { torch, size } => Ok(torch.randn(*size)),
            Self::Given { parts, size } => {
                let part = parts.next().unwrap_or_default();
                if part.len() == *size {
                    Ok(part.to_vec())
                } else {
                    Err(Error::Noise { expected: *size, got: part.len() })
                }
            }
        }
    }
}

fn run(session: &mut Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let name = session.name().to_owned();
    session.run(inputs).map_err(|e| match e.downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::Tract { action: "run", graph: name, reason: other.to_string() },
    })
}

fn only(outputs: Vec<Tensor>, session: &Session) -> Result<Tensor, Error> {
    let first = outputs.into_iter().next().filter(|t| t.ty.dtype == DType::Float32);
    first.ok_or_else(|| Error::Graph { graph: session.name().into(), what: "float32 output".into() })
}

fn input_shape(session: &Session, name: &str) -> Result<Vec<usize>, Error> {
    let input = session.inputs().iter().find(|(n, _)| n == name);
    input
        .map(|(_, ty)| ty.shape.clone())
        .ok_or_else(|| Error::Graph { graph: session.name().into(), what: format!("input `{name}`") })
}

fn check_finite(numbers: &[f32], component: &'static str) -> Result<(), Error> {
    if numbers.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(Error::NotFinite { component }) }
}
