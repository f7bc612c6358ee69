//! `edgetool calibrate`: what values a model's tensors take while it draws.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use edge_import::Options;
use edge_ir::{Checked, Executor, Graph, ValueId};
use edge_quant::Inputs;
use edge_quant::calibration::{
    self, CalibrationError, GraphStatistics, Merger, PromptSet, Run, Shard, Statistics, taps,
};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Failure, Guidance, Noise, Observer, Request, Sampler, Session, Trace};
use edge_spec::Prompt;

use super::beside::Beside;
use super::model::Model;
use super::recorded::{Recorded, is_recorded};
use super::sampling::Sampling;
use crate::cli::{self, Calibrate};
use crate::report;
use crate::staging::Staging;

/// Pictures that are drawn at a time: each network is loaded once for them, and what they need between networks is kept.
const GROUP: usize = 64;

/// Draws and looks, or joins what was seen.
pub(crate) fn calibrate(args: &Calibrate) -> Result<()> {
    let output = Staging::file(&args.output)?;
    let statistics = if args.merge.is_empty() { onto(args, observe(args)?)? } else { merge(args)? };
    let write = || format!("cannot write `{}`", args.output.display());
    let mut file = BufWriter::new(File::create(output.path()).with_context(write)?);
    calibration::write(&statistics, &mut file).and_then(|()| file.flush()).with_context(write)?;
    output.commit()?;
    if !args.quiet {
        let tensors: usize = statistics.graphs.values().map(|graph| graph.tensors.len()).sum();
        let Run { prompts, shard, .. } = &statistics.run;
        let part = if *shard == Shard::WHOLE { String::new() } else { format!(", part {shard}") };
        report::say(format!(
            "wrote `{}`: {} prompts{part}, {tensors} tensors of {}",
            args.output.display(),
            prompts.count,
            statistics.graphs.keys().cloned().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(())
}

fn observe(args: &Calibrate) -> Result<Statistics> {
    super::set_threads(args.threads)?;
    // clap has seen to it that both are there.
    let (path, list) = (args.model.as_deref().unwrap_or(Path::new("")), args.prompts.as_deref());
    let cannot = || format!("cannot calibrate `{}`", path.display());
    let list = list.unwrap_or(Path::new(""));
    let prompts = if is_recorded(list) { Vec::new() } else { prompts(list, args)? };
    let model = Model::open(path, args.config.as_deref(), Options::default()).with_context(cannot)?;
    check_components(args, path, &model)?;
    if is_recorded(list) {
        if args.with.is_some() {
            let text = format!("`{}` says what each network reads: `--with` has no use beside it", list.display());
            return Err(report::with_hint(text, "leave `--with` out, or name prompts"));
        }
        return replay(args, path, &model, list, true, None).with_context(cannot);
    }
    draw(args, path, &model, &prompts, true, None).with_context(cannot)
}

/// What layers read, while somebody may be looking.
pub(super) type SharedInputs = Arc<Mutex<Inputs>>;

/// What the tensors of some components of an opened model take while it draws the prompts of a file, or reads its inputs. `inputs` looks on;
/// the statistics are empty if `ranges` are not wanted.
pub(super) fn see(
    path: &Path,
    model: &Model,
    prompts: &Path,
    number: Option<NonZero<usize>>,
    components: &[String],
    ranges: bool,
    inputs: Option<&SharedInputs>,
) -> Result<Statistics> {
    let args = Calibrate {
        model: Some(path.to_owned()),
        prompts: Some(prompts.to_owned()),
        output: PathBuf::new(),
        number,
        seed: 0,
        shard: Shard::WHOLE,
        merge: Vec::new(),
        component: components.to_vec(),
        onto: None,
        with: None,
        sampling: cli::Sampling { steps: None, guidance: None, decoder: None, scheduler: None },
        config: None,
        threads: None,
        quiet: false,
    };
    if is_recorded(prompts) {
        return replay(&args, path, model, prompts, ranges, inputs);
    }
    draw(&args, path, model, &self::prompts(prompts, &args)?, ranges, inputs)
}

/// Runs each component that was recorded on the samples, which stand for what it would be fed in a run.
fn replay(
    args: &Calibrate,
    path: &Path,
    model: &Model,
    samples: &Path,
    ranges: bool,
    inputs: Option<&SharedInputs>,
) -> Result<Statistics> {
    let recorded = Recorded::read(samples, args.number, model, &args.component)?;
    let sampling = Sampling::new(&args.sampling, path, model)?;
    let run = run(args, &sampling, recorded.set());
    let watch = Watch { statistics: Arc::new(Mutex::new(Statistics::new(run))), ranges, inputs };
    let bar = report::progress_bar(args.quiet);
    let asked = |name: &&str| args.component.is_empty() || args.component.iter().any(|component| component == name);
    for name in recorded.components().filter(asked) {
        bar.set_message(name.to_owned());
        recorded.run(name, &mut watch.load(name, &model.graph(name)?)?, args.shard)?;
    }
    bar.finish_and_clear();
    Ok(unshare(watch.statistics))
}

fn run(args: &Calibrate, sampling: &Sampling, prompts: PromptSet) -> Run {
    let (Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale }) = sampling.guidance;
    Run {
        prompts,
        seed: args.seed,
        steps: sampling.steps(),
        guidance: scale,
        decoder: sampling.decoder.component.to_owned(),
        shard: args.shard,
        quantized: None,
    }
}

/// What is taken down while networks run.
struct Watch<'a> {
    statistics: Arc<Mutex<Statistics>>,
    ranges: bool,
    inputs: Option<&'a SharedInputs>,
}

impl Watch<'_> {
    fn load(&self, name: &str, graph: &Checked<Graph>) -> Result<Session, edge_run::Error> {
        let observer: Arc<dyn Observer> = Arc::new(Recorder {
            component: name.to_owned(),
            statistics: self.ranges.then(|| Arc::clone(&self.statistics)),
            ranged: Mutex::default(),
            inputs: self.inputs.cloned(),
        });
        let is_known = !self.ranges || lock(&self.statistics).graphs.contains_key(name);
        thread::scope(|scope| {
            // One thread hashes the weights while another waits for memory to load them into.
            let hashed = scope.spawn(|| (!is_known).then(|| GraphStatistics::of(graph)).transpose());
            let session = Session::load_observed(graph, &observer)?;
            let known = hashed.join().unwrap_or_else(|panic| resume_unwind(panic));
            if let Some(known) = known.map_err(|e| edge_run::Error::Observer(Box::new(e)))? {
                lock(&self.statistics).graphs.insert(name.to_owned(), known);
            }
            Ok(session)
        })
    }
}

