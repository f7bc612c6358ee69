//! Fits the scheduler's steps to a quantized network: two factors a step, after Q-Sched.

use std::path::Path;

use anyhow::{Result, ensure};
use edge_ir::{Checked, Graph};
use edge_quant::mixed::{Fit, Sums};
use edge_spec::{Fold, FoldForm, Manifest, Place};

use super::model::Model;
use super::sensitivity::{Bench, Drawn, decibels, loaded};
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
/// already. Ones where the denoised latents come no nearer.
pub(super) fn fit(
    path: &Path,
    model: &Model,
    fold: &Fold,
    prompts: &[String],
    chosen: &[String],
    form: Form<'_>,
) -> Result<Vec<Fit>> {
    const ONE: Fit = Fit { sample: 1.0, output: 1.0 };
    let bench = Bench::new(path, model, prompts, chosen, &|name| loaded(&model.graph(name)?))?;
    let mut fits = vec![ONE; fold.steps.len()];
    let mut drawn = bench.draw(&|name| loaded(&form(name, &fits)?), false, usize::MAX)?;
    let before = bench.effect(&drawn).noise;
    ensure!(before.is_finite(), "the scheduler's steps cannot be fitted: latents are not finite");
    let mut best = before;
    for index in 0..fold.steps.len() {
        fits[index] = sums(&bench, &drawn, fold, index).fit();
        let found = bench.draw(&|name| loaded(&form(name, &fits)?), false, usize::MAX)?;
        let noise = bench.effect(&found).noise;
        // What is best for a step can be worse for those after it.
        if noise < best {
            (best, drawn) = (noise, found);
        } else {
            fits[index] = ONE;
        }
    }
    let words =
        fits.iter().map(|fit| format!("{:.4} and {:.4}", fit.sample, fit.output)).collect::<Vec<_>>().join(", ");
    report::say(format!(
        "fitted the scheduler's steps by {words}: denoised latents {:.2} dB, before {:.2} dB",
        decibels(best),
        decibels(before)
    ));
    Ok(fits)
}

/// What the factors of a step follow from.
fn sums(bench: &Bench<'_>, drawn: &[Drawn], fold: &Fold, index: usize) -> Sums {
    let step = &fold.steps[index];
    let mut sums = Sums::default();
    let fresh = fold.steps[..index].iter().filter(|step| step.noise != 0.0).count() + 1;
    for ((found, float), noises) in drawn.iter().zip(&bench.float).zip(&bench.noise) {
        let (Some(next), Some(wanted)) = (found.latents.get(index), float.latents.get(index)) else { continue };
        let sample = if index == 0 { &noises[0] } else { &found.latents[index - 1] };
        for (place, (x, (next, wanted))) in sample.iter().zip(next.iter().zip(wanted)).enumerate() {
            let z = if step.noise == 0.0 { 0.0 } else { noises[fresh][place] };
            let [x, z, next, wanted] = [*x, z, *next, *wanted].map(f64::from);
            let (u, added) = (step.sample * x, step.noise * z);
            sums.add(u, next - u - added, wanted - added);
        }
    }
    sums
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
