//! `edgetool convert`: a checkpoint becomes a folder of ONNX files.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::{Imported, Options, TimestepShape, WeightType};
use edge_ir::onnx::{MODEL_FILE, NonFinite, WeightMode, WriteOptions};
use edge_ir::{Checked, Graph};
use edge_lcm::SchedulerConfig;
use edge_spec::{Component, Lowering, MANIFEST_FILE, Manifest, SCHEMA, Target, sha256};

use super::lower;
use crate::cli::{Convert, Dtype, Timestep, Weights};
use crate::staging::Staging;
use crate::{layout, report};

/// The opset where neither the command line nor a target names one.
const OPSET: u32 = 17;

/// Converts as the arguments say.
pub(crate) fn convert(args: &Convert) -> Result<()> {
    let cannot = || format!("cannot convert `{}`", args.source.display());
    let target = args.target.as_deref().map(Target::find).transpose().with_context(cannot)?;
    let mut imported = edge_import::import(&args.source, args.config.as_deref(), options(args)).with_context(cannot)?;
    let lowering = target.map(|target| lower::lower(&mut imported.model, target, args)).transpose();
    let lowering = lowering.with_context(cannot)?;
    let staging = Staging::folder(&args.output, args.force)?;
    let opset = args.opset.or(lowering.as_ref().map(|l| l.target.graph.opset)).unwrap_or(OPSET);
    let said = lowering.as_ref().map(lower::summary);
    let written = write(args, (opset, lowering), &imported, staging.path()).with_context(cannot)?;
    staging.commit()?;
    if let Err(error) = SchedulerConfig::from_json(&imported.checkpoint.scheduler.text()) {
        report::warn(format!("the scheduler was copied, but `edgetool run` will not sample with it: {error}"));
    }
    report::say(summary(args, opset, &imported, written));
    said.iter().flatten().for_each(report::say);
    Ok(())
}

fn options(args: &Convert) -> Options {
    Options {
        height: args.height,
        width: args.width,
        batch: Some(args.batch),
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
fn write(
    args: &Convert,
    (opset, lowering): (u32, Option<Lowering>),
    imported: &Imported,
    folder: &Path,
) -> Result<WeightMode> {
    let asked = match args.weights {
        Weights::Copy => WeightMode::Copy,
        Weights::Link => WeightMode::Link,
        Weights::Inline => WeightMode::Inline,
    };
    let mut components = Vec::new();
    let mut used = asked;
    for (name, graph) in &imported.model.components {
        let dir = folder.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
        let written = edge_ir::onnx::write(graph, &dir, WriteOptions { opset, weights: asked })?;
        if written.weights != asked {
            used = written.weights;
        }
        warn_non_finite(name, &written.non_finite);
        components.push(describe(name, &dir, graph)?);
    }
    if used != asked {
        report::warn(
            "the weights cannot be linked into the output folder (another file system, or weights that are computed): they were copied",
        );
    }
    layout::write_rest(imported, folder)?;
    let manifest = Manifest {
        schema: SCHEMA.into(),
        producer: concat!("edgetool ", env!("CARGO_PKG_VERSION")).into(),
        opset,
        weights: mode_name(used).into(),
        lowering,
        pipeline: layout::pipeline(&imported.pipeline),
        components,
    };
    let path = folder.join(MANIFEST_FILE);
    fs::write(&path, manifest.text()).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(used)
}

fn describe(name: &str, dir: &Path, graph: &Checked<Graph>) -> Result<Component> {
    let path = dir.join(MODEL_FILE);
    let read = || format!("cannot read `{}`", path.display());
    let hash = sha256(File::open(&path).with_context(read)?).with_context(read)?;
    Ok(layout::component(name, format!("{name}/{MODEL_FILE}"), hash, graph))
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

fn summary(args: &Convert, opset: u32, imported: &Imported, weights: WeightMode) -> String {
    let p = &imported.pipeline;
    let (from, to, mode) = (args.source.display(), args.output.display(), mode_name(weights));
    let head = format!("converted `{from}` to `{to}`: {}x{} pixels, opset {opset}, weights {mode}", p.height, p.width);
    let line = |(name, graph): (&String, &Checked<Graph>)| {
        let parameters = millions(edge_ir::stats(graph).parameters);
        format!("  {name:<14} {parameters:>9} M parameters  {:>5} nodes", graph.nodes.len())
    };
    let lines = imported.model.components.iter().map(line);
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "shown to two digits")]
fn millions(count: u64) -> String {
    format!("{:.2}", count as f64 / 1e6)
}
