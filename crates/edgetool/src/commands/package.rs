//! `edgetool package`: a verified model becomes a bundle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_import::Options;
use edge_ir::{Checked, Graph};
use edge_package::{Assembled, Floats, GateError, Source, assemble, gate, model_files};
use edge_spec::bundle::{self, Bundle, BundleManifest, Content, Measure};
use edge_spec::{MANIFEST_FILE, Manifest, Precision, REPORT_FILE, Report, Scheme, Target};

use super::lower::supported;
use super::model::Model;
use super::{compile, floats, golden, inspect};
use crate::cli::{Compiler, Package, THIS_PROGRAM};
use crate::report;
use crate::staging::{Scratch, Staging};

/// Packs as the arguments say.
pub(crate) fn package(args: &Package) -> Result<()> {
    super::set_threads(args.threads)?;
    let (target, device) = Target::find_for_device(&args.target)?;
    if !args.compile && args.compiler != Compiler::default() {
        return Err(report::with_hint("options for compiling are given without `--compile`", "add `--compile`"));
    }
    let staging = Staging::file(&args.output)?;
    let cannot = || format!("cannot package `{}` for `{}`", args.model.display(), args.target);
    if args.compile {
        compiled(args, &target, device.as_deref(), staging.path()).with_context(cannot)?;
    } else {
        pack(args, &target, device.as_deref(), args.secret_key.as_deref(), staging.path()).with_context(cannot)?;
    }
    staging.commit()?;
    if !args.quiet {
        let size = args.output.metadata().map_or(0, |m| m.len());
        let size = inspect::scaled(size, 1024.0, "B");
        report::say(format!("packed `{}` into `{}`, {size}", args.model.display(), args.output.display()));
    }
    Ok(())
}

/// Packs into a temporary place and compiles that.
fn compiled(args: &Package, target: &Target, device: Option<&str>, path: &Path) -> Result<()> {
    let compiler = compile::Compilation::new(&args.compiler, target, device, args.quiet)?;
    let scratch = Scratch::new()?;
    let plain = scratch.path().join("bundle.zip");
    pack(args, target, device, None, &plain)?;
    compiler.add(&Bundle::open(&plain)?, args.secret_key.as_deref(), path).map(drop)
}

fn pack(args: &Package, target: &Target, device: Option<&str>, key: Option<&Path>, path: &Path) -> Result<()> {
    edge_package::find(target)?.check(target)?;
    if args.with_float {
        floats::check(target)?;
    }
    if !args.model.join(MANIFEST_FILE).exists() {
        let text = format!("`{}` has no `{MANIFEST_FILE}`", args.model.display());
        return Err(report::with_hint(text, "name a folder that `edgetool convert` wrote"));
    }
    let manifest = Manifest::open(&args.model)?;
    same_rules(&manifest, target, device)?;
    let files = measured(&args.model)?;
    let text = verified(args, &manifest, &files)?;
    let model = Model::open(&args.model, None, Options::default())?;
    let graphs = fitting(&model, &manifest, target)?;
    let runner = args.with_runner.as_deref().map(runner).transpose()?;
    let scratch = args.with_float.then(Scratch::new).transpose()?;
    let floats = match &scratch {
        Some(scratch) => floats::write(args, &manifest, &graphs, scratch.path())?,
        None => Floats::default(),
    };
    let (played, samples) = golden::play(args, &model)?;
    let source = Source {
        producer: concat!("edgetool ", env!("CARGO_PKG_VERSION")),
        manifest: &manifest,
        graphs: &graphs,
        files: &files,
        report: &text,
        target,
        device,
        played: &played,
        samples: &samples,
        floats: &floats,
        runner: runner.as_deref(),
    };
    let Assembled { mut manifest, contents, known } = assemble(&source)?;
    let measures = bundle::list(&mut manifest, &contents, &known)?;
    let signature = key.map(|key| signature(&manifest, key)).transpose()?;
    Ok(bundle::write(path, &manifest, signature.as_deref(), &contents, &measures)?)
}

