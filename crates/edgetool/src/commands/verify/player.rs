//! A model that draws, and lets others hear what happens inside.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, ensure};
use edge_ir::{Checked, Graph, Tensor, ValueId};
use edge_run::picture::Picture;
use edge_run::tokenizer::Tokenizer;
use edge_run::{Error, Guidance, Noise, Request, Sampler, Session, Trace};
use edge_spec::{FoldForm, Prompt};
use edge_verify::metrics::pictures::Pixels;
use edge_verify::{Drawing, Landmark, Precision, Precisions, TEXT_ENCODER, UNET, landmarks, place};

use super::super::model::Model;
use super::super::sampling::Sampling;
use crate::cli;

/// Hears the watched values of a component's run: its name, the number of the run, the values.
pub(super) type Hear = Rc<RefCell<dyn FnMut(&str, usize, Vec<Tensor>)>>;

/// A component and what was watched in one of its runs.
type Heard = (String, Vec<Tensor>);

/// Chooses what to watch in a component's graph.
pub(super) type Watch<'a> = &'a dyn Fn(&str, &Checked<Graph>) -> Vec<ValueId>;

/// A model with what it needs to draw.
pub(super) struct Player {
    pub(super) path: PathBuf,
    pub(super) model: Model,
    sampling: Sampling,
    tokenizer: Tokenizer,
}

impl Player {
    /// Makes ready; `path` is the model's, for messages.
    pub(super) fn new(path: &Path, model: Model, args: &cli::Sampling) -> Result<Self> {
        let batch = model.pipeline().batch;
        ensure!(batch == 1, "expected a model that draws one picture at a time, got a batch of {batch}");
        let sampling = Sampling::new(args, path, &model)?;
        let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
        Ok(Self { path: path.to_owned(), model, sampling, tokenizer })
    }

    /// How many steps it takes.
    pub(super) fn steps(&self) -> usize {
        self.sampling.steps()
    }

