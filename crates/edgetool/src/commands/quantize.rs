//! `edgetool quantize`: a converted folder becomes one whose UNet computes in integers.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::Options;
use edge_ir::encoding::limits;
use edge_ir::onnx::{WeightMode, WriteOptions};
use edge_ir::{Checked, DType, Graph};
use edge_quant::calibration::{self, Grid, HEADROOM, Method, Statistics};
use edge_quant::mixed::{Fit, widen};
use edge_quant::{Encoded, Inputs, Quantized, Range, Settings, SharedWeights, encodings, half_weights};
use edge_spec::{
    Component, Fold, Lowering, MANIFEST_FILE, Manifest, Precision, PrecisionRule, Quantization, SchedulerFit, Scheme,
    Target, sha256,
};
use rayon::prelude::*;

use super::calibrate::{SharedInputs, unshare};
use super::copies::{self, directory};
use super::model::Model;
use super::repair::{Repairs, usual};
use super::{fit, plan, sensitivity};
use crate::cli::{Others, Quantize};
use crate::staging::Staging;
use crate::{layout, report};

/// Starts of the names of components that are quantized where none is named.
const UNETS: &[&str] = &["unet", "sampler"];

/// Prompts that the scheduler's steps are fitted to if nothing is said.
const FITTED: usize = 16;

/// What is to be done.
struct Job<'a> {
    args: &'a Quantize,
    model: &'a Model,
    manifest: &'a Manifest,
    scheme: Scheme,
    precision: Precision,
    rules: Vec<PrecisionRule>,
    settings: Settings,
    device: Option<String>,
    method: Method,
    /// By how much of itself a range of 16 bits is widened.
    headroom: f32,
    statistics: Option<Known>,
    repairs: Repairs,
    inputs: Option<Inputs>,
    chosen: Vec<String>,
    /// Factors of the scheduler's steps, where they are fitted.
    fits: Vec<Fit>,
}

/// What values tensors take.
struct Known {
    statistics: Statistics,
    /// SHA-256 of the statistics as a file.
    sha256: String,
}

/// A component after its treatment.
struct Done {
    graph: Checked<Graph>,
    encodings: Vec<Encoded>,
}

