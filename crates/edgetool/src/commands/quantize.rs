//! `edgetool quantize`: a converted folder becomes one whose UNet computes in integers.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::Options;
use edge_ir::encoding::limits;
use edge_ir::onnx::{WeightMode, WriteOptions};
use edge_ir::{Checked, DType, Graph};
use edge_quant::calibration::{self, Grid, Method, Statistics};
use edge_quant::{Encoded, Inputs, Quantized, Settings, SharedWeights, encodings, half_weights};
use edge_spec::{
    Component, Lowering, MANIFEST_FILE, Manifest, Precision, PrecisionRule, Quantization, REPORT_FILE, Scheme, Target,
    sha256,
};

use super::calibrate::{SharedInputs, lock};
use super::model::Model;
use super::plan;
use super::repair::{Plan, usual};
use crate::cli::{Others, Quantize};
use crate::staging::Staging;
use crate::{layout, report};

/// Starts of the names of components that are quantized where none is named.
const UNETS: &[&str] = &["unet", "sampler"];

/// What is to be done.
struct Job<'a> {
    args: &'a Quantize,
    model: &'a Model,
    manifest: &'a Manifest,
    scheme: Scheme,
    precision: Precision,
    rules: Vec<PrecisionRule>,
    settings: Settings,
    method: Method,
    statistics: Option<Known>,
    plan: Plan,
    inputs: Option<Inputs>,
    chosen: Vec<String>,
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
    let mut target = target(args, manifest).with_context(cannot)?;
    if let Some(scheme) = args.precision.filter(|_| args.export_float) {
        target.precision.get_or_insert_with(|| usual(scheme));
    }
    let (scheme, precision, rules) = plan::asked(args, &target)?;
    let chosen = chosen(args, manifest)?;
    let graphs = chosen.iter().map(|name| model.graph(name)).collect::<Result<Vec<_>>>()?;
    plan::check(&rules, &graphs)?;
    let mut settings = Settings::of(scheme, &precision, manifest.opset);
    settings.rules.extend(rules.iter().cloned());
    let repairs = Plan::new(args, scheme)?;
    let smoothed = repairs.smooth(args, &mut model, manifest, &chosen, &settings)?;
    let inputs = repairs.inputs(manifest, &chosen);
    let statistics = statistics(args, &model, scheme, &settings, &chosen, inputs.as_ref())?;
    let job = Job {
        args,
        model: &model,
        manifest,
        scheme,
        method: args.ranges.unwrap_or(if scheme == Scheme::W8a8 { Method::Mse } else { Method::MinMax }),
        statistics,
        plan: repairs,
        inputs: inputs.map(|inputs| lock(&inputs).clone()),
        precision,
        rules,
        settings,
        chosen,
    };
    let staging = Staging::folder(&args.output, args.force)?;
    let lines = job.write(staging.path()).with_context(cannot)?;
    staging.commit()?;
    report::say(format!(
        "{} `{}` to `{}`: {scheme} for {}",
        if args.export_float { "repaired" } else { "quantized" },
        args.model.display(),
        args.output.display(),
        target.name
    ));
    smoothed.into_iter().chain(lines).for_each(report::say);
    Ok(())
}

fn open(path: &Path) -> Result<Model> {
    if path.join(MANIFEST_FILE).exists() {
        Model::open(path, None, Options::default())
    } else {
        Err(not_converted(path))
    }
}

fn not_converted(path: &Path) -> anyhow::Error {
    let text = format!("`{}` has no {MANIFEST_FILE}: it is no converted folder", path.display());
    report::with_hint(text, "convert the checkpoint first, with `edgetool convert --target TARGET --fold per-step`")
}

/// The target that the folder was converted for, which the command line may not contradict.
fn target(args: &Quantize, manifest: &Manifest) -> Result<Target> {
    let again = |name: &str| format!("convert the checkpoint again, with `--target {name} --fold per-step`");
    let wanted = args.target.as_deref().map(Target::find).transpose()?;
    let name = wanted.as_ref().map_or("TARGET".to_owned(), |t| t.name.clone());
    let folder = args.model.display();
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
        None => Ok(there.clone()),
    }
}

fn chosen(args: &Quantize, manifest: &Manifest) -> Result<Vec<String>> {
    let names = || manifest.components.iter().map(|c| c.name.clone());
    if let Some(unknown) = args.component.iter().find(|name| manifest.component(name).is_none()) {
        let text = format!("`{}` has no component `{unknown}`", args.model.display());
        return Err(report::with_hint(text, format!("it has {}", names().collect::<Vec<_>>().join(", "))));
    }
    let is_unet = |name: &str| UNETS.iter().any(|start| name.starts_with(start));
    let is_chosen = |name: &String| {
        if args.component.is_empty() { is_unet(name) } else { args.component.contains(name) }
    };
    let chosen: Vec<String> = names().filter(is_chosen).collect();
    if chosen.is_empty() {
        let text = format!("`{}` has no UNet of its own", args.model.display());
        let hint = format!("name what to quantize with `--component`: {}", names().collect::<Vec<_>>().join(", "));
        return Err(report::with_hint(text, hint));
    }
    Ok(chosen)
}

