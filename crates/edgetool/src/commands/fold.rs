//! What of `convert`'s arguments asks for folding, and what the manifest says of it.

use anyhow::{Result, ensure};
use edge_import::{Imported, Options};
use edge_lcm::Affine;
use edge_passes::lcm::{Branches, FoldError, Folded, Form, Layout, Request, fold, needs_branches};
use edge_spec::{Fold, FoldClip, FoldForm, FoldGuidance, FoldStep, GuidanceBy, ImageLayout, Place};

use super::schedule;
use crate::cli::{self, Convert, Decoder, FoldedGuidance, SchedulerStep};
use crate::report;

/// Folds as the arguments say.
pub(super) fn folded(args: &Convert, imported: &Imported, options: Options) -> Result<(Folded, Fold)> {
    let form = form(args.fold)?;
    let host = args.scheduler_step == Some(SchedulerStep::Host);
    if host && matches!(form, Form::Unrolled | Form::Pipeline) {
        let text = "`--scheduler-step host` leaves the steps to the caller, but all of them are to be in one graph";
        return Err(report::with_hint(text, "name `--fold table` or `--fold per-step`"));
    }
    let schedule = schedule::schedule(&imported.checkpoint.root, args.scheduler.is_some(), args.steps)?;
    let embedding = imported.pipeline.guidance_embedding.is_some();
    let guidance = match args.guidance {
        Some(FoldedGuidance::Input) => None,
        Some(FoldedGuidance::Scale(scale)) => Some(scale),
        None => Some(schedule::default_guidance(embedding)),
    };
    if let Some(scale) = guidance.filter(|_| embedding) {
        schedule::warn_untrained(scale);
    }
    let two = needs_branches(embedding, guidance);
    if args.branches.is_some() && !two {
        return Err(unused_branches(embedding, guidance));
    }
    let batch = args.branches == Some(cli::Branches::Batch);
    // The UNet's shapes are static, so it is built again for the images of both prompts.
    let twice = Options { unet_batch: Some(2 * imported.pipeline.batch), ..options };
    let twice = batch.then(|| edge_import::import(&args.source, args.config.as_deref(), twice)).transpose()?;
    let twice = twice.as_ref().and_then(|imported| imported.model.components.get("unet"));
    let mut decoders = vec![("vae_decoder", imported.pipeline.vae_scaling_factor)];
    decoders.extend(imported.pipeline.taesd_scaling_factor.map(|factor| ("taesd_decoder", factor)));
    let request = Request {
        form,
        schedule: &schedule,
        guidance,
        branches: twice.map_or(Branches::Calls, |unet| Branches::Batch(unet)),
        host,
        hoist: args.hoist_kv,
        layout: layout(args),
        decoders: &decoders,
        decoder: decoder(args, form, &decoders)?,
    };
    let folded = fold(&imported.model, &request).map_err(|error| match error {
        FoldError::Thresholding => report::with_hint(
            format!("the scheduler's `thresholding` does not fold: {error}"),
            "convert without `--fold`: `edgetool run` thresholds between the steps",
        ),
        other => other.into(),
    })?;
    let by = match (embedding, two, batch) {
        (true, _, _) => GuidanceBy::Embedding,
        (false, false, _) => GuidanceBy::None,
        (false, true, false) => GuidanceBy::Calls,
        (false, true, true) => GuidanceBy::Batch,
    };
    let facts = facts(&request, by, &folded.steps);
    Ok((folded, facts))
}

/// An error if options that only folding reads are there without it.
pub(super) fn refuse_options(args: &Convert) -> Result<()> {
    let given = [
        ("--steps", args.steps.is_some()),
        ("--guidance", args.guidance.is_some()),
        ("--branches", args.branches.is_some()),
        ("--scheduler-step", args.scheduler_step.is_some()),
        ("--scheduler", args.scheduler.is_some()),
        ("--image", args.image.is_some()),
        ("--decoder", args.decoder.is_some()),
        ("--hoist-kv", args.hoist_kv),
    ];
    let Some((option, _)) = given.into_iter().find(|(_, there)| *there) else { return Ok(()) };
    Err(report::with_hint(
        format!("`{option}` says how to fold the sampler, and nothing is to be folded"),
        "add `--fold table`, `per-step`, `unrolled` or `pipeline`",
    ))
}

