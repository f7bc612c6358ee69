//! A model that draws, and lets others look into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use edge_ir::{Checked, DType, Executor, Failure, Graph, Ports, Tensor, ValueId};
use edge_run::picture::Picture;
use edge_run::tokenizer::Tokenizer;
use edge_run::{Error, Graphs, Guidance, Noise, Observer, Request, Sampler, Session, Trace};
use edge_spec::{FoldForm, Prompt};
use edge_verify::{Precision, Precisions, TEXT_ENCODER, place};

use super::super::model::Model;
use super::super::sampling::Sampling;
use crate::cli;

/// Looks into a model's graphs while it draws.
pub(super) trait Look: Send + Sync {
    /// What to see of a component's graph: inputs, or outputs of nodes, `float32` all.
    fn wanted(&self, component: &str, graph: &Checked<Graph>) -> Vec<ValueId>;

    /// A value in a run of the component; runs are counted from 0.
    fn see(&self, component: &str, run: usize, value: ValueId, seen: Seen<'_>);
}

/// A value.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) shape: &'a [usize],
    pub(super) numbers: &'a [f32],
}

/// Gives each component's graph ready to run.
pub(super) type Load<'a> = &'a dyn Fn(&str, &Checked<Graph>) -> Result<Box<dyn Executor>, Error>;

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

    /// The decoder's component.
    pub(super) fn decoder(&self) -> &'static str {
        self.sampling.decoder.component
    }

    /// The components that draw, in the order of use.
    pub(super) fn used(&self) -> Vec<String> {
        let decoder = self.sampling.decoder.component;
        let other = |name: &str| name.ends_with("_decoder") && name != decoder || name == "vae_encoder";
        self.model.components().into_iter().filter(|name| !other(name)).collect()
    }

    /// The arithmetic of one component.
    pub(super) fn precision(&self, name: &str, graph: &Graph) -> Precision {
        let manifest = match &self.model {
            Model::Converted { manifest, .. } => Some(manifest),
            Model::Checkpoint(_) => None,
        };
        let mut passes = manifest.iter().filter_map(|m| m.lowering.as_ref()).flat_map(|lowering| &lowering.passes);
        let folder = place(name, "").component;
        let here = |component: &str| component == name || component == folder;
        let approximate = passes.any(|run| here(&run.component) && run.approximation.is_some());
        // `quantize` made them; else weights of 16 bits are the checkpoint's own.
        let halved = manifest.is_some_and(|m| m.quantization.is_some())
            && graph.initializers().any(|(_, value, _)| value.ty.dtype == DType::Float16);
        let least = match (halved, approximate) {
            (true, _) => Precision::Float16,
            (_, true) => Precision::Approximate,
            _ => Precision::Float32,
        };
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

    /// Whether the UNet runs twice a step, once for the negative prompt, which comes first.
    pub(super) fn two_passes(&self) -> bool {
        self.model.fold().is_none() && matches!(self.sampling.guidance, Guidance::TwoPasses { scale } if scale > 1.0)
    }

    /// Draws with these graphs, its own or others of the same inputs and outputs, while `look` looks.
    pub(super) fn play(
        &self,
        graphs: Graphs<'_>,
        requests: &[Request],
        look: &Arc<dyn Look>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<(Vec<Picture>, Trace)>> {
        let load = |name: &str, graph: &Checked<Graph>| -> Result<Box<dyn Executor>, Error> {
            let wanted = look.wanted(name, graph);
            if wanted.is_empty() {
                return Ok(Box::new(Session::load(graph)?));
            }
            let values = wanted.iter().map(|id| (graph.value(*id).name.clone(), (*id, graph.ty(*id).shape.clone())));
            let lens = Lens {
                component: name.to_owned(),
                look: Arc::clone(look),
                values: values.collect(),
                wanted,
                run: AtomicUsize::new(0),
            };
            let lens = Arc::new(lens);
            let observer: Arc<dyn Observer> = lens.clone();
            Ok(Box::new(Counted { session: Session::load_observed(graph, &observer)?, lens }))
        };
        self.play_on(graphs, requests, &load, progress)
    }

    /// Draws on whatever runs the graphs.
    pub(super) fn play_on(
        &self,
        graphs: Graphs<'_>,
        requests: &[Request],
        load: Load<'_>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<(Vec<Picture>, Trace)>> {
        let sessions = |name: &str| load(name, &graphs(name)?);
        let sampler =
            Sampler { graphs, tokenizer: &self.tokenizer, plan: self.sampling.plan(), decoder: self.sampling.decoder };
        let mut drawn = Vec::new();
        sampler.draw_on(&sessions, requests, progress, &mut |_, pictures, trace| drawn.push((pictures, trace)))?;
        Ok(drawn)
    }
}

/// Looks into one component.
struct Lens {
    component: String,
    look: Arc<dyn Look>,
    wanted: Vec<ValueId>,
    /// The values by name, and their shapes.
    values: BTreeMap<String, (ValueId, Vec<usize>)>,
    run: AtomicUsize,
}

impl Observer for Lens {
    fn wanted(&self, _: &Checked<Graph>) -> Result<Vec<ValueId>, Failure> {
        Ok(self.wanted.clone())
    }

    fn see(&self, tensor: &str, numbers: &[f32]) -> Result<(), Failure> {
        if let Some((id, shape)) = self.values.get(tensor) {
            self.look.see(&self.component, self.run.load(Ordering::Relaxed), *id, Seen { shape, numbers });
        }
        Ok(())
    }
}

/// A session whose runs are counted.
struct Counted {
    session: Session,
    lens: Arc<Lens>,
}

impl Executor for Counted {
    fn ports(&self) -> &Ports {
        self.session.ports()
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let outputs = self.session.run(inputs);
        self.lens.run.fetch_add(1, Ordering::Relaxed);
        outputs
    }
}

/// What a lock holds, whatever became of who held it before.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
