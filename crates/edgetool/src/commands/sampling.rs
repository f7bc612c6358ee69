//! What every drawing subcommand makes of its sampling arguments and the model.

use std::path::Path;

use anyhow::{Result, ensure};
use edge_lcm::Schedule;
use edge_run::{Folded, Guidance, Plan};
use edge_spec::{Fold, FoldForm, GuidanceBy, Pipeline};

use super::model::Model;
use super::schedule;
use crate::cli::{Decoder, Sampling as Args};
use crate::report;

/// How a model is sampled.
pub(super) struct Sampling {
    steps: Steps,
    /// Guidance.
    pub(super) guidance: Guidance,
    /// The decoder.
    pub(super) decoder: edge_run::Decoder,
    unguided: bool,
}

enum Steps {
    Folded(Folded),
    Scheduled(Schedule),
}

impl Sampling {
    /// `path` is the model's, for messages.
    pub(super) fn new(args: &Args, path: &Path, model: &Model) -> Result<Self> {
        let (pipeline, fold) = (model.pipeline(), model.fold());
        let steps = match fold {
            Some(fold) => Steps::Folded(played(args, path, fold)?),
            None => Steps::Scheduled(schedule::schedule(model.root(), args.scheduler.is_some(), args.steps)?),
        };
        let unguided = fold.is_some_and(|f| f.guidance.by == GuidanceBy::None);
        let decoder = decoder(args, path, &pipeline)?;
        Ok(Self { steps, guidance: guidance(args, &pipeline, fold)?, decoder, unguided })
    }

    /// Who takes the steps.
    pub(super) fn plan(&self) -> Plan<'_> {
        match &self.steps {
            Steps::Folded(folded) => Plan::Folded(folded),
            Steps::Scheduled(schedule) => Plan::Schedule(schedule),
        }
    }

    /// How many steps.
    pub(super) fn steps(&self) -> usize {
        match &self.steps {
            Steps::Folded(folded) => folded.steps.len(),
            Steps::Scheduled(schedule) => schedule.coefficients().len(),
        }
    }

    /// Warns of a negative prompt that the model does not read.
    pub(super) fn warn_unused(&self, negative_prompt: &str) {
        let why = match self.guidance {
            _ if negative_prompt.is_empty() => return,
            Guidance::Embedding { .. } => "has a guidance embedding",
            Guidance::TwoPasses { .. } if self.unguided => "was folded without guidance",
            Guidance::TwoPasses { .. } => return,
        };
        report::warn(format!("the model {why}: the negative prompt is not used"));
    }
}

/// A folded model as it is played; arguments must not say otherwise.
fn played(args: &Args, path: &Path, fold: &Fold) -> Result<Folded> {
    let folder = path.display();
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

fn decoder(args: &Args, path: &Path, pipeline: &Pipeline) -> Result<edge_run::Decoder> {
    let (component, scaling_factor) = match (args.decoder.unwrap_or(Decoder::Vae), pipeline.taesd_scaling_factor) {
        (Decoder::Vae, _) => ("vae_decoder", pipeline.vae_scaling_factor),
        (Decoder::Taesd, Some(factor)) => ("taesd_decoder", factor),
        (Decoder::Taesd, None) => return Err(schedule::no_taesd(path)),
    };
    Ok(edge_run::Decoder { component, scaling_factor })
}

fn guidance(args: &Args, pipeline: &Pipeline, fold: Option<&Fold>) -> Result<Guidance> {
    if let Some(scale) = args.guidance {
        ensure!(scale.is_finite(), "--guidance {scale} is not a number to scale with");
    }
    let embedding = pipeline.guidance_embedding;
    let baked = fold.and_then(|f| f.guidance.scale);
    let scale = baked.or(args.guidance).unwrap_or(schedule::default_guidance(embedding.is_some()));
    let Some(width) = embedding else {
        return Ok(Guidance::TwoPasses { scale });
    };
    schedule::warn_untrained(scale);
    Ok(Guidance::Embedding { scale, width })
}
