//! `edgetool convert`: a checkpoint becomes a folder of ONNX files.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::{Imported, Options, TimestepShape, WeightType};
use edge_ir::onnx::{MODEL_FILE, NonFinite, WeightMode, WriteOptions};
use edge_ir::{Checked, Graph};
use edge_lcm::SchedulerConfig;
use edge_passes::lcm::Folded;
use edge_spec::{MANIFEST_FILE, Manifest, SCHEMA, sha256};

use super::fold;
use crate::cli::{Convert, Dtype, Fold, Timestep, Weights};
use crate::staging::Staging;
use crate::{layout, report};

/// A folder of graphs that share their weights' file: file name, component's name and graph of each.
struct Group<'a> {
    folder: String,
    graphs: Vec<(String, String, &'a Checked<Graph>)>,
}

/// Converts as the arguments say.
pub(crate) fn convert(args: &Convert) -> Result<()> {
    let cannot = || format!("cannot convert `{}`", args.source.display());
    let options = options(args);
    let imported = edge_import::import(&args.source, args.config.as_deref(), options).with_context(cannot)?;
    let folded = if args.fold == Fold::None {
        fold::refuse_options(args).with_context(cannot)?;
        None
    } else {
        Some(fold::folded(args, &imported, options).with_context(cannot)?)
    };
    let groups = match &folded {
        Some((folded, _)) => folded_groups(folded),
        None => imported.model.components.iter().map(|(name, graph)| group(name, graph)).collect(),
    };
    let facts = folded.as_ref().map(|(_, facts)| facts.clone());
    let staging = Staging::folder(&args.output, args.force)?;
    let written = write(args, &imported, &groups, facts, staging.path()).with_context(cannot)?;
    staging.commit()?;
    if folded.is_none()
        && let Err(error) = SchedulerConfig::from_json(&imported.checkpoint.scheduler.text())
    {
        report::warn(format!("the scheduler was copied, but `edgetool run` will not sample with it: {error}"));
    }
    report::say(summary(args, &imported, &groups, written));
    Ok(())
}

fn group<'a>(name: &str, graph: &'a Checked<Graph>) -> Group<'a> {
    Group { folder: name.to_owned(), graphs: vec![(MODEL_FILE.to_owned(), name.to_owned(), graph)] }
}

fn folded_groups(folded: &Folded) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for part in &folded.parts {
        let graph = (format!("{}.onnx", part.file), part.name.clone(), &part.graph);
        match groups.last_mut().filter(|g| g.folder == part.folder) {
            Some(group) => group.graphs.push(graph),
            None => groups.push(Group { folder: part.folder.clone(), graphs: vec![graph] }),
        }
    }
    groups
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
fn write(
    args: &Convert,
    imported: &Imported,
    groups: &[Group<'_>],
    fold: Option<edge_spec::Fold>,
    folder: &Path,
) -> Result<WeightMode> {
    let asked = match args.weights {
        Weights::Copy => WeightMode::Copy,
        Weights::Link => WeightMode::Link,
        Weights::Inline => WeightMode::Inline,
    };
    let mut components = Vec::new();
    let mut used = asked;
    for Group { folder: name, graphs } in groups {
        let dir = folder.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
        let files: Vec<(&str, &Checked<Graph>)> =
            graphs.iter().map(|(file, _, graph)| (file.as_str(), *graph)).collect();
        let written = edge_ir::onnx::write_all(&files, &dir, WriteOptions { opset: args.opset, weights: asked })?;
        if written.weights != asked {
            used = written.weights;
        }
        warn_non_finite(name, &written.non_finite);
        for (file, component, graph) in graphs {
            let hash = hash(&dir.join(file))?;
            components.push(layout::component(component, format!("{name}/{file}"), hash, graph));
        }
    }
    if used != asked {
        report::warn(
            "the weights cannot be linked into the output folder (another file system, or a cast): they were copied",
        );
    }
    let mut pipeline = layout::pipeline(&imported.pipeline);
    if fold.is_some() {
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
        opset: args.opset,
        weights: mode_name(used).into(),
        pipeline,
        fold,
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

fn summary(args: &Convert, imported: &Imported, groups: &[Group<'_>], weights: WeightMode) -> String {
    let p = &imported.pipeline;
    let (from, to, mode) = (args.source.display(), args.output.display(), mode_name(weights));
    let head =
        format!("converted `{from}` to `{to}`: {}x{} pixels, opset {}, weights {mode}", p.height, p.width, args.opset);
    let line = |(_, name, graph): &(String, String, &Checked<Graph>)| {
        let parameters = millions(edge_ir::stats(graph).parameters);
        format!("  {name:<14} {parameters:>9} M parameters  {:>5} nodes", graph.nodes.len())
    };
    let lines = groups.iter().flat_map(|group| &group.graphs).map(line);
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "shown to two digits")]
fn millions(count: u64) -> String {
    format!("{:.2}", count as f64 / 1e6)
}