/// The manifest's signature by a secret key.
pub(super) fn signature(manifest: &BundleManifest, key: &Path) -> Result<String> {
    let text = std::fs::read_to_string(key).with_context(|| format!("cannot read `{}`", key.display()))?;
    bundle::sign(manifest.text().as_bytes(), &text).map_err(|error| match error {
        bundle::SignError::Encrypted => report::with_hint(error.to_string(), "make one for this with `minisign -G -W`"),
        other => other.into(),
    })
}

/// All files of the model's folder, and what they are now.
fn measured(folder: &Path) -> Result<BTreeMap<String, (PathBuf, Measure)>> {
    let measure = |(name, path): (String, PathBuf)| -> Result<_> {
        let measure = Content::File(path.clone()).measure()?;
        Ok((name, (path, measure)))
    };
    model_files(folder)?.into_iter().map(measure).collect()
}

/// The text of a report that lets these files pass.
fn verified(args: &Package, manifest: &Manifest, files: &BTreeMap<String, (PathBuf, Measure)>) -> Result<String> {
    let path = args.report.clone().unwrap_or_else(|| args.model.join(REPORT_FILE));
    if args.report.is_none() && !path.exists() {
        let text = format!("`{}` was not verified: it has no `{REPORT_FILE}`", args.model.display());
        return Err(report::with_hint(text, "run `edgetool verify` on it, or name its report with `--report`"));
    }
    let found = Report::read(&path)?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let measures = files.iter().map(|(name, (_, measure))| (name.clone(), measure.clone())).collect();
    let hint = |error: &GateError| match error {
        GateError::Failed => format!("`{}` says where", path.display()),
        GateError::Changed { .. } | GateError::Missing { .. } | GateError::Unmeasured { .. } => {
            "verify the model as it is now, and package it again".to_owned()
        }
    };
    gate(&found, manifest, &measures).map_err(|error| report::no(error.to_string(), Some(hint(&error))))?;
    Ok(text)
}

/// The answer no, if the model was quantized by rules of devices that this one does not share.
fn same_rules(manifest: &Manifest, target: &Target, device: Option<&str>) -> Result<()> {
    let (Some(done), Some(device)) = (&manifest.quantization, device) else { return Ok(()) };
    let wide = matches!(done.scheme, Scheme::W8a16 | Scheme::W4a16);
    let Some(rules) = target.clone().on(Some(device.to_owned())).precision.filter(|_| wide) else { return Ok(()) };
    let own = |p: &Precision| {
        let weights = (p.weights_16, p.depthwise_16, p.depthwise_scales_16);
        (weights, p.matmul_second_16, p.multiplier_bits_16, p.gains.clone())
    };
    if own(&rules) == own(&done.precision) {
        return Ok(());
    }
    let made_for = done.device.as_deref().unwrap_or("another device");
    let text = format!("the model was quantized by the rules of `{made_for}`, which are not those of `{device}`");
    let hint = format!("quantize the float folder again with `--target {}/{device}`", target.name);
    Err(report::no(text, Some(hint)))
}

/// The model's graphs, in order; the answer no, if the target does not take them.
fn fitting(model: &Model, manifest: &Manifest, target: &Target) -> Result<Vec<Checked<Graph>>> {
    let again = Some(format!("convert the checkpoint again with `--target {}`", target.name));
    if manifest.opset > target.graph.opset {
        let (found, most) = (manifest.opset, target.graph.opset);
        return Err(report::no(format!("the graphs are of opset {found}, the target takes {most} at most"), again));
    }
    let mut target = target.clone();
    if target.precision.is_some() {
        target.ops.extend(["QuantizeLinear", "DequantizeLinear"].map(str::to_owned));
    }
    let mut graphs = Vec::new();
    for name in model.components() {
        let graph = model.graph(&name)?;
        supported(&graph, &target).map_err(|error| report::no(error.to_string(), again.clone()))?;
        graphs.push(graph);
    }
    Ok(graphs)
}

/// The runner's executable: the one given, or this program.
fn runner(given: &Path) -> Result<Vec<u8>> {
    let path = if given == Path::new(THIS_PROGRAM) {
        std::env::current_exe().context("cannot find this program's own file")?
    } else {
        given.to_owned()
    };
    std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
}
