//! A bundle's files and manifest, from a verified model, its report and a golden run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use edge_ir::ops::quantize::is_linear;
use edge_ir::{Checked, Graph, Tensor};
use edge_spec::bundle::{
    BUNDLE_SCHEMA, BundleManifest, BundleSampler, BundleTarget, Content, Contents, Golden, MODEL_FOLDER, Measure,
    NoiseContract,
};
use edge_spec::{FoldStep, Manifest, REPORT_FILE, Target};

use crate::emit::{Emission, Job, find};
use crate::{PackageError, golden, ports, readme};

/// The target's file in a bundle.
const TARGET_FILE: &str = "target.yaml";
/// The picture of the golden run.
const PICTURE: &str = "golden/picture.png";
/// The runner in a bundle.
const RUNNER: &str = "runner/edgetool";

/// One run of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The component.
    pub component: String,
    /// What it was fed, by name, in the graph's order.
    pub inputs: Vec<(String, Tensor)>,
    /// What it gave, by name, in the graph's order.
    pub outputs: Vec<(String, Tensor)>,
}

/// The golden run.
#[derive(Clone, Debug)]
pub struct Played {
    /// The prompt.
    pub prompt: String,
    /// The seed of the noise.
    pub seed: u64,
    /// The guidance scale.
    pub guidance: f32,
    /// The scheduler's steps.
    pub steps: Vec<FoldStep>,
    /// All runs of graphs, in order.
    pub calls: Vec<Call>,
    /// The run of the whole: token ids and noise, and the picture's numbers.
    pub whole: Call,
    /// The picture, as PNG.
    pub png: Vec<u8>,
}

/// Float forms of graphs that have integers, for an SDK that quantizes by files of encodings.
#[derive(Debug, Default)]
pub struct Floats {
    /// The file of each component's graph, by the component's name: one of `files`.
    pub graphs: BTreeMap<String, String>,
    /// Graphs and weights, by their paths in one folder, and where they are.
    pub files: BTreeMap<String, PathBuf>,
    /// Files of encodings: version of the format, component, text.
    pub encodings: Vec<(String, String, String)>,
}

/// What a bundle is made of.
#[derive(Debug)]
pub struct Source<'a> {
    /// Name and version of the program.
    pub producer: &'a str,
    /// The model's own manifest.
    pub manifest: &'a Manifest,
    /// The graphs of its components, in the same order.
    pub graphs: &'a [Checked<Graph>],
    /// The model's files, by path, with where they are and what they were when they passed [`crate::gate()`].
    pub files: &'a BTreeMap<String, (PathBuf, Measure)>,
    /// The report's text.
    pub report: &'a str,
    /// The target.
    pub target: &'a Target,
    /// The device, one of the target's.
    pub device: Option<&'a str>,
    /// The golden run.
    pub played: &'a Played,
    /// Further runs, for compilers that choose ranges from examples.
    pub samples: &'a [Call],
    /// Float forms of the quantized graphs.
    pub floats: &'a Floats,
    /// The runner's executable.
    pub runner: Option<&'a [u8]>,
}

/// A bundle before it is written.
#[derive(Debug)]
pub struct Assembled {
    /// Its manifest, without the list of files.
    pub manifest: BundleManifest,
    /// Its files.
    pub contents: Contents,
    /// Those that are measured already.
    pub known: BTreeMap<String, Measure>,
}

