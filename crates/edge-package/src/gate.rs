//! Nothing is packed that was not verified: the report's files against those of the model's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use edge_spec::bundle::Measure;
use edge_spec::{MANIFEST_FILE, Manifest, REPORT_FILE, Report, Verdict};

use crate::{GateError, PackageError};

/// Files beside the graphs that do not change what they compute.
const BESIDE: &[&str] = &["config.json"];
/// Files in the model's folder that are about it and not of it.
const ABOUT: &[&str] = &[REPORT_FILE, "report.html"];

/// Lets a model pass whose report is good and speaks of exactly these files. `files` are all files of the folder by path.
///
/// # Errors
/// If the report is not good, or a file of the graphs is another than the one that was measured.
pub fn gate(report: &Report, manifest: &Manifest, files: &BTreeMap<String, Measure>) -> Result<(), GateError> {
    if report.verdict == Verdict::Fail {
        return Err(GateError::Failed);
    }
    for measured in &report.measured {
        let path = || measured.path.clone();
        let found = files.get(&measured.path).ok_or_else(|| GateError::Missing { path: path() })?;
        if found.sha256 != measured.sha256 {
            let (expected, found) = (measured.sha256.clone(), found.sha256.clone());
            return Err(GateError::Changed { path: path(), expected, found });
        }
    }
    let known = |path: &str| report.measured.iter().any(|m| m.path == path);
    match files.keys().find(|path| is_computed(path, manifest) && !known(path)) {
        Some(path) => Err(GateError::Unmeasured { path: path.clone() }),
        None => Ok(()),
    }
}

/// Whether what a model computes depends on a file: the manifest, and all that lies with the graphs.
fn is_computed(path: &str, manifest: &Manifest) -> bool {
    let folder = |p: &str| p.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let own = folder(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    let with_graphs = manifest.components.iter().any(|c| c.file == path || folder(&c.file) == own);
    path == MANIFEST_FILE || (with_graphs && !own.is_empty() && !BESIDE.contains(&name))
}

/// All files of a model's folder, by their paths in it with `/`, but those that are about it: its report.
///
/// # Errors
/// If the folder cannot be read, or a name is not text.
pub fn model_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, PackageError> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = open.pop() {
        let failed = |source| PackageError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name =
                path.file_name().and_then(|n| n.to_str()).ok_or_else(|| PackageError::Name { path: path.clone() })?;
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                open.push((format!("{name}/"), path));
            } else if !ABOUT.contains(&name.as_str()) {
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use edge_spec::{Component, Measured, Pipeline, REPORT_SCHEMA, SCHEMA};

    use super::*;

    fn manifest() -> Manifest {
        let component = Component {
            name: "unet".into(),
            file: "unet/model.onnx".into(),
            sha256: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        Manifest {
            schema: SCHEMA.into(),
            producer: String::new(),
            opset: 17,
            weights: "copy".into(),
            lowering: None,
            quantization: None,
            repaired: None,
            pipeline: Pipeline {
                height: 8,
                width: 8,
                batch: 1,
                latent_channels: 4,
                vae_scale_factor: 8,
                vae_scaling_factor: 1.0,
                taesd_scaling_factor: None,
                guidance_embedding: None,
            },
            fold: None,
            components: vec![component],
        }
    }

    #[test]
    fn exactly_what_was_measured_passes() {
        let measure = |sha256: &str| Measure { size: 1, sha256: sha256.into(), crc32: 0 };
        let mut files: BTreeMap<String, Measure> = BTreeMap::new();
        for name in ["edgetool.json", "unet/model.onnx", "unet/model.onnx_data"] {
            files.insert(name.into(), measure(name));
        }
        let measured =
            |(path, m): (&String, &Measure)| Measured { path: path.clone(), size: 1, sha256: m.sha256.clone() };
        let report = Report {
            schema: REPORT_SCHEMA.into(),
            producer: String::new(),
            verdict: Verdict::Pass,
            measured: files.iter().map(measured).collect(),
            ..Report::default()
        };
        for beside in ["unet/config.json", "tokenizer/vocab.json", "LICENSE"] {
            files.insert(beside.into(), measure(beside));
        }
        let check = |report: &Report, files: &BTreeMap<String, Measure>| gate(report, &manifest(), files);
        assert_eq!(check(&report, &files), Ok(()));
        assert_eq!(check(&Report { verdict: Verdict::Fail, ..report.clone() }, &files), Err(GateError::Failed));

        let mut other = files.clone();
        other.insert("unet/model.onnx_data".into(), measure("other"));
        let error = check(&report, &other).expect_err("changed").to_string();
        assert_eq!(
            error,
            "`unet/model.onnx_data` was changed after it was verified: the SHA-256 is other, the report's unet/model.onnx_data"
        );
        other.remove("unet/model.onnx_data");
        assert_eq!(check(&report, &other), Err(GateError::Missing { path: "unet/model.onnx_data".into() }));

        for more in ["unet/more.onnx_data", "edgetool.json", "unet/model.onnx"] {
            let mut fewer = report.clone();
            fewer.measured.retain(|m| m.path != more);
            let mut other = files.clone();
            other.entry(more.into()).or_insert_with(|| measure("more"));
            assert_eq!(check(&fewer, &other), Err(GateError::Unmeasured { path: more.into() }));
        }
    }

    #[test]
    fn the_report_is_not_of_the_model() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("a")).expect("a folder");
        for name in ["report.json", "report.html", "x", "a/report.json"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let names: Vec<String> = model_files(dir.path()).expect("a folder").into_keys().collect();
        assert_eq!(names, ["a/report.json", "x"]);
    }
}