/// The prompts of all parts.
fn prompts(path: &Path, args: &Calibrate) -> Result<Vec<String>> {
    let mut prompts: Vec<String> = Prompt::read_all(path)?.into_iter().map(|prompt| prompt.text).collect();
    prompts.truncate(args.number.map_or(usize::MAX, NonZero::get));
    let (shown, count) = (path.display(), prompts.len());
    if prompts.iter().collect::<BTreeSet<_>>().len() < 2 {
        let text = format!("`{shown}` gives one prompt, expected at least 2 different ones");
        return Err(report::with_hint(text, "8 to 64 prompts of the kind that will be drawn are usual"));
    }
    if args.shard.of() as usize > count {
        let text = format!("`{shown}` gives {count} prompts, which are too few for {} parts", args.shard.of());
        return Err(report::with_hint(text, "give more prompts, or split them into fewer parts"));
    }
    Ok(prompts)
}

fn check_components(args: &Calibrate, path: &Path, model: &Model) -> Result<()> {
    let known = model.components();
    let Some(name) = args.component.iter().find(|name| !known.contains(name)) else { return Ok(()) };
    let text = format!("`{}` has no component `{name}`", path.display());
    Err(report::with_hint(text, format!("it has {}", known.join(", "))))
}

fn draw(
    args: &Calibrate,
    path: &Path,
    model: &Model,
    prompts: &[String],
    ranges: bool,
    inputs: Option<&SharedInputs>,
) -> Result<Statistics> {
    let sampling = Sampling::new(&args.sampling, path, model)?;
    let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
    let beside = args.with.as_deref().map(Beside::open).transpose()?;
    let mut run = run(args, &sampling, PromptSet::of(prompts.iter().map(String::as_str)));
    run.quantized = beside.as_ref().map(Beside::sha256).transpose()?;
    let watch = Watch { statistics: Arc::new(Mutex::new(Statistics::new(run))), ranges, inputs };
    let request = |(index, prompt): (usize, &String)| Request {
        prompt: prompt.clone(),
        negative_prompt: String::new(),
        guidance: sampling.guidance,
        noise: Noise::Seed(args.seed.wrapping_add(index as u64)),
    };
    let part = prompts.iter().enumerate().filter(|(index, _)| args.shard.has(*index));
    let requests: Vec<Request> = part.map(request).collect();
    let bar = report::progress_bar(args.quiet);
    let graphs = model.graphs();
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan: sampling.plan(), decoder: sampling.decoder };
    let load = |name: &str| -> Result<Box<dyn Executor>, _> {
        let graph = graphs(name)?;
        let behind = |session| match &beside {
            Some(beside) => beside.behind(name, session),
            None => Ok(Box::new(session) as Box<dyn Executor>),
        };
        if !args.component.is_empty() && !args.component.iter().any(|component| component == name) {
            return behind(Session::load(&graph)?);
        }
        behind(watch.load(name, &graph)?)
    };
    let mut cut = 0;
    let decoder = sampling.decoder.component;
    let decodes = args.component.is_empty() || args.component.iter().any(|component| component == decoder);
    for group in requests.chunks(GROUP) {
        let mut progress = |what: &str| bar.set_message(what.to_owned());
        if decodes {
            let mut done = |_, _, trace: Trace| cut += usize::from(trace.truncated);
            sampler.draw_on(&load, group, &mut progress, &mut done)?;
        } else {
            let traces = sampler.denoise_on(&load, group, &mut progress)?;
            cut += traces.iter().filter(|trace| trace.truncated).count();
        }
    }
    bar.finish_and_clear();
    if cut > 0 {
        let of = requests.len();
        report::warn(format!("{cut} of {of} prompts are longer than the text encoder takes: their ends were left out"));
    }
    Ok(unshare(watch.statistics))
}

