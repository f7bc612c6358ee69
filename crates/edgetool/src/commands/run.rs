//! `edgetool run`: a prompt becomes a picture.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edge_import::Options;
use edge_ir::{DType, TensorType};
use edge_run::picture::{Picture, write_png};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Folded, Guidance, Noise, Plan, Request, Sampler, Trace, tensors};
use edge_spec::{Fold, FoldForm, GuidanceBy, Pipeline};
use indicatif::{ProgressBar, ProgressStyle};

use super::model::Model;
use crate::cli::{Decoder, Run};
use crate::report;
use crate::staging::Staging;

/// Draws as the arguments say.
pub(crate) fn run(args: &Run) -> Result<()> {
    super::set_threads(args.threads)?;
    let cannot = || format!("cannot run `{}`", args.model.display());
    let output = Staging::file(&args.output)?;
    let options = Options { height: args.size.map(|s| s.0), width: args.size.map(|s| s.1), ..Options::default() };
    let model = Model::open(&args.model, args.config.as_deref(), options).with_context(cannot)?;
    let (pictures, trace, settings) = draw(args, &model).with_context(cannot)?;
    if trace.truncated {
        report::warn("the prompt is longer than the text encoder takes: its end was left out");
    }
    if let Some(path) = &args.save_tensors {
        let staging = Staging::file(path)?;
        let bytes = tensors::encode(&trace.tensors, path)?;
        std::fs::write(staging.path(), bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        staging.commit()?;
    }
    save(args, output, &pictures, &settings)
}

type Settings = Vec<(String, String)>;

fn draw(args: &Run, model: &Model) -> Result<(Vec<Picture>, Trace, Settings)> {
    let pipeline = model.pipeline();
    let fold = model.fold();
    let folded = fold.map(|fold| played(args, fold)).transpose()?;
    let (plan, schedule);
    plan = if let Some(folded) = &folded {
        Plan::Folded(folded)
    } else {
        schedule = super::schedule::schedule(model.root(), args.scheduler.is_some(), args.steps)?;
        Plan::Schedule(&schedule)
    };
    let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
    let request = request(args, &pipeline, fold)?;
    let steps = match plan {
        Plan::Folded(folded) => folded.steps.len(),
        Plan::Schedule(schedule) => schedule.coefficients().len(),
    };
    let settings = settings(args, &pipeline, &request, steps);
    let bar = progress_bar(args);
    let graphs = |name: &str| {
        model.graph(name).map_err(|source| edge_run::Error::Component { name: name.to_owned(), source: source.into() })
    };
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan };
    let drawn = sampler.draw(&request, &mut |what| bar.set_message(what.to_owned()))?;
    bar.finish_and_clear();
    Ok((drawn.0, drawn.1, settings))
}

/// A folded model as it is played; arguments must not say otherwise.
fn played(args: &Run, fold: &Fold) -> Result<Folded> {
    let folder = args.model.display();
    let again = |option: &str, value: &dyn std::fmt::Display| {
        format!("leave `{option}` out, or convert the checkpoint again with `{option} {value}`")
    };
    if let Some(steps) = args.steps.filter(|steps| *steps != fold.steps.len()) {
        let text = format!("`{folder}` has {} steps folded in, not {steps}", fold.steps.len());
        return Err(report::with_hint(text, again("--steps", &steps)));
    }
    if let (Some(scale), Some(baked)) = (args.guidance, fold.guidance.scale)
        && scale.to_bits() != baked.to_bits()
    {
        let text = format!("`{folder}` has the guidance scale {baked} folded in, not {scale}");
        return Err(report::with_hint(text, again("--guidance", &scale)));
    }
    if let Some(scale) = args.guidance.filter(|scale| fold.guidance.by == GuidanceBy::None && *scale > 1.0) {
        let text = format!("`{folder}` was folded without guidance, and cannot be guided by {scale}");
        return Err(report::with_hint(text, again("--guidance", &scale)));
    }
    if args.scheduler.is_some() {
        let text = format!("`{folder}` has its scheduler folded in: `--scheduler` changes nothing");
        return Err(report::with_hint(text, "leave `--scheduler` out"));
    }
    if let Some(decoder) = args.decoder.filter(|_| fold.form == FoldForm::Pipeline) {
        let text = format!("`{folder}` is one graph with its decoder in it: `--decoder` cannot choose");
        let name = if decoder == Decoder::Vae { "vae" } else { "taesd" };
        return Err(report::with_hint(text, again("--decoder", &name)));
    }
    Ok(super::fold::player(fold))
}