/// Quantizes as the arguments say.
pub(crate) fn quantize(args: &Quantize) -> Result<()> {
    let cannot = || format!("cannot quantize `{}`", args.model.display());
    let mut model = open(&args.model)?;
    let Model::Converted { manifest, .. } = &model else { return Err(not_converted(&args.model)) };
    let manifest = &manifest.as_ref().clone();
    let mut target = target(&args.model, args.target.as_deref(), manifest).with_context(cannot)?;
    if let Some(scheme) = args.precision.filter(|_| args.export_float) {
        target.precision.get_or_insert_with(|| usual(scheme));
    }
    let (scheme, precision, rules) = plan::asked(args, &target)?;
    let chosen = chosen(&args.model, &args.component, manifest)?;
    if !rules.is_empty() {
        let graphs = chosen.iter().map(|name| model.graph(name)).collect::<Result<Vec<_>>>()?;
        plan::check(&rules, &graphs)?;
    }
    let mut settings = Settings::of(scheme, &precision, manifest.opset);
    settings.rules.extend(rules.iter().cloned());
    let repairs = Repairs::new(args, scheme)?;
    let smoothed = repairs.smooth(args, &mut model, manifest, &chosen, &settings)?;
    let inputs = repairs.inputs(manifest, &chosen);
    let statistics = statistics(args, &model, manifest, scheme, &settings, &chosen, inputs.as_ref())?;
    let fold = args.fit_scheduler.as_ref().map(|_| fit::check(&args.model, manifest, &chosen)).transpose()?;
    let mut job = Job {
        args,
        model: &model,
        manifest,
        scheme,
        method: args.ranges.unwrap_or(if scheme == Scheme::W8a8 { Method::Mse } else { Method::MinMax }),
        headroom: args.headroom.map_or(HEADROOM, |percent| percent / 100.0),
        statistics,
        repairs,
        inputs: inputs.map(unshare),
        precision,
        rules,
        settings,
        device: target.default_device.clone(),
        chosen,
        fits: Vec::new(),
    };
    if let (Some(fold), Some(prompts)) = (fold, &args.fit_scheduler) {
        job.fits = job.fit(fold, prompts).with_context(cannot)?;
    }
    let staging = Staging::folder(&args.output, args.force)?;
    let lines = job.write(staging.path()).with_context(cannot)?;
    staging.commit()?;
    report::say(format!(
        "{} `{}` to `{}`: {scheme} for {}",
        if args.export_float { "repaired" } else { "quantized" },
        args.model.display(),
        args.output.display(),
        target.full_name()
    ));
    smoothed.into_iter().chain(lines).for_each(report::say);
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<Model> {
    if path.join(MANIFEST_FILE).exists() {
        Model::open(path, None, Options::default())
    } else {
        Err(not_converted(path))
    }
}

pub(super) fn not_converted(path: &Path) -> anyhow::Error {
    let text = format!("`{}` has no {MANIFEST_FILE}: it is no converted folder", path.display());
    report::with_hint(text, "convert the checkpoint first, with `edgetool convert --target TARGET --fold per-step`")
}

/// The target that the folder was converted for, which the command line may not contradict.
pub(super) fn target(folder: &Path, wanted: Option<&str>, manifest: &Manifest) -> Result<Target> {
    let again = |name: &str| format!("convert the checkpoint again, with `--target {name} --fold per-step`");
    let wanted = wanted.map(Target::find_for_device).transpose()?;
    let wanted = wanted.map(|(target, device)| target.on(device));
    let name = wanted.as_ref().map_or("TARGET".to_owned(), |t| t.name.clone());
    let folder = folder.display();
    if let Some(done) = &manifest.quantization {
        let text = format!("`{folder}` is quantized already, to {}", done.scheme);
        return Err(report::with_hint(text, "name the folder that it was made from"));
    }
    let Some(Lowering { target: there, stopped_after: None, .. }) = &manifest.lowering else {
        return Err(report::with_hint(format!("`{folder}` was not converted for a target"), again(&name)));
    };
    match wanted {
        Some(wanted) if wanted.name != there.name => {
            let text = format!("`{folder}` was converted for `{}`, not for `{}`", there.name, wanted.name);
            Err(report::with_hint(text, again(&name)))
        }
        // The graphs are as they were lowered; the types may have changed since.
        Some(wanted) => Ok(wanted),
        None => Ok(there.clone().on(there.default_device.clone())),
    }
}

/// The components to quantize: those that are asked for, else the UNets.
pub(super) fn chosen(folder: &Path, asked: &[String], manifest: &Manifest) -> Result<Vec<String>> {
    let names = || manifest.components.iter().map(|c| c.name.clone());
    if let Some(unknown) = asked.iter().find(|name| manifest.component(name).is_none()) {
        let text = format!("`{}` has no component `{unknown}`", folder.display());
        return Err(report::with_hint(text, format!("it has {}", names().collect::<Vec<_>>().join(", "))));
    }
    let is_chosen = |name: &String| {
        if asked.is_empty() { is_unet(name) } else { asked.contains(name) }
    };
    let chosen: Vec<String> = names().filter(is_chosen).collect();
    if chosen.is_empty() {
        let text = format!("`{}` has no UNet of its own", folder.display());
        let hint = format!("name what to quantize with `--component`: {}", names().collect::<Vec<_>>().join(", "));
        return Err(report::with_hint(text, hint));
    }
    Ok(chosen)
}

/// Whether a component is quantized where none is named.
fn is_unet(name: &str) -> bool {
    UNETS.iter().any(|start| name.starts_with(start))
}

/// The statistics, where activations are quantized. `inputs` see the prompts of `--calibration`.
fn statistics(
    args: &Quantize,
    model: &Model,
    manifest: &Manifest,
    scheme: Scheme,
    settings: &Settings,
    chosen: &[String],
    inputs: Option<&SharedInputs>,
) -> Result<Option<Known>> {
    let needed = !args.export_float && settings.quantizes_activations();
    if needed && args.statistics.is_none() && args.calibration.is_none() {
        let text = format!("{scheme} quantizes activations, and nothing says what values they take");
        let hint =
            "name prompts with `--calibration FILE`, or what `edgetool calibrate` wrote with `--statistics FILE`";
        return Err(report::with_hint(text, hint));
    }
    if needed && manifest.fold.is_none() {
        let folder = args.model.display();
        let text =
            format!("`{folder}` has no sampler folded in: {scheme} needs to know the steps that activations are of");
        return Err(report::with_hint(text, "convert the checkpoint again, with `--fold per-step --steps 2`"));
    }
    if let Some(path) = args.statistics.as_ref().filter(|_| !needed) {
        report::warn(format!("{scheme} leaves activations in float: `{}` is not read", path.display()));
    }
    let ranges = needed && args.statistics.is_none();
    let mut known = None;
    if let Some(path) = args.calibration.as_deref() {
        if ranges || inputs.is_some() {
            let statistics = super::calibrate::see(&args.model, model, path, args.number, chosen, ranges, inputs)?;
            let mut bytes = Vec::new();
            calibration::write(&statistics, &mut bytes)?;
            known = Some(Known { statistics, sha256: sha256(&bytes[..])? }).filter(|_| ranges);
        } else {
            report::warn(format!("no step of this needs prompts: `{}` is not read", path.display()));
        }
    }
    if let Some(path) = args.statistics.as_deref().filter(|_| needed) {
        let read = || format!("cannot read `{}`", path.display());
        let hash = sha256(File::open(path).with_context(read)?).with_context(read)?;
        known = Some(Known { statistics: calibration::read(path)?, sha256: hash });
    }
    Ok(known)
}

impl Job<'_> {
    /// Writes the whole folder and says what was done to each component.
    fn write(&self, folder: &Path) -> Result<Vec<String>> {
        let groups = || self.manifest.components.chunk_by(|a, b| directory(a) == directory(b));
        let is_made = |parts: &[Component]| {
            self.args.others == Others::Fp16 || parts.iter().any(|c| self.chosen.contains(&c.name))
        };
        let made: Vec<&str> = groups().filter(|parts| is_made(parts)).map(|parts| directory(&parts[0])).collect();
        std::thread::scope(|scope| {
            let copied = scope.spawn(|| copies::rest(&self.args.model, folder, &made, self.args.link));
            let done = self.make(folder, groups(), &is_made);
            copied.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(done)
        })
    }

    /// Writes the graphs of the groups of components that are made anew, and the manifest.
    fn make<'c>(
        &self,
        folder: &Path,
        groups: impl Iterator<Item = &'c [Component]>,
        is_made: &dyn Fn(&[Component]) -> bool,
    ) -> Result<Vec<String>> {
        let mut components = Vec::new();
        let mut lines = Vec::new();
        for parts in groups {
            if !is_made(parts) {
                components.extend_from_slice(parts);
                continue;
            }
            let mut shared = self.repairs.weights(self.inputs.as_ref(), directory(&parts[0]));
            let graphs =
                parts.par_iter().map(|component| self.model.graph(&component.name)).collect::<Result<Vec<_>>>()?;
            let mut done = Vec::new();
            for (component, graph) in parts.iter().zip(graphs) {
                done.push(self.treat(&component.name, graph, &self.fits, &mut shared)?);
            }
            let dir = folder.join(directory(&parts[0]));
            fs::create_dir_all(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
            let names: Vec<&str> = parts.iter().map(|c| c.file.rsplit('/').next().unwrap_or(&c.file)).collect();
            let files: Vec<_> = names.iter().copied().zip(done.iter().map(|d| &d.graph)).collect();
            let options = WriteOptions { opset: self.manifest.opset, weights: WeightMode::Copy };
            edge_ir::onnx::write_all(&files, &dir, options)?;
            let hash = |component: &Component| {
                let path = folder.join(&component.file);
                let read = || format!("cannot read `{}`", path.display());
                sha256(File::open(&path).with_context(read)?).with_context(read)
            };
            let hashes = parts.par_iter().map(hash).collect::<Result<Vec<_>>>()?;
            for ((component, done), hash) in parts.iter().zip(&done).zip(hashes) {
                components.push(layout::component(&component.name, component.file.clone(), hash, &done.graph));
                self.encodings(folder, component, &done.encodings)?;
                lines.extend(self.line(component, done));
            }
        }
        let export = self.args.export_float;
        let manifest = Manifest {
            weights: "copy".into(),
            quantization: (!export).then(|| self.record()),
            repaired: if export {
                Some(self.repairs.record(self.scheme, &self.chosen))
            } else {
                self.manifest.repaired.clone()
            },
            fold: self.manifest.fold.as_ref().map(|fold| fit::fitted(fold, &self.fits)),
            components,
            ..self.manifest.clone()
        };
        let path = folder.join(MANIFEST_FILE);
        fs::write(&path, manifest.text()).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(lines)
    }

    /// One component's graph as it shall be.
    fn treat(&self, name: &str, graph: Checked<Graph>, fits: &[Fit], shared: &mut SharedWeights<'_>) -> Result<Done> {
        let chosen = self.chosen.iter().any(|c| c == name);
        // Without exceptions, all that is stored becomes float16, not the weights of layers alone.
        let plain = self.scheme == Scheme::Fp16 && self.rules.is_empty();
        if !chosen || plain {
            let half = chosen || self.args.others == Others::Fp16;
            let graph = if half { half_weights(&graph)? } else { graph };
            return Ok(Done { graph, encodings: Vec::new() });
        }
        if let Some(Known { statistics, .. }) = &self.statistics
            && self.args.statistics.is_some()
        {
            statistics.check_graph(name, &graph)?;
        }
        let graph = self.repairs.correct(graph, &self.settings, self.inputs.as_ref(), shared)?;
        if self.args.export_float {
            return Ok(Done { graph, encodings: Vec::new() });
        }
        let known = self.statistics.as_ref().map(|known| &known.statistics);
        let range = ranges(known, name, (self.method, self.headroom));
        let step = fits.iter().enumerate().find(|(step, _)| fit::component(*step) == name);
        if let Some((_, fit)) = step.filter(|(_, fit)| !fit.is_one()) {
            let new = fit.apply(&graph).with_context(|| format!("{name} has no step of a scheduler to fit"))?;
            let wide = widen(&graph, &new, &|tensor| range(tensor, DType::Uint16));
            let range = |tensor: &str, dtype: DType| {
                let Range { min, max } = range(tensor, dtype)?;
                let more = wide.get(tensor).copied().unwrap_or_default();
                Some(Range { min: min - more, max: max + more })
            };
            let Quantized { graph, encodings } = edge_quant::quantize(&new.check()?, &self.settings, &range, shared)?;
            return Ok(Done { graph, encodings });
        }
        let Quantized { graph, encodings } = edge_quant::quantize(&graph, &self.settings, &range, shared)?;
        Ok(Done { graph, encodings })
    }

    /// Factors of the scheduler's steps, from prompts of a file.
    fn fit(&self, fold: &Fold, prompts: &Path) -> Result<Vec<Fit>> {
        let prompts = sensitivity::prompts(prompts, self.args.number, FITTED)?;
        let folder = self.manifest.components.iter().find(|c| self.chosen.contains(&c.name)).map_or("", directory);
        let shared = RefCell::new(self.repairs.weights(self.inputs.as_ref(), folder));
        let form = |name: &str, fits: &[Fit]| {
            Ok(self.treat(name, self.model.graph(name)?, fits, &mut shared.borrow_mut())?.graph)
        };
        fit::fit(&self.args.model, self.model, fold, &prompts, &self.chosen, &form)
    }

    fn encodings(&self, folder: &Path, component: &Component, encoded: &[Encoded]) -> Result<()> {
        if encoded.is_empty() {
            return Ok(());
        }
        for version in &self.args.encodings {
            let dir = folder.join(format!("encodings-{version}"));
            let write = || format!("cannot write `{}`", dir.display());
            fs::create_dir_all(&dir).with_context(write)?;
            let text = format!("{:#}\n", encodings::file(encoded, *version));
            fs::write(dir.join(format!("{}.json", component.name)), text).with_context(write)?;
        }
        Ok(())
    }

    fn record(&self) -> Quantization {
        Quantization {
            scheme: self.scheme,
            precision: self.precision.clone(),
            device: self.device.clone(),
            ranges: self.statistics.as_ref().map(|_| self.method.to_string()),
            headroom: self.statistics.as_ref().map(|_| f64::from(self.headroom)),
            statistics: self.statistics.as_ref().map(|known| known.sha256.clone()),
            rules: self.rules.clone(),
            scheduler: self.fits.iter().map(|fit| SchedulerFit { sample: fit.sample, output: fit.output }).collect(),
            rounding: (self.scheme != Scheme::Fp16).then(|| self.repairs.rounding()),
            repairs: self.repairs.repairs(),
            components: self.chosen.clone(),
        }
    }

    fn line(&self, component: &Component, done: &Done) -> Option<String> {
        self.chosen.contains(&component.name).then(|| {
            let in_integers = || done.encodings.iter().filter(|e| e.encoding.is_some());
            let weights = in_integers().filter(|e| e.is_weight).count();
            let activations = in_integers().count() - weights;
            let bytes: u64 = done.graph.initializers().map(|(_, v, _)| v.ty.bytes()).sum();
            format!(
                "  {:<14} {:>9} KiB of constants  {weights:>5} of them in integers  {activations:>5} activations",
                component.name,
                bytes / 1024
            )
        })
    }
}

/// What values the tensors of a component take, by statistics; integers of 16 bits have room for more on either side.
pub(super) fn ranges(
    known: Option<&Statistics>,
    component: &str,
    (method, headroom): (Method, f32),
) -> impl Fn(&str, DType) -> Option<Range> {
    move |tensor: &str, dtype: DType| {
        let (low, high) = limits(dtype)?;
        let grid = Grid { levels: u32::try_from(high.checked_sub(low)?).ok()? + 1, symmetric: low < 0 };
        let found = known?.range(component, tensor, method, grid)?;
        Some(if dtype.bytes(1) > 1 { found.widened(headroom) } else { found })
    }
}
