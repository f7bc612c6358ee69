//! Fits the scheduler's steps to a quantized network: two factors a step, after Q-Sched.

use std::path::Path;

use anyhow::{Result, ensure};
use edge_ir::{Checked, Graph};
use edge_quant::mixed::{Fit, Sums};
use edge_spec::{Fold, FoldForm, Manifest, Place};

use super::model::Model;
use super::sensitivity::{Bench, decibels};
use crate::report;

/// Gives a component's quantized graph, with these factors in its scheduler's step.
pub(super) type Form<'a> = &'a dyn Fn(&str, &[Fit]) -> Result<Checked<Graph>>;

/// What of a folder has steps that can be fitted, all of which are quantized.
pub(super) fn check<'a>(path: &Path, manifest: &'a Manifest, chosen: &[String]) -> Result<&'a Fold> {
    let has = |fold: &&Fold| {
        let all = (0..fold.steps.len()).all(|step| chosen.contains(&component(step)));
        fold.form == FoldForm::PerStep && fold.scheduler_step == Place::Graph && all
    };
    manifest.fold.as_ref().filter(has).ok_or_else(|| {
        let text = format!("`{}` has no UNet for each step with the scheduler's step in it", path.display());
        report::with_hint(text, "leave `--fit-scheduler` out, or convert the checkpoint again with `--fold per-step`")
    })
}

/// The factors of each step: those that bring its latent nearest to the float model's, with the steps before it fitted
/// already. Ones if the pictures are no nearer with them.
pub(super) fn fit(
    path: &Path,
    model: &Model,
    fold: &Fold,
    prompts: &[String],
    chosen: &[String],
    form: Form<'_>,
) -> Result<Vec<Fit>> {
    const ONE: Fit = Fit { sample: 1.0, output: 1.0 };
    let bench = Bench::new(path, model, prompts, chosen)?;
    let mut fits = vec![ONE; fold.steps.len()];
    let mut noise = Vec::new();
    for (index, step) in fold.steps.iter().enumerate() {
        let drawn = bench.draw(&|name| form(name, &fits))?;
        noise.push(bench.effect(&drawn).noise);
        let mut sums = Sums::default();
        let fresh = fold.steps[..index].iter().filter(|step| step.noise != 0.0).count() + 1;
        for ((found, float), noises) in drawn.iter().zip(&bench.float).zip(&bench.noise) {
            let latents = (found.latents.get(index), float.latents.get(index));
            let (Some(next), Some(wanted)) = latents else { continue };
            let sample = if index == 0 { &noises[0] } else { &found.latents[index - 1] };
            let zero = vec![0.0; sample.len()];
            let noise = if step.noise == 0.0 { &zero } else { &noises[fresh] };
            for (((x, z), next), wanted) in sample.iter().zip(noise).zip(next).zip(wanted) {
                let [x, z, next, wanted] = [x, z, next, wanted].map(|v| f64::from(*v));
                let (u, added) = (step.sample * x, step.noise * z);
                sums.add(u, next - u - added, wanted - added);
            }
        }
        fits[index] = sums.fit();
    }
    let after = bench.effect(&bench.draw(&|name| form(name, &fits))?).noise;
    let before = noise.first().copied().unwrap_or(after);
    ensure!(after.is_finite(), "the scheduler's steps cannot be fitted: latents are not finite");
    if after >= before {
        report::warn(
            "no factors of the scheduler's steps bring the latents nearer to the float model's: none are used",
        );
        return Ok(vec![ONE; fold.steps.len()]);
    }
    let words =
        fits.iter().map(|fit| format!("{:.4} and {:.4}", fit.sample, fit.output)).collect::<Vec<_>>().join(", ");
    report::say(format!(
        "fitted the scheduler's steps by {words}: denoised latents {:.2} dB, before {:.2} dB",
        decibels(after),
        decibels(before)
    ));
    Ok(fits)
}

/// The component of a step.
pub(super) fn component(step: usize) -> String {
    format!("unet_step_{step}")
}

/// The manifest's steps as the graphs have them then.
pub(super) fn fitted(fold: &Fold, fits: &[Fit]) -> Fold {
    let mut fold = fold.clone();
    for (step, fit) in fold.steps.iter_mut().zip(fits) {
        step.sample *= fit.sample;
        step.output *= fit.output;
    }
    fold
}
