//! Draws the same pictures with many forms of a model's networks, and measures what each form changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use edge_ir::{Checked, Executor, Graph};
use edge_lcm::TorchGenerator;
use edge_run::tokenizer::Tokenizer;
use edge_run::{Error, Loaded, Noise, Request, Sampler, Session, Trace};
use edge_verify::metrics::conditioning;
use edge_verify::metrics::pictures::{self, Pixels};

use super::super::model::Model;
use super::super::sampling::Sampling;
use crate::cli;

/// Bytes of weights that forms of a model may hold at a time; one form is measured in any case.
const MEMORY: u64 = 2 << 30;

/// Loads a component that changes.
pub(crate) type Load<'a> = &'a dyn Fn(&str) -> Result<Box<dyn Executor>>;

type LoadForm<'a> = dyn Fn(usize, &str) -> Result<Box<dyn Executor>> + Sync + 'a;

/// Forms of the networks that change, by their numbers.
pub(super) struct Forms<'a> {
    /// Loads a form's network.
    pub(super) load: &'a LoadForm<'a>,
    /// Whether pictures are wanted, or the latents alone.
    pub(super) pictures: &'a (dyn Fn(usize) -> bool + Sync),
    /// Those that are measured.
    pub(super) numbers: &'a [usize],
    /// How many of the prompts are drawn with each.
    pub(super) prompts: usize,
}

/// A model, what it is asked for, and what it drew in float.
pub(crate) struct Bench<'a> {
    model: &'a Model,
    sampling: Sampling,
    tokenizer: Tokenizer,
    requests: Vec<Request>,
    /// The noise of each request: the latent that it begins with, and what each step adds.
    pub(crate) noise: Vec<Vec<Vec<f32>>>,
    /// The networks whose forms do not change.
    held: BTreeMap<String, Loaded>,
    /// What the float model drew.
    pub(crate) float: Vec<Drawn>,
}

/// A picture, and the latents on the way.
pub(crate) struct Drawn {
    /// The latent after each step that can be seen; the last is the denoised one.
    pub(crate) latents: Vec<Vec<f32>>,
    picture: Option<Pixels>,
}

/// What a form changes, against float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Effect {
    /// Of the denoised latents: power of the error as a part of the signal's.
    pub(crate) noise: f64,
    /// 1 less the pictures' mean structural similarity; 0 where no pictures were drawn.
    pub(crate) dissimilarity: f64,
    /// Mean deviation of the conditioning ratio from 1.
    pub(crate) conditioning: f64,
    /// The greatest.
    pub(crate) worst_conditioning: f64,
}

impl<'a> Bench<'a> {
    /// Draws with the model as it is. Each two prompts begin with the same noise. `changing` are the components that will
    /// have other forms, which `float` loads as they are.
    pub(crate) fn new(
        path: &Path,
        model: &'a Model,
        prompts: &[String],
        changing: &[String],
        float: Load<'_>,
    ) -> Result<Self> {
        let args = cli::Sampling { steps: None, guidance: None, decoder: None, scheduler: None };
        let sampling = Sampling::new(&args, path, model)?;
        let batch = model.pipeline().batch;
        ensure!(batch == 1, "expected a model that draws one picture at a time, got a batch of {batch}");
        let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
        let pipeline = model.pipeline();
        let side = |pixels: usize| pixels / pipeline.vae_scale_factor;
        let size = pipeline.latent_channels * side(pipeline.height) * side(pipeline.width);
        let noise: Vec<Vec<Vec<f32>>> = (0..prompts.len() as u64)
            .map(|index| {
                let mut torch = TorchGenerator::new(index / 2);
                (0..=sampling.steps()).map(|_| torch.randn(size)).collect()
            })
            .collect();
        let request = |(prompt, parts): (&String, &Vec<Vec<f32>>)| Request {
            prompt: prompt.clone(),
            negative_prompt: String::new(),
            guidance: sampling.guidance,
            noise: Noise::Given { latent: parts[0].clone(), noise: parts[1..].concat() },
        };
        let requests = prompts.iter().zip(&noise).map(request).collect();
        let decoder = sampling.decoder.component;
        let is_held = |name: &String| {
            !changing.contains(name) && name != "vae_encoder" && (!name.ends_with("_decoder") || name == decoder)
        };
        let held = model.components().into_iter().filter(is_held);
        let held = held.map(|name| Ok((name.clone(), Session::load(&model.graph(&name)?)?.loaded())));
        let held = held.collect::<Result<_>>()?;
        let mut bench = Self { model, sampling, tokenizer, requests, noise, held, float: Vec::new() };
        bench.float = bench.draw(float, true, usize::MAX)?;
        Ok(bench)
    }

    /// Draws with these networks in the place of those that change: pictures, or the latents alone, of the first prompts.
    pub(crate) fn draw(&self, form: Load<'_>, pictures: bool, most: usize) -> Result<Vec<Drawn>> {
        let requests = &self.requests[..most.min(self.requests.len())];
        let graphs = self.model.graphs();
        let sampler = Sampler {
            graphs: &graphs,
            tokenizer: &self.tokenizer,
            plan: self.sampling.plan(),
            decoder: self.sampling.decoder,
        };
        let failed = |name: &str, source: anyhow::Error| Error::Component { name: name.into(), source: source.into() };
        let load = |name: &str| -> Result<Box<dyn Executor>, Error> {
            Ok(match self.held.get(name) {
                Some(loaded) => Box::new(loaded.session()),
                None => form(name).map_err(|e| failed(name, e))?,
            })
        };
        let mut drawn = Vec::new();
        if pictures {
            sampler.draw_on(&load, requests, &mut |_| (), &mut |_, pictures, trace| {
                let picture = pictures.into_iter().next();
                let picture =
                    picture.map(|p| Pixels { width: p.width as usize, height: p.height as usize, rgb: p.rgb });
                drawn.push(Drawn { latents: latents(&trace), picture });
            })?;
        } else {
            let traces = sampler.denoise_on(&load, requests, &mut |_| ())?;
            drawn.extend(traces.iter().map(|trace| Drawn { latents: latents(trace), picture: None }));
        }
        let missing = drawn.iter().any(|drawn| drawn.latents.is_empty());
        ensure!(!missing, "the graphs do not show the denoised latents: convert the checkpoint with `--fold per-step`");
        Ok(drawn)
    }