fn unused_branches(embedding: bool, guidance: Option<f32>) -> anyhow::Error {
    let scale = guidance.unwrap_or_default();
    if embedding {
        let text = "`--branches` is for UNets without guidance embedding; this one has it, and answers to one prompt";
        return report::with_hint(text, "leave `--branches` out");
    }
    report::with_hint(
        format!("`--branches` is for a guidance scale above 1, and the scale is {scale}: there is one answer alone"),
        "name a scale with `--guidance`, or leave `--branches` out",
    )
}

fn form(form: cli::Fold) -> Result<Form> {
    Ok(match form {
        cli::Fold::Table => Form::Table,
        cli::Fold::PerStep => Form::PerStep,
        cli::Fold::Unrolled => Form::Unrolled,
        cli::Fold::Pipeline => Form::Pipeline,
        cli::Fold::None => anyhow::bail!("nothing is to be folded"),
    })
}

fn layout(args: &Convert) -> Layout {
    match args.image {
        None | Some(cli::Image::Nchw) => Layout::Nchw,
        Some(cli::Image::Nhwc) => Layout::Nhwc,
        Some(cli::Image::NchwU8) => Layout::NchwU8,
        Some(cli::Image::NhwcU8) => Layout::NhwcU8,
    }
}

/// The decoder at the end of the pipeline.
fn decoder(args: &Convert, form: Form, decoders: &[(&str, f32)]) -> Result<&'static str> {
    ensure!(
        args.decoder.is_none() || form == Form::Pipeline,
        "`--decoder` says how `--fold pipeline` ends; in other forms every decoder is there, and `run` chooses"
    );
    let name = if args.decoder == Some(Decoder::Taesd) { "taesd_decoder" } else { "vae_decoder" };
    if decoders.iter().any(|(there, _)| *there == name) { Ok(name) } else { Err(schedule::no_taesd(&args.source)) }
}

fn facts(request: &Request<'_>, by: GuidanceBy, steps: &[Affine]) -> Fold {
    Fold {
        form: match request.form {
            Form::Table => FoldForm::Table,
            Form::PerStep => FoldForm::PerStep,
            Form::Unrolled => FoldForm::Unrolled,
            Form::Pipeline => FoldForm::Pipeline,
        },
        guidance: FoldGuidance { by, scale: request.guidance.filter(|_| by != GuidanceBy::None) },
        scheduler_step: if request.host { Place::Host } else { Place::Graph },
        hoist_kv: request.hoist,
        image: match request.layout {
            Layout::Nchw => ImageLayout::Nchw,
            Layout::Nhwc => ImageLayout::Nhwc,
            Layout::NchwU8 => ImageLayout::NchwU8,
            Layout::NhwcU8 => ImageLayout::NhwcU8,
        },
        steps: steps.iter().map(step).collect(),
    }
}

/// A step as the manifest has it.
pub(super) fn step(step: &Affine) -> FoldStep {
    let clip = step.clip.map(|c| FoldClip { sample: c.sample, output: c.output, limit: c.limit });
    FoldStep { timestep: step.timestep, sample: step.sample, output: step.clean, noise: step.noise, clip }
}

/// What the runner has to know of a folded model.
pub(super) fn player(fold: &Fold) -> edge_run::Folded {
    let clip = |c: FoldClip| edge_lcm::Clip { sample: c.sample, output: c.output, limit: c.limit };
    let step = |s: &FoldStep| Affine {
        timestep: s.timestep,
        sample: s.sample,
        clean: s.output,
        noise: s.noise,
        clip: s.clip.map(clip),
    };
    edge_run::Folded {
        form: match fold.form {
            FoldForm::Table => edge_run::Form::Table,
            FoldForm::PerStep => edge_run::Form::PerStep,
            FoldForm::Unrolled => edge_run::Form::Unrolled,
            FoldForm::Pipeline => edge_run::Form::Pipeline,
        },
        steps: fold.steps.iter().map(step).collect(),
        host: fold.scheduler_step == Place::Host,
        prompts: match fold.guidance.by {
            GuidanceBy::None | GuidanceBy::Embedding => edge_run::Prompts::One,
            GuidanceBy::Calls => edge_run::Prompts::Two,
            GuidanceBy::Batch => edge_run::Prompts::Joined,
        },
        channels_last: matches!(fold.image, ImageLayout::Nhwc | ImageLayout::NhwcU8),
    }
}
