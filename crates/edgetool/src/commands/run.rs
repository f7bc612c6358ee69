//! `edgetool run`: a prompt becomes a picture.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edge_import::Options;
use edge_ir::{DType, TensorType};
use edge_run::picture::{Picture, write_png};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Guidance, Noise, Request, Sampler, Trace, tensors};
use edge_spec::Pipeline;

use super::model::Model;
use super::sampling::Sampling;
use crate::cli::Run;
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
    let sampling = Sampling::new(&args.sampling, &args.model, model)?;
    sampling.warn_unused(&args.negative_prompt);
    let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
    let request = Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        guidance: sampling.guidance,
        noise: noise(args, &pipeline)?,
    };
    let settings = settings(args, &pipeline, &request, &sampling);
    let bar = report::progress_bar(args.quiet);
    let graphs = model.graphs();
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan: sampling.plan(), decoder: sampling.decoder };
    let drawn = sampler.draw(&request, &mut |what| bar.set_message(what.to_owned()))?;
    bar.finish_and_clear();
    Ok((drawn.0, drawn.1, settings))
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
fn settings(args: &Run, pipeline: &Pipeline, request: &Request, sampling: &Sampling) -> Settings {
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
        ("steps", sampling.steps().to_string()),
        ("guidance", scale.to_string()),
        ("decoder", sampling.decoder.component.to_owned()),
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
