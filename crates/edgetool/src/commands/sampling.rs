//! What every drawing subcommand needs: schedule, guidance and decoder from the arguments and the model.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_ir::{Checked, Graph};
use edge_lcm::{Schedule, SchedulerConfig, StepRequest};
use edge_run::{Decoder, Guidance};
use edge_spec::Pipeline;

use super::model::Model;
use crate::cli::{DecoderName, Sampling};
use crate::report;

/// The guidance scale of models with an embedding for it, as diffusers' pipeline has it nearest.
const EMBEDDED_GUIDANCE: f32 = 8.0;
/// The guidance scale of the others: one pass.
const PLAIN_GUIDANCE: f32 = 1.0;
/// What distillation trains the embedding for.
const TRAINED_GUIDANCE: std::ops::RangeInclusive<f32> = 3.0..=16.0;

/// Gives the model's graphs to a sampler.
pub(super) fn graphs(model: &Model) -> impl Fn(&str) -> Result<Checked<Graph>, edge_run::Error> {
    |name: &str| {
        model.graph(name).map_err(|source| edge_run::Error::Component { name: name.to_owned(), source: source.into() })
    }
}

/// The decoder that was asked for. `path` is the model's.
pub(super) fn decoder(args: &Sampling, path: &Path, pipeline: &Pipeline) -> Result<Decoder> {
    let (component, scaling_factor) = match (args.decoder, pipeline.taesd_scaling_factor) {
        (DecoderName::Vae, _) => ("vae_decoder", pipeline.vae_scaling_factor),
        (DecoderName::Taesd, Some(factor)) => ("taesd_decoder", factor),
        (DecoderName::Taesd, None) => {
            let text = format!("`{}` has no tiny decoder", path.display());
            return Err(report::with_hint(
                text,
                "put an AutoencoderTiny into a folder `taesd` of the checkpoint, or leave `--decoder` out",
            ));
        }
    };
    Ok(Decoder { component, scaling_factor })
}

/// The schedule of the model's scheduler.
pub(super) fn schedule(args: &Sampling, root: &Path) -> Result<Schedule> {
    let path = root.join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let parse = if args.scheduler.is_some() { SchedulerConfig::from_json_as_lcm } else { SchedulerConfig::from_json };
    let config = parse(&text).with_context(|| format!("cannot use `{}`", path.display()))?;
    let schedule = Schedule::new(&config, &StepRequest::steps(args.steps)).map_err(|error| match error {
        edge_lcm::Error::TooFewOriginalSteps { available, steps, .. } => report::with_hint(
            format!(
                "--steps {steps} is too many: the schedule has {available}, the scheduler's `original_inference_steps`"
            ),
            format!("name {available} steps or fewer"),
        ),
        other => other.into(),
    })?;
    schedule.warnings().iter().for_each(report::warn);
    Ok(schedule)
}

/// How the prompt's influence is strengthened; warns where the model was not trained for it.
pub(super) fn guidance(args: &Sampling, pipeline: &Pipeline) -> Result<Guidance> {
    if let Some(scale) = args.guidance {
        ensure!(scale.is_finite(), "--guidance {scale} is not a number to scale with");
    }
    let Some(width) = pipeline.guidance_embedding else {
        return Ok(Guidance::TwoPasses { scale: args.guidance.unwrap_or(PLAIN_GUIDANCE) });
    };
    let scale = args.guidance.unwrap_or(EMBEDDED_GUIDANCE);
    if !TRAINED_GUIDANCE.contains(&scale) {
        report::warn(format!(
            "guidance {scale} is outside of what guidance embeddings are trained for, {TRAINED_GUIDANCE:?}"
        ));
    }
    Ok(Guidance::Embedding { scale, width })
}