    /// The scale of its guidance.
    pub(super) fn guidance(&self) -> f32 {
        let (Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale }) = self.sampling.guidance;
        scale
    }

    /// What to draw, on this noise.
    pub(super) fn request(&self, prompt: &Prompt, noise: Noise) -> Request {
        let (prompt, negative_prompt) = (prompt.text.clone(), String::new());
        Request { prompt, negative_prompt, guidance: self.sampling.guidance, noise }
    }

    /// The components that draw, in the order of use.
    pub(super) fn used(&self) -> Vec<String> {
        let decoder = self.sampling.decoder.component;
        let other = |name: &str| name.ends_with("_decoder") && name != decoder || name == "vae_encoder";
        self.model.components().into_iter().filter(|name| !other(name)).collect()
    }

    /// The decoder's name.
    pub(super) fn decoder(&self) -> &'static str {
        self.sampling.decoder.component
    }

    /// The arithmetic of one component.
    pub(super) fn precision(&self, name: &str, graph: &Graph) -> Precision {
        let lowering = match &self.model {
            Model::Converted { manifest, .. } => manifest.lowering.as_ref(),
            Model::Checkpoint(_) => None,
        };
        let mut passes = lowering.into_iter().flat_map(|lowering| &lowering.passes);
        let folder = place(name, "").component;
        let here = |component: &str| component == name || component == folder;
        let approximate = passes.any(|run| here(&run.component) && run.approximation.is_some());
        let least = if approximate { Precision::Approximate } else { Precision::Float32 };
        Precision::of(graph).max(least)
    }

    /// The arithmetic of its parts.
    pub(super) fn precisions(&self) -> Result<Precisions> {
        let mut found: BTreeMap<&str, Precision> = BTreeMap::new();
        for name in self.used() {
            let precision = self.precision(&name, &*self.model.graph(&name)?);
            let parts: &[&str] = match name.as_str() {
                TEXT_ENCODER => &["text"],
                "pipeline" => &["text", "unet", "decoder"],
                decoder if decoder.ends_with("_decoder") => &["decoder"],
                _ => &["unet"],
            };
            for part in parts {
                let coarsest = found.get(part).copied().unwrap_or(precision).max(precision);
                found.insert(part, coarsest);
            }
        }
        let of = |part: &str| found.get(part).copied().unwrap_or(Precision::Float32);
        Ok(Precisions { text_encoder: of("text"), unet: of("unet"), decoder: of("decoder") })
    }

    /// Draws. What `watch` chooses in each component's graph, `hear` hears after each of its runs.
    pub(super) fn play(
        &self,
        requests: &[Request],
        watch: Watch<'_>,
        hear: &Hear,
        progress: &mut dyn FnMut(&str),
        done: &mut dyn FnMut(Vec<Picture>, Trace),
    ) -> Result<()> {
        let graphs = self.model.graphs();
        let sessions = |name: &str| -> Result<Session, Error> {
            let graph = graphs(name)?;
            let (hear, component, mut run) = (Rc::clone(hear), name.to_owned(), 0);
            let watcher = move |tensors: Vec<Tensor>| {
                (hear.borrow_mut())(&component, run, tensors);
                run += 1;
            };
            Session::load_watched(&graph, &watch(name, &graph), Box::new(watcher))
        };
        let sampler = Sampler {
            graphs: &graphs,
            tokenizer: &self.tokenizer,
            plan: self.sampling.plan(),
            decoder: self.sampling.decoder,
        };
        sampler.draw_on(&sessions, requests, progress, &mut |_, pictures, trace| done(pictures, trace))?;
        Ok(())
    }

    /// Draws, and gives what the components hand on to each other.
    pub(super) fn draw(&self, requests: &[Request], progress: &mut dyn FnMut(&str)) -> Result<Vec<Drawn>> {
        let heard: Rc<RefCell<Vec<Heard>>> = Rc::default();
        let hear: Hear = Rc::new(RefCell::new({
            let heard = Rc::clone(&heard);
            move |component: &str, _: usize, tensors| heard.borrow_mut().push((component.to_owned(), tensors))
        }));
        let marks: RefCell<BTreeMap<String, Vec<Landmark>>> = RefCell::default();
        let watch = |name: &str, graph: &Checked<Graph>| {
            let (marks_here, ids): (Vec<_>, Vec<_>) = landmarks(name, graph).into_iter().unzip();
            marks.borrow_mut().insert(name.to_owned(), marks_here);
            ids
        };
        let mut traces = Vec::new();
        self.play(requests, &watch, &hear, progress, &mut |pictures, trace| traces.push((pictures, trace)))?;
        let mut drawn: Vec<Drawn> = traces.into_iter().map(|(pictures, trace)| Drawn::new(pictures, &trace)).collect();
        for (name, marks) in marks.into_inner() {
            let heard = heard.borrow();
            let runs: Vec<_> = heard.iter().filter(|(n, _)| *n == name).map(|(_, tensors)| tensors).collect();
            // A graph for every step does one step for all requests before the next one.
            let rounds = if name == UNET { self.steps() } else { 1 };
            let each = (runs.len() / (rounds * requests.len()).max(1)).max(1);
            for (number, tensors) in runs.into_iter().enumerate() {
                let round = number / (each * requests.len());
                let step = place(&name, "").step.unwrap_or(round * each + number % each);
                let drawn = &mut drawn[number / each % requests.len()];
                marks.iter().zip(tensors).for_each(|(mark, tensor)| drawn.add(*mark, step, tensor));
            }
        }
        Ok(drawn)
    }

    /// Whether the UNet runs twice a step, once for the negative prompt, which comes first.
    pub(super) fn two_passes(&self) -> bool {
        self.model.fold().is_none() && matches!(self.sampling.guidance, Guidance::TwoPasses { scale } if scale > 1.0)
    }
}