    /// What was drawn against what the float model drew.
    pub(crate) fn effect(&self, drawn: &[Drawn]) -> Effect {
        let pairs = || drawn.iter().zip(&self.float);
        let [mut error, mut signal] = [0.0_f64; 2];
        for (found, float) in pairs() {
            for (c, r) in found.latents.iter().flatten().zip(float.latents.iter().flatten()).skip(skipped(float)) {
                let (c, r) = (f64::from(*c), f64::from(*r));
                error += (c - r) * (c - r);
                signal += r * r;
            }
        }
        let dissimilar = |(found, float): (&Drawn, &Drawn)| {
            let (found, float) = (found.picture.as_ref()?, float.picture.as_ref()?);
            Some(1.0 - pictures::compare(found, float).map_or(-1.0, |difference| difference.ssim))
        };
        let dissimilarity = mean(&pairs().filter_map(dissimilar).collect::<Vec<_>>());
        // Two prompts on the same noise: what differs after the first step is what the prompts do.
        let ratio = |(found, float): (&[Drawn], &[Drawn])| {
            let first = |drawn: &'_ [Drawn], index: usize| drawn.get(index)?.latents.first().cloned();
            let [a, b, x, y] = [first(found, 0)?, first(found, 1)?, first(float, 0)?, first(float, 1)?];
            Some((conditioning::ratio([&a, &b], [&x, &y])? - 1.0).abs())
        };
        let off: Vec<f64> = drawn.chunks(2).zip(self.float.chunks(2)).filter_map(ratio).collect();
        Effect {
            noise: error / signal.max(f64::MIN_POSITIVE),
            dissimilarity,
            conditioning: mean(&off),
            worst_conditioning: off.iter().copied().fold(0.0, f64::max),
        }
    }

    /// The effects of forms, several at a time. `done` hears how many there are so far.
    pub(super) fn effects(&self, bytes: u64, forms: &Forms<'_>, done: &(dyn Fn(usize) + Sync)) -> Result<Vec<Effect>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let fit = usize::try_from(MEMORY / bytes.max(1)).unwrap_or(cores);
        let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let found: Mutex<BTreeMap<usize, Result<Effect>>> = Mutex::default();
        let work = || loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&form) = forms.numbers.get(index) else { return };
            let drawn = self.draw(&|name| (forms.load)(form, name), (forms.pictures)(form), forms.prompts);
            let effect = drawn.map(|drawn| self.effect(&drawn));
            if effect.is_err() {
                next.store(forms.numbers.len(), Ordering::Relaxed);
            }
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(index, effect);
            done(ended.fetch_add(1, Ordering::Relaxed) + 1);
        };
        std::thread::scope(|scope| (0..cores.min(fit).max(1)).for_each(|_| drop(scope.spawn(work))));
        let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let effects = found.into_values().collect::<Result<Vec<_>>>()?;
        ensure!(effects.len() == forms.numbers.len(), "a measurement did not end");
        Ok(effects)
    }

    /// How many prompts are drawn.
    pub(crate) fn prompts(&self) -> usize {
        self.requests.len()
    }
}

/// Numbers of the latents before the last.
fn skipped(drawn: &Drawn) -> usize {
    let all: usize = drawn.latents.iter().map(Vec::len).sum();
    all - drawn.latents.last().map_or(0, Vec::len)
}

/// What a sampler shows of the latents: those of all steps, or the last one.
fn latents(trace: &Trace) -> Vec<Vec<f32>> {
    let tensor = trace.tensors.get("prev_sample").or_else(|| trace.tensors.get("denoised"));
    let Some(tensor) = tensor else { return Vec::new() };
    let steps = tensor.ty.shape.first().copied().unwrap_or(1).max(1);
    let numbers = tensor.to_f32s();
    numbers.chunks((numbers.len() / steps).max(1)).map(<[f32]>::to_vec).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a number of pictures")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// A network as it is.
pub(crate) fn loaded(graph: &Checked<Graph>) -> Result<Box<dyn Executor>> {
    Ok(Box::new(Session::load(graph)?))
}

/// In dB, the signal over the error.
pub(crate) fn decibels(noise: f64) -> f64 {
    -10.0 * noise.max(1e-20).log10()
}

/// The first prompts of a file, an even number of them.
pub(crate) fn prompts(path: &Path, number: Option<std::num::NonZero<usize>>, default: usize) -> Result<Vec<String>> {
    let mut prompts: Vec<String> = edge_spec::Prompt::read_all(path)?.into_iter().map(|prompt| prompt.text).collect();
    prompts.truncate(number.map_or(default, std::num::NonZero::get));
    prompts.truncate(prompts.len() / 2 * 2);
    let enough = prompts.chunks(2).all(|pair| pair[0] != pair[1]) && !prompts.is_empty();
    enough.then_some(prompts).with_context(|| {
        format!("`{}` gives no pair of different prompts among those that are used, expected 2 or more", path.display())
    })
}
