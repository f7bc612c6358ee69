//! What of a converted folder stays as it is when another one is made from it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_spec::{Component, MANIFEST_FILE, REPORT_FILE};

/// The folder of a component's file.
pub(super) fn directory(component: &Component) -> &str {
    component.file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Copies everything but what is made anew: the manifest, and graphs and weights in the folders `made`. With `link`, files
/// are hard links to the originals, where the file system can.
pub(super) fn rest(from: &Path, to: &Path, made: &[&str], link: bool) -> Result<()> {
    folder(from, to, link, &|path: &Path| {
        let parent = path.parent().unwrap_or(Path::new(""));
        let is_graph = path.extension().is_some_and(|e| e == "onnx" || e == "onnx_data" || e == "safetensors");
        // A report speaks of the float model.
        let is_other = [MANIFEST_FILE, REPORT_FILE, "report.html"].iter().any(|name| path == Path::new(name));
        !(is_other || is_graph && made.iter().any(|f| parent == Path::new(f)))
    })
}

/// Copies a folder's files of which `wanted` says yes, by their paths in it.
fn folder(from: &Path, to: &Path, link: bool, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut left = vec![PathBuf::new()];
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
                file(&entry.path(), &to.join(&path), link)?;
            }
        }
    }
    Ok(())
}

/// The content alone, by the kernel: a read-only original must not make read-only copies.
fn file(from: &Path, to: &Path, link: bool) -> Result<()> {
    if link && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut source = File::open(from).with_context(|| format!("cannot read `{}`", from.display()))?;
    let write = || format!("cannot write `{}`", to.display());
    std::io::copy(&mut source, &mut File::create(to).with_context(write)?).with_context(write)?;
    Ok(())
}
