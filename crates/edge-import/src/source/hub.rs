//! The layout of the Hugging Face cache: `models--<org>--<name>/{blobs,refs,snapshots}`, where a snapshot is a folder of
//! links into `blobs`.

use std::path::{Path, PathBuf};

use crate::Error;

/// The snapshot that `refs/main` names, or the only one, if `path` is a cache entry; `path` itself otherwise.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() || path.join("model_index.json").exists() {
        return Ok(path.to_owned());
    }
    let main = std::fs::read_to_string(path.join("refs/main")).ok().map(|hash| snapshots.join(hash.trim()));
    if let Some(snapshot) = main.filter(|p| p.is_dir()) {
        return Ok(snapshot);
    }
    let entries = std::fs::read_dir(&snapshots).map_err(|source| Error::Io { path: snapshots.clone(), source })?;
    let mut found: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).filter(|p| p.is_dir()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Error::not_found(&snapshots, "does not hold the snapshot of refs/main: name one of its folders")),
    }
}