fn request(args: &Run, pipeline: &Pipeline, fold: Option<&Fold>) -> Result<Request> {
    let (decoder, scaling_factor) = match (args.decoder.unwrap_or(Decoder::Vae), pipeline.taesd_scaling_factor) {
        (Decoder::Vae, _) => ("vae_decoder", pipeline.vae_scaling_factor),
        (Decoder::Taesd, Some(factor)) => ("taesd_decoder", factor),
        (Decoder::Taesd, None) => return Err(super::schedule::no_taesd(&args.model)),
    };
    Ok(Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        guidance: guidance(args, pipeline, fold)?,
        noise: noise(args, pipeline)?,
        decoder,
        scaling_factor,
    })
}

fn guidance(args: &Run, pipeline: &Pipeline, fold: Option<&Fold>) -> Result<Guidance> {
    if let Some(scale) = args.guidance {
        ensure!(scale.is_finite(), "--guidance {scale} is not a number to scale with");
    }
    let embedding = pipeline.guidance_embedding;
    let baked = fold.and_then(|f| f.guidance.scale);
    let scale = baked.or(args.guidance).unwrap_or(super::schedule::default_guidance(embedding.is_some()));
    let Some(width) = embedding else {
        if fold.is_some_and(|f| f.guidance.by == GuidanceBy::None) && !args.negative_prompt.is_empty() {
            report::warn("the model was folded without guidance: the negative prompt is not used");
        }
        return Ok(Guidance::TwoPasses { scale });
    };
    super::schedule::warn_untrained(scale);
    if !args.negative_prompt.is_empty() {
        report::warn("the model has a guidance embedding: the negative prompt is not used");
    }
    Ok(Guidance::Embedding { scale, width })
}

fn noise(args: &Run, pipeline: &Pipeline) -> Result<Noise> {
    let Some(path) = &args.latents else { return Ok(Noise::Seed(args.seed)) };
    let mut file = tensors::read(path)?;
    let factor = pipeline.vae_scale_factor;
    let shape = [pipeline.batch, pipeline.latent_channels, pipeline.height / factor, pipeline.width / factor];
    let expected = TensorType::new(DType::Float32, shape);
    let shown = path.display();
    let latent =
        file.remove("latent").with_context(|| format!("`{shown}` has no tensor `latent`, expected {expected}"))?;
    ensure!(latent.ty == expected, "`{shown}`: `latent` is {}, expected {expected}", latent.ty);
    let Some(noise) = file.remove("noise") else {
        return Ok(Noise::Given { latent: latent.to_f32s(), noise: Vec::new() });
    };
    let fits = noise.ty.dtype == DType::Float32 && noise.ty.shape.get(1..) == Some(&expected.shape[..]);
    ensure!(fits, "`{shown}`: `noise` is {}, expected a {expected} for each step but the last, stacked", noise.ty);
    Ok(Noise::Given { latent: latent.to_f32s(), noise: noise.to_f32s() })
}

/// What a reader of the picture needs to draw it again.
fn settings(args: &Run, pipeline: &Pipeline, request: &Request, steps: usize) -> Settings {
    let scale = match request.guidance {
        Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale } => scale,
    };
    let noise = match request.noise {
        Noise::Seed(seed) => seed.to_string(),
        Noise::Given { .. } => "given".to_owned(),
    };
    let mut settings = vec![
        ("Software", concat!("edgetool ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("prompt", args.prompt.clone()),
        ("seed", noise),
        ("steps", steps.to_string()),
        ("guidance", scale.to_string()),
        ("decoder", request.decoder.to_owned()),
        ("size", format!("{}x{}", pipeline.height, pipeline.width)),
    ];
    if !args.negative_prompt.is_empty() {
        settings.push(("negative prompt", args.negative_prompt.clone()));
    }
    // A PNG's texts cannot hold NUL.
    settings.into_iter().map(|(k, v)| (k.to_owned(), v.replace('\0', "\u{fffd}"))).collect()
}

/// Writes the pictures: one under the name given, more with their numbers before the ending.
fn save(args: &Run, first: Staging, pictures: &[Picture], settings: &Settings) -> Result<()> {
    let mut staged = vec![(args.output.clone(), first)];
    for index in 1..pictures.len() {
        let path = numbered(&args.output, index + 1);
        staged.push((path.clone(), Staging::file(&path)?));
    }
    for (picture, (path, staging)) in pictures.iter().zip(staged) {
        let write = || format!("cannot write `{}`", path.display());
        let file = File::create(staging.path()).with_context(write)?;
        write_png(BufWriter::new(file), picture, settings).with_context(write)?;
        staging.commit()?;
        if !args.quiet {
            report::say(format!("drew `{}`, {}x{} pixels", path.display(), picture.height, picture.width));
        }
    }
    Ok(())
}

fn numbered(path: &Path, index: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = path
        .extension()
        .map_or_else(|| format!("{stem}-{index}"), |e| format!("{stem}-{index}.{}", e.to_string_lossy()));
    path.with_file_name(name)
}

fn progress_bar(args: &Run) -> ProgressBar {
    if args.quiet || std::env::var_os("CI").is_some() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}