/// Puts a bundle together.
///
/// # Errors
/// If the target names no emitter, or its emitter does not take the target's facts.
pub fn assemble(source: &Source<'_>) -> Result<Assembled, PackageError> {
    let Source { manifest, played, target, .. } = source;
    let emitter = find(target)?;
    let mut contents = Contents::new();
    let mut known = BTreeMap::new();
    for (path, (file, measure)) in source.files {
        let name = format!("{MODEL_FOLDER}/{path}");
        contents.insert(name.clone(), Content::File(file.clone()));
        known.insert(name, measure.clone());
    }
    let components = manifest.components.iter().zip(source.graphs);
    let components: Vec<_> = components.map(|(c, graph)| ports::component(c, graph, manifest.fold.as_ref())).collect();
    let device = source.device.and_then(|name| Some((name, target.devices.get(name)?)));
    // A graph that the golden run has no use for, as an encoder of pictures, ships as it is.
    let used: Vec<_> =
        components.iter().filter(|c| played.calls.iter().any(|call| call.component == c.name)).cloned().collect();
    let with_integers = manifest.components.iter().zip(source.graphs).filter(|(_, graph)| has_integers(graph));
    let quantized: Vec<_> = with_integers.map(|(c, _)| c.name.clone()).collect();
    let floats = floats(source.floats, emitter.name(), &mut contents);
    let (opset, samples) = (manifest.opset, source.samples);
    let job = Job { components: &used, quantized: &quantized, floats: &floats, opset, target, device, samples };
    let Emission { files, commands, graph_sqnr_db, pipeline_sqnr_db, verified } = emitter.emit(&job)?;
    contents.extend(files.into_iter().map(|(name, bytes)| (name, Content::Bytes(bytes))));
    let folders = golden::folders(&played.calls);
    let runs = played.calls.iter().zip(folders);
    let runs = runs.map(|(c, name)| golden::run(c, &format!("golden/{name}"), graph_sqnr_db, &mut contents)).collect();
    let pipeline = golden::run(&played.whole, "golden/pipeline", pipeline_sqnr_db, &mut contents);
    let p = &manifest.pipeline;
    let is_licence = |path: &&String| path.to_lowercase().starts_with("licen") && !path.contains('/');
    let bundle = BundleManifest {
        schema: BUNDLE_SCHEMA.into(),
        producer: source.producer.to_owned(),
        target: BundleTarget {
            name: target.name.clone(),
            file: TARGET_FILE.into(),
            device: source.device.map(str::to_owned),
        },
        verified,
        report: REPORT_FILE.into(),
        licence: source.files.keys().filter(is_licence).map(|path| format!("{MODEL_FOLDER}/{path}")).collect(),
        tokenizer: format!("{MODEL_FOLDER}/tokenizer"),
        pipeline: p.clone(),
        fold: manifest.fold.clone(),
        sampler: BundleSampler {
            steps: played.steps.clone(),
            guidance: played.guidance,
            noise: NoiseContract {
                generator: "torch.Generator(\"cpu\").manual_seed(seed), torch.randn: MT19937 and Box-Muller".into(),
                draws: draws(&played.steps),
                shape: vec![p.batch, p.latent_channels, p.height / p.vae_scale_factor, p.width / p.vae_scale_factor],
            },
        },
        components,
        compiled: None,
        golden: Golden { prompt: played.prompt.clone(), seed: played.seed, picture: PICTURE.into(), runs, pipeline },
        files: Vec::new(),
    };
    let texts = [
        (TARGET_FILE, target.to_string()),
        (REPORT_FILE, source.report.to_owned()),
        ("README.md", readme::readme(&bundle, target, source.runner.is_some(), &commands)),
    ];
    contents.extend(texts.map(|(name, text)| (name.to_owned(), Content::Bytes(text.into_bytes()))));
    contents.insert(PICTURE.into(), Content::Bytes(played.png.clone()));
    if let Some(runner) = source.runner {
        contents.insert(RUNNER.into(), Content::Bytes(runner.to_vec()));
    }
    Ok(Assembled { manifest: bundle, contents, known })
}

/// Whether a graph computes with integers that stand for numbers.
pub fn has_integers(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| is_linear(node, "QuantizeLinear") || is_linear(node, "DequantizeLinear"))
}

/// Adds float forms to the SDK's folder; the places of their graphs.
fn floats(floats: &Floats, sdk: &str, contents: &mut Contents) -> BTreeMap<String, String> {
    let place = |file: &str| format!("{sdk}/float/{file}");
    contents.extend(floats.files.iter().map(|(file, path)| (place(file), Content::File(path.clone()))));
    contents.extend(floats.encodings.iter().map(|(version, component, text)| {
        (format!("{sdk}/encodings-{version}/{component}.json"), Content::Bytes(text.clone().into_bytes()))
    }));
    floats.graphs.iter().map(|(name, file)| (name.clone(), place(file))).collect()
}

/// What is drawn from the noise, in order.
fn draws(steps: &[FoldStep]) -> Vec<String> {
    let noisy = steps.iter().enumerate().filter(|(_, step)| step.noise != 0.0);
    std::iter::once("latent".to_owned()).chain(noisy.map(|(index, _)| format!("noise_{index}"))).collect()
}
