//! The layout of a converted model: the folders, names and configurations that Optimum's ONNX pipelines read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use edge_import::{Checkpoint, Document, Imported};
use edge_ir::{Checked, Graph, ValueId};
use edge_spec::{Component, Pipeline, Port};
use serde_json::{Map, Value, json};

/// What the manifest says of the pipeline.
pub(crate) fn pipeline(p: &edge_import::Pipeline) -> Pipeline {
    Pipeline {
        height: p.height,
        width: p.width,
        batch: p.batch,
        latent_channels: p.latent_channels,
        vae_scale_factor: p.vae_scale_factor,
        vae_scaling_factor: p.vae_scaling_factor,
        taesd_scaling_factor: p.taesd_scaling_factor,
        guidance_embedding: p.guidance_embedding,
    }
}

/// What the manifest says of a graph.
pub(crate) fn component(name: &str, file: String, sha256: String, graph: &Checked<Graph>) -> Component {
    let port = |id: &ValueId| Port {
        name: graph.value(*id).name.clone(),
        dtype: graph.ty(*id).dtype.name().to_owned(),
        shape: graph.ty(*id).shape.clone(),
    };
    Component {
        name: name.to_owned(),
        file,
        sha256,
        inputs: graph.inputs.iter().map(port).collect(),
        outputs: graph.outputs.iter().map(port).collect(),
    }
}

/// Writes everything that is not a graph: configurations, scheduler, tokenizer, licence.
pub(crate) fn write_rest(imported: &Imported, folder: &Path) -> Result<()> {
    let checkpoint = &imported.checkpoint;
    for (name, _) in &imported.model.components {
        let config = config(name, imported);
        write(&folder.join(name).join("config.json"), &text(&config))?;
    }
    write(
        &folder.join("model_index.json"),
        &text(&model_index(checkpoint, imported.pipeline.guidance_embedding.is_some())),
    )?;
    write_shared(imported, folder)
}

/// Writes what a folded model needs beside its graphs: scheduler, tokenizer, licence. diffusers' configurations and its
/// index are not among it, since no pipeline of diffusers can play the graphs.
pub(crate) fn write_shared(imported: &Imported, folder: &Path) -> Result<()> {
    let checkpoint = &imported.checkpoint;
    fs::create_dir(folder.join("scheduler"))?;
    write(&folder.join("scheduler/scheduler_config.json"), &checkpoint.scheduler.text())?;
    fs::create_dir(folder.join("tokenizer"))?;
    for file in &checkpoint.tokenizer {
        copy(file, &folder.join("tokenizer"))?;
    }
    write_vocabulary(checkpoint, &folder.join("tokenizer"))?;
    checkpoint.licences.iter().try_for_each(|file| copy(file, folder))
}

/// A component's configuration: the checkpoint's, with the sizes of this conversion.
fn config(component: &str, imported: &Imported) -> Map<String, Value> {
    let checkpoint = &imported.checkpoint;
    let fields = |document: &Document| document.fields.clone();
    match component {
        "text_encoder" => fields(&checkpoint.text_encoder.config),
        "unet" => {
            let mut config = fields(&checkpoint.unet.config);
            let factor = imported.pipeline.vae_scale_factor;
            let (h, w) = (imported.pipeline.height / factor, imported.pipeline.width / factor);
            config.insert("sample_size".into(), if h == w { json!(h) } else { json!([h, w]) });
            // Pipelines take an old version here for a sign that `sample_size` is wrong.
            config.shift_remove("_diffusers_version");
            config.entry("in_channels").or_insert(json!(imported.pipeline.latent_channels));
            config.entry("time_cond_proj_dim").or_insert(json!(imported.pipeline.guidance_embedding));
            config
        }
        "taesd_decoder" => checkpoint.taesd.as_ref().map(|part| fields(&part.config)).unwrap_or_default(),
        _ => {
            let mut config = fields(&checkpoint.vae.config);
            // Old configurations lack it; a reader's default is not always diffusers'.
            config.entry("scaling_factor").or_insert(json!(imported.pipeline.vae_scaling_factor));
            config
        }
    }
}

/// The index, for the pipeline class that fits the UNet, without parts that are not converted.
fn model_index(checkpoint: &Checkpoint, guidance_embedding: bool) -> Map<String, Value> {
    let class = if guidance_embedding { "LatentConsistencyModelPipeline" } else { "StableDiffusionPipeline" };
    let mut index = checkpoint.model_index.fields.clone();
    index.insert("_class_name".into(), json!(class));
    for part in ["feature_extractor", "image_encoder", "safety_checker"] {
        if index.contains_key(part) {
            index.insert(part.into(), json!([null, null]));
        }
    }
    index.insert("requires_safety_checker".into(), json!(false));
    index
}

/// transformers' older tokenizer wants `vocab.json` and `merges.txt`, which `tokenizer.json` holds as well.
fn write_vocabulary(checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let named = |name: &str| checkpoint.tokenizer.iter().find(|p| p.ends_with(name));
    let (None, Some(whole)) = (named("vocab.json"), named("tokenizer.json")) else { return Ok(()) };
    let document = Document::open(whole)?;
    let model = document.fields.get("model");
    let (Some(vocabulary), Some(Value::Array(merges))) =
        (model.and_then(|m| m.get("vocab")), model.and_then(|m| m.get("merges")))
    else {
        return Ok(());
    };
    let rule = |merge: &Value| match merge {
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let rules: Vec<String> = merges.iter().map(rule).collect();
    write(&folder.join("vocab.json"), &vocabulary.to_string())?;
    write(&folder.join("merges.txt"), &format!("#version: 0.2\n{}\n", rules.join("\n")))
}

fn text(fields: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(fields).unwrap_or_default() + "\n"
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    // The content alone: a read-only cache must not make read-only copies.
    let content = fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let target = folder.join(name);
    fs::write(&target, content).with_context(|| format!("cannot write `{}`", target.display()))
}