/// What was seen, and of other components what another file says.
fn onto(args: &Calibrate, seen: Statistics) -> Result<Statistics> {
    let Some(path) = &args.onto else { return Ok(seen) };
    let mut base = calibration::read(path)?;
    base.put(&path.display().to_string(), &args.output.display().to_string(), seen)?;
    Ok(base)
}

/// Takes down what a component shows.
struct Recorder {
    component: String,
    statistics: Option<Arc<Mutex<Statistics>>>,
    /// The tensors of which statistics are kept.
    ranged: Mutex<BTreeSet<String>>,
    inputs: Option<SharedInputs>,
}

impl Observer for Recorder {
    fn wanted(&self, graph: &Checked<Graph>) -> Result<Vec<ValueId>, Failure> {
        let mut wanted = BTreeSet::new();
        if self.statistics.is_some() {
            wanted.extend(taps(graph).observed);
            *lock(&self.ranged) = wanted.iter().map(|id| graph.value(*id).name.clone()).collect();
        }
        if let Some(inputs) = &self.inputs {
            wanted.extend(lock(inputs).wanted(&self.component, graph));
        }
        Ok(wanted.into_iter().collect())
    }

    fn takes_parts(&self) -> bool {
        true
    }

    fn see(&self, tensor: &str, values: &[f32]) -> Result<(), Failure> {
        if let Some(statistics) = self.statistics.as_ref().filter(|_| lock(&self.ranged).contains(tensor)) {
            // Counted before others wait: threads that count may help with another tensor's parts.
            let seen = calibration::Observer::of(values);
            lock(statistics).add(&self.component, tensor, &seen)?;
        }
        if let Some(inputs) = &self.inputs {
            lock(inputs).observe(&self.component, tensor, values)?;
        }
        Ok(())
    }
}

/// What several may change, for the time of the result.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What nobody else may change any more.
pub(super) fn unshare<T: Clone>(shared: Arc<Mutex<T>>) -> T {
    let alone = |alone: Mutex<T>| alone.into_inner().unwrap_or_else(PoisonError::into_inner);
    Arc::try_unwrap(shared).map_or_else(|shared| lock(&shared).clone(), alone)
}

fn merge(args: &Calibrate) -> Result<Statistics> {
    let mut merger = Merger::default();
    let joined = args.merge.iter().try_for_each(|path| {
        let part = calibration::read(path)?;
        merger.add(&path.display().to_string(), part)
    });
    joined.and_then(|()| merger.finish()).map_err(|error| {
        let hint = match &error {
            CalibrationError::Missing { .. } => "make the others with `--shard`, and name the files of all parts",
            CalibrationError::Overlap { .. } => "name each part once",
            CalibrationError::Foreign { .. } => "all parts take the same model, prompts, seed and sampling options",
            _ => return error.into(),
        };
        report::with_hint(error.to_string(), hint)
    })
}
