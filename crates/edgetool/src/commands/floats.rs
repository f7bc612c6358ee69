//! Float forms of a model's quantized graphs, for a bundle whose SDK quantizes by files of encodings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_ir::onnx::{WeightMode, WriteOptions};
use edge_ir::{Checked, Graph};
use edge_package::{Floats, has_integers};
use edge_quant::encodings::{self, Version};
use edge_quant::{FloatForm, float_form};
use edge_spec::{Component, Manifest, Target};

use super::copies::directory;
use crate::cli::Package;
use crate::report;

/// The forms of encodings that bundles have.
const VERSIONS: &[Version] = &[Version::V0_6_1, Version::V1_0_0];

/// A component and its float form.
type Formed<'a> = (&'a Component, FloatForm);

/// Refuses a target whose SDK has no use for float forms.
pub(super) fn check(target: &Target) -> Result<()> {
    if edge_package::find(target)?.takes_floats() {
        return Ok(());
    }
    let text = format!("`--with-float`: the SDK of `{}` quantizes by no encodings", target.name);
    Err(report::with_hint(text, "leave it out"))
}

/// Writes the float forms into a folder.
pub(super) fn write(args: &Package, manifest: &Manifest, graphs: &[Checked<Graph>], folder: &Path) -> Result<Floats> {
    let components = manifest.components.iter().zip(graphs);
    let formed = components.filter(|(_, graph)| has_integers(graph)).map(|(c, graph)| Ok((c, float_form(graph)?)));
    let formed: Vec<Formed<'_>> = formed.collect::<Result<_>>()?;
    if formed.is_empty() {
        let text = format!("`--with-float`: no graph of `{}` has integers", args.model.display());
        return Err(report::with_hint(text, "leave it out: the graphs are float already"));
    }
    let mut floats = Floats::default();
    for group in formed.chunk_by(|(a, _), (b, _)| directory(a) == directory(b)) {
        // Graphs whose weights differ by their scales alone are float graphs with different weights.
        if share(group) {
            put(group, directory(group[0].0), manifest.opset, folder, &mut floats)?;
        } else {
            for one in group {
                put(std::slice::from_ref(one), &one.0.name, manifest.opset, folder, &mut floats)?;
            }
        }
    }
    for (component, form) in &formed {
        for version in VERSIONS {
            let text = format!("{}\n", encodings::file(&form.encodings, *version));
            floats.encodings.push((version.to_string(), component.name.clone(), text));
        }
    }
    Ok(floats)
}

/// Whether all weights of one name are the same.
fn share(group: &[Formed<'_>]) -> bool {
    let mut seen = std::collections::BTreeMap::new();
    let weights =
        group.iter().flat_map(|(_, form)| form.graph.initializers()).filter(|(_, _, data)| data.is_streamed());
    weights.into_iter().all(|(_, value, data)| seen.insert(&value.name, data).is_none_or(|there| there.is_same(data)))
}

/// Writes graphs into one folder, with one file of weights, and takes note of the files.
fn put(group: &[Formed<'_>], inner: &str, opset: u32, folder: &Path, floats: &mut Floats) -> Result<()> {
    let dir = folder.join(inner);
    let make = || format!("cannot write `{}`", dir.display());
    fs::create_dir_all(&dir).with_context(make)?;
    let name = |component: &Component| component.file.rsplit('/').next().unwrap_or(&component.file).to_owned();
    let names: Vec<_> = group.iter().map(|(component, _)| name(component)).collect();
    let files: Vec<_> = names.iter().map(String::as_str).zip(group.iter().map(|(_, form)| &form.graph)).collect();
    let written = edge_ir::onnx::write_all(&files, &dir, WriteOptions { opset, weights: WeightMode::Copy })?;
    ensure!(written.non_finite.is_empty(), "`{inner}` has weights that are no finite numbers");
    for ((component, _), name) in group.iter().zip(&names) {
        floats.graphs.insert(component.name.clone(), format!("{inner}/{name}"));
    }
    for entry in fs::read_dir(&dir).with_context(make)? {
        let path = entry.with_context(make)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        floats.files.insert(format!("{inner}/{name}"), path);
    }
    Ok(())
}
