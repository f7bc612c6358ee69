//! Whether a bundle is what it says, before it is played.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use edge_spec::bundle::{Bundle, MODEL_FOLDER};
use edge_spec::{Measured, Report, SpecError, Verdict};

use crate::report;
use crate::staging::Scratch;

/// Compares every file with the manifest, and what the report in it measured with the model in it. Gives the bundle's own
/// files as a report lists them.
///
/// # Errors
/// The answer no, if it is not whole, or its report speaks of other files, or is no good.
pub(super) fn check(path: &Path) -> Result<Vec<Measured>> {
    let bundle = Bundle::open(path).map_err(|error| match error {
        SpecError::Invalid { .. } => report::no(error.to_string(), None),
        other => other.into(),
    })?;
    let shown = path.display();
    let damaged = bundle.check()?;
    if !damaged.is_empty() {
        let lines = damaged.iter().map(|d| format!("\n  `{}` {}", d.name, d.reason));
        let text = format!("`{shown}` is damaged:{}", lines.collect::<String>());
        return Err(report::no(text, Some("copy it again, or package the model again".into())));
    }
    let manifest = bundle.manifest();
    let files: BTreeMap<&str, &str> = manifest.files.iter().map(|f| (f.path.as_str(), f.sha256.as_str())).collect();
    let again = || Some("verify the model's folder, and package it again".to_owned());
    let own = own_report(&bundle)?;
    if own.verdict == Verdict::Fail {
        return Err(report::no(format!("`{shown}`: the report in it says that the model failed"), again()));
    }
    for Measured { path: measured, sha256, .. } in &own.measured {
        let name = format!("{MODEL_FOLDER}/{measured}");
        let found = files.get(name.as_str());
        if found.is_none_or(|found| *found != sha256.as_str()) {
            let is = found.map_or("is not there".to_owned(), |found| format!("has the SHA-256 {found}"));
            let text = format!("`{shown}`: the report in it measured `{name}` with the SHA-256 {sha256}, which {is}");
            return Err(report::no(text, again()));
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut measured = vec![Measured::file(path, name)?];
    let of_model = manifest.files.iter().filter(|f| f.path.starts_with(&format!("{MODEL_FOLDER}/")));
    measured.extend(of_model.map(|f| Measured { path: f.path.clone(), size: f.size, sha256: f.sha256.clone() }));
    Ok(measured)
}

fn own_report(bundle: &Bundle) -> Result<Report> {
    let scratch = Scratch::new()?;
    let name = &bundle.manifest().report;
    bundle.extract(scratch.path(), &|file| file == name)?;
    Report::read(&scratch.path().join(name)).context("cannot read the report in the bundle")
}
