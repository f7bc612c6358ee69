//! A stage of a build: a subcommand, and the name under which the cache keeps what it makes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use edge_spec::{Hasher, Measured, sha256};

use crate::cli::Args;
use crate::report;

/// Digits of a key in a name.
const DIGITS: usize = 24;

/// One argument.
enum Word {
    /// It counts by its text.
    Text(String),
    /// A file or folder that counts by its content, of which this is the hash.
    Input { path: PathBuf, content: String },
    /// It counts for nothing: the result does not depend on it.
    Free(OsString),
    /// It counts, and is no argument.
    Counted(String),
}

/// A subcommand with its arguments, before it runs.
pub(super) struct Stage {
    name: &'static str,
    words: Vec<Word>,
}

/// What a stage made.
#[derive(Clone)]
pub(super) struct Made {
    /// The file or folder in the cache.
    pub(super) path: PathBuf,
    key: String,
    /// Whether it was there already.
    pub(super) kept: bool,
}

/// Where stages keep what they made.
pub(super) struct Cache {
    folder: PathBuf,
    /// The hash of this program.
    program: String,
    quiet: bool,
}

impl Stage {
    /// The subcommand of this name.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, words: Vec::new() }
    }

    /// An argument that counts by its text.
    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.words.push(Word::Text(text.into()));
        self
    }

    /// An option with a value, where there is one.
    pub(super) fn option(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.text(format!("{name}={}", value.to_string())),
            None => self,
        }
    }

    /// Arguments of which the result does not depend.
    pub(super) fn free(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.words.extend(words.into_iter().map(|word| Word::Free(word.into())));
        self
    }

    /// Something else that the result depends on.
    pub(super) fn counted(mut self, text: String) -> Self {
        self.words.push(Word::Counted(text));
        self
    }

    /// What an earlier stage made.
    pub(super) fn made(mut self, made: &Made) -> Self {
        self.words.push(Word::Input { path: made.path.clone(), content: made.key.clone() });
        self
    }

    /// A file or folder of the user's, which is read now.
    pub(super) fn input(mut self, path: &Path) -> Result<Self> {
        let content = if path.is_dir() {
            let mut hash = Hasher::default();
            for Measured { path, sha256, .. } in Measured::folder(path, &[])? {
                hash.update(format!("{path}\0{sha256}\n").as_bytes());
            }
            hash.finish()
        } else {
            file_hash(path)?
        };
        self.words.push(Word::Input { path: path.to_owned(), content });
        Ok(self)
    }

    /// The same, as an option's value, where there is one.
    pub(super) fn input_option(self, name: &str, path: Option<&Path>) -> Result<Self> {
        match path {
            Some(path) => self.text(name).input(path),
            None => Ok(self),
        }
    }

    /// Hash of the program, the subcommand, and all that its result depends on.
    fn key(&self, program: &str) -> String {
        let mut hash = Hasher::default();
        let mut add = |kind: u8, text: &str| {
            hash.update(&[kind]);
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        add(b'p', program);
        add(b's', self.name);
        for word in &self.words {
            match word {
                Word::Text(text) => add(b't', text),
                Word::Counted(text) => add(b'c', text),
                Word::Input { content, .. } => add(b'i', content),
                Word::Free(_) => {}
            }
        }
        hash.finish()
    }
}

impl Made {
    /// A file of the folder that was made.
    pub(super) fn file(&self, name: &str) -> Self {
        Self { path: self.path.join(name), ..self.clone() }
    }
}

impl Cache {
    /// The folder that was asked for, or the user's.
    pub(super) fn open(asked: Option<&Path>, quiet: bool) -> Result<Self> {
        let folder = match asked {
            Some(folder) => folder.to_owned(),
            None => own()?.join("edgetool/build"),
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Self { folder, program: file_hash(&program)?, quiet })
    }

    /// A small file of the cache, which counts by its content.
    pub(super) fn keep(&self, name: &str, text: &str) -> Result<PathBuf> {
        let hash = sha256(text.as_bytes())?;
        let path = self.folder.join(format!("{name}-{}", &hash[..DIGITS]));
        if !path.exists() {
            let staging = crate::staging::Staging::file(&path)?;
            fs::write(staging.path(), text).with_context(|| format!("cannot write `{}`", path.display()))?;
            staging.commit()?;
        }
        Ok(path)
    }

    /// Runs a stage, unless what it makes is there. `output` is the option that names its output, `ending` the ending
    /// of its name.
    pub(super) fn run(&self, stage: Stage, output: &str, ending: &str) -> Result<Made> {
        let key = stage.key(&self.program);
        let path = self.folder.join(format!("{}-{}{ending}", stage.name, &key[..DIGITS]));
        if path.exists() {
            self.say(format_args!("{:<9}  kept  {}", stage.name, path.display()));
            return Ok(Made { path, key, kept: true });
        }
        self.say(format_args!("{:<9}  made  {}", stage.name, path.display()));
        let mut words: Vec<OsString> = vec!["edgetool".into(), stage.name.into()];
        words.extend(stage.words.into_iter().filter_map(|word| match word {
            Word::Text(text) => Some(text.into()),
            Word::Input { path, .. } => Some(path.into()),
            Word::Free(word) => Some(word),
            Word::Counted(_) => None,
        }));
        words.extend([output.into(), path.clone().into()]);
        let args = Args::try_parse_from(words).with_context(|| format!("cannot call `{}`", stage.name))?;
        crate::commands::run(args)?;
        Ok(Made { path, key, kept: false })
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        if !self.quiet {
            report::say(line);
        }
    }
}

/// The user's cache: <https://specifications.freedesktop.org/basedir-spec/latest>.
fn own() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(named("HOME")?.join(".cache"));
    named("XDG_CACHE_HOME").or_else(home).ok_or_else(|| {
        report::with_hint("neither XDG_CACHE_HOME nor HOME names a folder for the cache", "name one with `--cache`")
    })
}

/// SHA-256 of a file.
pub(super) fn file_hash(path: &Path) -> Result<String> {
    let read = || format!("cannot read `{}`", path.display());
    sha256(fs::File::open(path).with_context(read)?).with_context(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_all_that_counts_and_on_nothing_else() {
        let made = |key: &str, path: &str| Made { path: path.into(), key: key.into(), kept: true };
        let base = || Stage::new("quantize").made(&made("a", "x")).option("--precision", Some("w8a16"));
        let key = base().key("program");
        assert_eq!(key, Stage::new("quantize").made(&made("a", "y")).text("--precision=w8a16").key("program"));
        assert_eq!(key, base().free(["--threads", "3"]).option("--number", None::<usize>).key("program"));
        let others = [
            base().key("other"),
            Stage::new("verify").made(&made("a", "x")).option("--precision", Some("w8a16")).key("program"),
            Stage::new("quantize").made(&made("b", "x")).option("--precision", Some("w8a16")).key("program"),
            base().text("--force").key("program"),
            Stage::new("quantize").made(&made("a", "x")).text("--precision").text("=w8a16").key("program"),
        ];
        assert!(others.iter().all(|other| *other != key));
    }

    #[test]
    fn inputs_count_by_their_content() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = |path: &Path| Stage::new("convert").input(path).expect("an input").key("");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&a, &b] {
            fs::create_dir(folder).expect("a folder");
            fs::write(folder.join("weights"), "1").expect("written");
        }
        assert_eq!(key(&a), key(&b));
        fs::write(b.join("weights"), "2").expect("written");
        assert_ne!(key(&a), key(&b));
        assert_ne!(key(&a), key(&a.join("weights")));
    }
}