/// The statistics, where activations are quantized. `inputs` see the prompts of `--calibration`.
fn statistics(
    args: &Quantize,
    model: &Model,
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
        let mut components = Vec::new();
        let mut lines = Vec::new();
        copy_rest(&self.args.model, folder, self.manifest)?;
        for parts in self.manifest.components.chunk_by(|a, b| directory(a) == directory(b)) {
            let mut shared = self.plan.weights(self.inputs.as_ref(), directory(&parts[0]));
            let mut done = Vec::new();
            for component in parts {
                let graph = self.model.graph(&component.name)?;
                done.push(self.treat(&component.name, graph, &mut shared)?);
            }
            let dir = folder.join(directory(&parts[0]));
            let names: Vec<&str> = parts.iter().map(|c| c.file.rsplit('/').next().unwrap_or(&c.file)).collect();
            let files: Vec<_> = names.iter().copied().zip(done.iter().map(|d| &d.graph)).collect();
            let options = WriteOptions { opset: self.manifest.opset, weights: WeightMode::Copy };
            edge_ir::onnx::write_all(&files, &dir, options)?;
            for (component, done) in parts.iter().zip(&done) {
                let path = folder.join(&component.file);
                let read = || format!("cannot read `{}`", path.display());
                let hash = sha256(File::open(&path).with_context(read)?).with_context(read)?;
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
                Some(self.plan.record(self.scheme, &self.chosen))
            } else {
                self.manifest.repaired.clone()
            },
            components,
            ..self.manifest.clone()
        };
        let path = folder.join(MANIFEST_FILE);
        fs::write(&path, manifest.text()).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(lines)
    }

    /// One component's graph as it shall be.
    fn treat(&self, name: &str, graph: Checked<Graph>, shared: &mut SharedWeights<'_>) -> Result<Done> {
        let chosen = self.chosen.iter().any(|c| c == name);
        // Without exceptions, all that is stored becomes float16, not the weights of layers alone.
        let plain = self.scheme == Scheme::Fp16 && self.rules.is_empty();
        if !chosen || plain {
            let half = chosen || self.args.others == Others::Fp16;
            let graph = if half { half_weights(&graph)? } else { graph };
            return Ok(Done { graph, encodings: Vec::new() });
        }
        if let Some(Known { statistics, .. }) = &self.statistics {
            statistics.check_graph(name, &graph)?;
        }
        let graph = self.plan.correct(graph, &self.settings, self.inputs.as_ref(), shared)?;
        if self.args.export_float {
            return Ok(Done { graph, encodings: Vec::new() });
        }
        let range = |tensor: &str, dtype: DType| {
            let (low, high) = limits(dtype)?;
            let grid = Grid { levels: u32::try_from(high.checked_sub(low)?).ok()? + 1, symmetric: low < 0 };
            self.statistics.as_ref()?.statistics.range(name, tensor, self.method, grid)
        };
        let Quantized { graph, encodings } = edge_quant::quantize(&graph, &self.settings, &range, shared)?;
        Ok(Done { graph, encodings })
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
            ranges: self.statistics.as_ref().map(|_| self.method.to_string()),
            statistics: self.statistics.as_ref().map(|known| known.sha256.clone()),
            rules: self.rules.clone(),
            rounding: (self.scheme != Scheme::Fp16).then(|| self.plan.rounding()),
            repairs: self.plan.repairs(),
            components: self.chosen.clone(),
        }
    }

    fn line(&self, component: &Component, done: &Done) -> Option<String> {
        self.chosen.contains(&component.name).then(|| {
            let weights = done.encodings.iter().filter(|e| e.is_weight).count();
            let activations = done.encodings.len() - weights;
            let bytes: u64 = done.graph.initializers().map(|(_, v, _)| v.ty.bytes()).sum();
            format!(
                "  {:<14} {:>9} KiB of constants  {weights:>5} of them in integers  {activations:>5} activations",
                component.name,
                bytes / 1024
            )
        })
    }
}

/// The folder of a component's file.
pub(super) fn directory(component: &Component) -> &str {
    component.file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Copies everything but graphs and their weights, and makes the components' folders.
fn copy_rest(from: &Path, to: &Path, manifest: &Manifest) -> Result<()> {
    let folders: Vec<&str> = manifest.components.iter().map(directory).collect();
    copy_folder(from, to, &|path: &Path| {
        let parent = path.parent().unwrap_or(Path::new(""));
        let is_graph = path.extension().is_some_and(|e| e == "onnx" || e == "onnx_data" || e == "safetensors");
        // A report speaks of the float model.
        let is_other = [MANIFEST_FILE, REPORT_FILE, "report.html"].iter().any(|name| path == Path::new(name));
        !(is_other || is_graph && folders.iter().any(|f| parent == Path::new(f)))
    })
}

/// Copies a folder's files of which `wanted` says yes, by their paths in it.
fn copy_folder(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut left = vec![std::path::PathBuf::new()];
    while let Some(inner) = left.pop() {
        let read = || format!("cannot read `{}`", from.join(&inner).display());
        fs::create_dir_all(to.join(&inner))
            .with_context(|| format!("cannot create `{}`", to.join(&inner).display()))?;
        let mut entries = fs::read_dir(from.join(&inner)).with_context(read)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = inner.join(entry.file_name());
            if entry.path().is_dir() {
                left.push(path);
            } else if wanted(&path) {
                // The content alone: a read-only original must not make read-only copies.
                let content = fs::read(entry.path()).with_context(read)?;
                fs::write(to.join(&path), content)
                    .with_context(|| format!("cannot write `{}`", to.join(&path).display()))?;
            }
        }
    }
    Ok(())
}