/// A drawing, and its picture as a file is made of it.
pub(super) struct Drawn {
    pub(super) drawing: Drawing,
    pub(super) picture: Option<Picture>,
    pub(super) truncated: bool,
    /// The runner knows the UNet's outputs and latents itself.
    traced: [bool; 2],
}

impl Drawn {
    fn new(pictures: Vec<Picture>, trace: &Trace) -> Self {
        let tensor = |name: &str| trace.tensors.get(name);
        let rows = |name: &str| tensor(name).map(rows).unwrap_or_default();
        let (outputs, latents) = (rows("model_output"), rows("prev_sample"));
        let traced = [!outputs.is_empty(), !latents.is_empty()];
        let picture = pictures.into_iter().next();
        let drawing = Drawing {
            tokens: tensor("ids").map(indices),
            context: None,
            outputs,
            latents,
            picture: picture.as_ref().map(pixels),
        };
        Self { drawing, picture, truncated: trace.truncated, traced }
    }

    /// What stood in an output file of another program.
    pub(super) fn given(drawing: Drawing, picture: Option<Picture>) -> Self {
        Self { drawing, picture, truncated: false, traced: [true; 2] }
    }

    fn add(&mut self, mark: Landmark, run: usize, tensor: &Tensor) {
        match mark {
            // Of two prompts the negative comes first.
            Landmark::Context => self.drawing.context = Some(tensor.clone()),
            Landmark::Output(step) if !self.traced[0] => {
                self.drawing.outputs.insert(step.unwrap_or(run), tensor.clone());
            }
            Landmark::Latent(step) if !self.traced[1] => {
                self.drawing.latents.insert(step.unwrap_or(run), tensor.clone());
            }
            _ => {}
        }
    }
}

/// The parts of a tensor along its first dimension, by their indices.
pub(super) fn rows(tensor: &Tensor) -> BTreeMap<usize, Tensor> {
    let shape = tensor.ty.shape.get(1..).unwrap_or_default();
    let size: usize = shape.iter().product();
    tensor.to_f32s().chunks(size.max(1)).map(|row| Tensor::f32s(shape, row)).enumerate().collect()
}

/// The numbers of a tensor of indices.
pub(super) fn indices(tensor: &Tensor) -> Vec<i64> {
    if tensor.ty.dtype == edge_ir::DType::Int32 {
        return tensor.bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect();
    }
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

/// A picture as it is compared.
pub(super) fn pixels(picture: &Picture) -> Pixels {
    Pixels { width: picture.width as usize, height: picture.height as usize, rgb: picture.rgb.clone() }
}

/// What both models are asked for: what the arguments say, or what is folded into one of them.
pub(super) fn common(args: &cli::Sampling, models: &[&Model]) -> Result<cli::Sampling> {
    let folds = || models.iter().filter_map(|model| model.fold());
    let guidance = folds().find_map(|fold| match fold.guidance.by {
        edge_spec::GuidanceBy::None => Some(1.0),
        _ => fold.guidance.scale,
    });
    let mut decoder = args.decoder;
    for model in models.iter().filter(|m| m.fold().is_some_and(|f| f.form == FoldForm::Pipeline)) {
        let tiny = model.graph("pipeline")?.nodes.iter().any(|node| node.name.starts_with("taesd_decoder."));
        decoder = decoder.or(tiny.then_some(cli::Decoder::Taesd));
    }
    let steps = args.steps.or_else(|| folds().next().map(|fold| fold.steps.len()));
    Ok(cli::Sampling { steps, guidance: args.guidance.or(guidance), decoder, scheduler: args.scheduler })
}

/// Those of the arguments that a model takes which has some of them folded in.
pub(super) fn for_model(args: &cli::Sampling, model: &Model) -> cli::Sampling {
    let cli::Sampling { steps, guidance, decoder, scheduler } = *args;
    let fold = model.fold();
    cli::Sampling {
        steps,
        guidance,
        decoder: decoder.filter(|_| fold.is_none_or(|f| f.form != FoldForm::Pipeline)),
        scheduler: scheduler.filter(|_| fold.is_none()),
    }
}
