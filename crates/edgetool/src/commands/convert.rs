//! `edgetool convert`: a checkpoint becomes a folder of ONNX files.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::{Imported, Options, TimestepShape, WeightType};
use edge_ir::onnx::{NonFinite, WeightMode, WriteOptions};
use edge_ir::{Checked, Graph};
use edge_lcm::SchedulerConfig;
use edge_passes::lcm::Part;
use edge_spec::{Fold, Lowering, MANIFEST_FILE, Manifest, SCHEMA, Target, sha256};

use super::{fold, lower};
use crate::cli::{self, Convert, Dtype, Timestep, Weights};
use crate::staging::Staging;
use crate::{layout, report};

/// The opset where neither the command line nor a target names one.
const OPSET: u32 = 17;
/// A graph's file, without its ending, where a folder has one.
const MODEL_NAME: &str = "model";

/// What was done to the graphs of the checkpoint.
struct Conversion {
    /// The graphs; those of one folder, which stand together, share their weights' file.
    parts: Vec<Part>,
    opset: u32,
    fold: Option<Fold>,
    lowering: Option<Lowering>,
}

/// Converts as the arguments say.
pub(crate) fn convert(args: &Convert) -> Result<()> {
    let cannot = || format!("cannot convert `{}`", args.source.display());
    let target = args.target.as_deref().map(Target::find_for_device).transpose().with_context(cannot)?;
    let target = target.map(|(target, device)| target.on(device));
    let options = options(args);
    let imported = edge_import::import(&args.source, args.config.as_deref(), options).with_context(cannot)?;
    let conversion = rewrite(args, &imported, options, target).with_context(cannot)?;
    let staging = Staging::folder(&args.output, args.force)?;
    let written = write(args, &imported, &conversion, staging.path()).with_context(cannot)?;
    staging.commit()?;
    if conversion.fold.is_none()
        && let Err(error) = SchedulerConfig::from_json(&imported.checkpoint.scheduler.text())
    {
        report::warn(format!("the scheduler was copied, but `edgetool run` will not sample with it: {error}"));
    }
    report::say(summary(args, &imported, &conversion, written));
    conversion.lowering.iter().flat_map(lower::summary).for_each(report::say);
    Ok(())
}

/// Folds the sampler into the graphs and brings them into the target's form, as far as asked.
fn rewrite(args: &Convert, imported: &Imported, options: Options, target: Option<Target>) -> Result<Conversion> {
    let (mut parts, fold) = if args.fold == cli::Fold::None {
        fold::refuse_options(args)?;
        (imported.model.components.iter().map(|(name, graph)| part(name, graph)).collect(), None)
    } else {
        let (folded, fold) = fold::folded(args, imported, options)?;
        (folded.parts, Some(fold))
    };
    let graphs = &mut parts.iter_mut().map(|p| &mut p.graph);
    let lowering = target.map(|target| lower::lower(graphs, target, args)).transpose()?;
    let opset = args.opset.or(lowering.as_ref().map(|l| l.target.graph.opset)).unwrap_or(OPSET);
    Ok(Conversion { parts, opset, fold, lowering })
}

fn part(name: &str, graph: &Checked<Graph>) -> Part {
    Part { name: name.to_owned(), folder: name.to_owned(), file: MODEL_NAME.to_owned(), graph: graph.clone() }
}

fn options(args: &Convert) -> Options {
    Options {
        height: args.height,
        width: args.width,
        batch: Some(args.batch),
        unet_batch: None,
        timestep: match args.timestep {
            Timestep::Shared => TimestepShape::Shared,
            Timestep::PerImage => TimestepShape::PerImage,
        },
        weights: match args.dtype {
            Dtype::Stored => WeightType::Stored,
            Dtype::Float32 => WeightType::Float32,
        },
    }
}

/// Writes everything and returns where the weights went.
fn write(args: &Convert, imported: &Imported, conversion: &Conversion, folder: &Path) -> Result<WeightMode> {
    let asked = match args.weights {
        Weights::Copy => WeightMode::Copy,
        Weights::Link => WeightMode::Link,
        Weights::Inline => WeightMode::Inline,
    };
    let mut components = Vec::new();
    let mut used = asked;
    for parts in conversion.parts.chunk_by(|a, b| a.folder == b.folder) {
        let name = &parts[0].folder;
        let dir = folder.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
        let names: Vec<String> = parts.iter().map(|p| format!("{}.onnx", p.file)).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(parts.iter().map(|p| &p.graph)).collect();
        let options = WriteOptions { opset: conversion.opset, weights: asked };
        let written = edge_ir::onnx::write_all(&files, &dir, options)?;
        if written.weights != asked {
            used = written.weights;
        }
        warn_non_finite(name, &written.non_finite);
        for (file, part) in names.iter().zip(parts) {
            let hash = hash(&dir.join(file))?;
            components.push(layout::component(&part.name, format!("{name}/{file}"), hash, &part.graph));
        }
    }
    if used != asked {
        report::warn(
            "the weights cannot be linked into the output folder (another file system, or weights that are computed): they were copied",
        );
    }
    let mut pipeline = layout::pipeline(&imported.pipeline);
    if conversion.fold.is_some() {
        layout::write_shared(imported, folder)?;
        // The factors are in the decoders.
        pipeline.vae_scaling_factor = 1.0;
        pipeline.taesd_scaling_factor = pipeline.taesd_scaling_factor.map(|_| 1.0);
    } else {
        layout::write_rest(imported, folder)?;
    }
    let manifest = Manifest {
        schema: SCHEMA.into(),
        producer: concat!("edgetool ", env!("CARGO_PKG_VERSION")).into(),
        opset: conversion.opset,
        weights: mode_name(used).into(),
        lowering: conversion.lowering.clone(),
        quantization: None,
        repaired: None,
        pipeline,
        fold: conversion.fold.clone(),
        components,
    };
    let path = folder.join(MANIFEST_FILE);
    fs::write(&path, manifest.text()).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(used)
}

fn hash(path: &Path) -> Result<String> {
    let read = || format!("cannot read `{}`", path.display());
    sha256(File::open(path).with_context(read)?).with_context(read)
}

fn warn_non_finite(component: &str, found: &[NonFinite]) {
    let total: u64 = found.iter().map(|f| f.count).sum();
    if let Some(first) = found.first() {
        let more = match found.len() - 1 {
            0 => String::new(),
            1 => " and one other tensor".to_owned(),
            n => format!(" and {n} other tensors"),
        };
        report::warn(format!(
            "{total} weights of {component} are NaN or infinite, in `{}`{more}: the model is damaged",
            first.tensor
        ));
    }
}

fn mode_name(mode: WeightMode) -> &'static str {
    match mode {
        WeightMode::Link => "link",
        WeightMode::Copy => "copy",
        WeightMode::Inline => "inline",
    }
}

fn summary(args: &Convert, imported: &Imported, conversion: &Conversion, weights: WeightMode) -> String {
    let p = &imported.pipeline;
    let (from, to, mode) = (args.source.display(), args.output.display(), mode_name(weights));
    let opset = conversion.opset;
    let head = format!("converted `{from}` to `{to}`: {}x{} pixels, opset {opset}, weights {mode}", p.height, p.width);
    let line = |Part { name, graph, .. }: &Part| {
        let parameters = millions(edge_ir::stats(graph).parameters);
        format!("  {name:<14} {parameters:>9} M parameters  {:>5} nodes", graph.nodes.len())
    };
    let lines = conversion.parts.iter().map(line);
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "shown to two digits")]
fn millions(count: u64) -> String {
    format!("{:.2}", count as f64 / 1e6)
}
