//! What `convert` and `run` both say about steps, guidance and decoders.

use std::path::Path;

use anyhow::{Context, Result};
use edge_lcm::{Schedule, SchedulerConfig, StepRequest};

use crate::report;

/// Steps where none are named.
const STEPS: usize = 2;
/// The guidance scale of models with an embedding for it, as diffusers' pipeline has it nearest.
const EMBEDDED_GUIDANCE: f32 = 8.0;
/// The guidance scale of the others: one pass.
const PLAIN_GUIDANCE: f32 = 1.0;
/// What distillation trains the embedding for.
const TRAINED_GUIDANCE: std::ops::RangeInclusive<f32> = 3.0..=16.0;

/// The schedule of the scheduler's configuration below `root`.
pub(super) fn schedule(root: &Path, as_lcm: bool, steps: Option<usize>) -> Result<Schedule> {
    let path = root.join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let parse = if as_lcm { SchedulerConfig::from_json_as_lcm } else { SchedulerConfig::from_json };
    let config = parse(&text).with_context(|| format!("cannot use `{}`", path.display()))?;
    let schedule = Schedule::new(&config, &StepRequest::steps(steps.unwrap_or(STEPS))).map_err(|error| match error {
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

/// The guidance scale where none is named.
pub(super) fn default_guidance(embedding: bool) -> f32 {
    if embedding { EMBEDDED_GUIDANCE } else { PLAIN_GUIDANCE }
}

/// Warns of a scale that a guidance embedding was not trained for.
pub(super) fn warn_untrained(scale: f32) {
    if !TRAINED_GUIDANCE.contains(&scale) {
        report::warn(format!(
            "guidance {scale} is outside of what guidance embeddings are trained for, {TRAINED_GUIDANCE:?}"
        ));
    }
}

/// The error for a model without a tiny decoder.
pub(super) fn no_taesd(model: &Path) -> anyhow::Error {
    report::with_hint(
        format!("`{}` has no tiny decoder", model.display()),
        "put an AutoencoderTiny into a folder `taesd` of the checkpoint, or leave `--decoder` out",
    )
}
