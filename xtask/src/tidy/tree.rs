//! The files of the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Files above this are not read: no rule reads more than their size.
const LARGEST_TEXT: u64 = 4 << 20;

/// A file.
pub(super) struct File {
    /// Path from the root, with `/`.
    pub(super) path: String,
    /// Size in bytes.
    pub(super) size: u64,
    /// Content, if it is UTF-8; of a large file, nothing.
    pub(super) text: Option<String>,
}

/// All files that git does not ignore, in the order of their paths.
pub(super) struct Tree {
    files: Vec<File>,
}

impl Tree {
    /// Reads the files below `root`.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let mut tree = Self { files: Vec::new() };
        tree.walk(root, "", &ignored)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// Files that a test makes up.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            size: text.len() as u64,
            text: Some((*text).to_owned()),
        };
        Self { files: files.iter().map(file).collect() }
    }

    /// All files.
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Path and content of the files with this ending.
    pub(super) fn texts(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        let fits = move |file: &&File| file.path.ends_with(ending);
        self.files.iter().filter(fits).filter_map(|f| Some((f.path.as_str(), f.text.as_deref()?)))
    }

    /// The content of a file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|f| f.path == path).and_then(|f| f.text.as_deref())
    }

    /// Whether there is such a file or folder.
    pub(super) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.files.iter().any(|f| f.path == path || f.path.starts_with(&folder))
    }

    fn walk(&mut self, folder: &Path, prefix: &str, ignored: &str) -> Result<()> {
        let cannot = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(folder).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let kind = entry.file_type().with_context(cannot)?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if path == ".git" || is_ignored(&path, ignored) {
                continue;
            }
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"), ignored)?;
            } else if kind.is_file() {
                let size = entry.metadata().with_context(cannot)?.len();
                let bytes =
                    if size > LARGEST_TEXT { Vec::new() } else { fs::read(entry.path()).with_context(cannot)? };
                self.files.push(File { path, size, text: String::from_utf8(bytes).ok() });
            }
        }
        Ok(())
    }
}

/// Whether the lines of a `.gitignore` name the path. They have the forms `/name`, `name/` and `*.ending` only.
fn is_ignored(path: &str, lines: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).any(|line| {
        let bare = line.trim_end_matches('/');
        match (bare.strip_prefix('/'), bare.strip_prefix('*')) {
            (Some(top), _) => path == top,
            (_, Some(ending)) => name.ends_with(ending),
            _ => name == bare,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_files_are_left_out() {
        let lines = "# a comment\n/target/\ncache/\n*.pyc\n";
        let ignored: Vec<bool> =
            ["target", "a/target", "a/cache", "a/b.pyc", "a/b.py"].map(|path| is_ignored(path, lines)).to_vec();
        assert_eq!(ignored, [true, false, true, true, false]);
    }

    #[test]
    fn folders_are_there_when_their_files_are() {
        let tree = Tree::of(&[("docs/a.md", "")]);
        assert_eq!(
            ["docs", "docs/", "docs/a.md", "doc", "docs/b.md"].map(|p| tree.has(p)),
            [true, true, true, false, false]
        );
    }
}
