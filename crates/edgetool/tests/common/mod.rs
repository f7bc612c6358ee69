//! What the tests of the program share: a folder to run it in, tensors, pictures.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod compiler;
pub(crate) mod pipeline;
pub(crate) mod tensors;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// The program under test.
pub(crate) const EDGETOOL: &str = env!("CARGO_BIN_EXE_edgetool");

/// The prompt of the golden pipelines.
pub(crate) const PROMPT: &str = "a photo of a cat";

/// File names below a folder, and their content.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// The committed checkpoints.
pub(crate) fn fixtures() -> PathBuf {
    workspace().join("tests/fixtures")
}

/// The model in the repository that draws what it is asked for.
pub(crate) fn shapes() -> PathBuf {
    workspace().join("recipes/shapes")
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a crate is in crates/")
}

/// A temporary folder in which the program runs. `tests/fixtures` and `recipes` are there as in the workspace, so that
/// paths in arguments and messages are the same everywhere.
pub(crate) struct Sandbox(TempDir, TempDir);

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("tests")).expect("a folder");
        for name in ["tests/fixtures", "recipes"] {
            std::os::unix::fs::symlink(workspace().join(name), dir.path().join(name)).expect("a link");
        }
        Self(dir, tempfile::tempdir().expect("a temporary folder"))
    }

    /// A path below the folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder of what the program keeps for the next time.
    pub(crate) fn cache(&self) -> &Path {
        self.1.path()
    }

    /// A command that runs here.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_remove("RAYON_NUM_THREADS").env("COLUMNS", "110").env("XDG_CACHE_HOME", self.cache());
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::new(self.command(EDGETOOL, args).output().expect("the program starts"))
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "edgetool {}\n{}", args.join(" "), ran.stderr);
        ran
    }

    /// Runs the program, which must fail with code 2, say exactly `stderr`, and change no file.
    #[track_caller]
    pub(crate) fn refuses(&self, args: &[&str], stderr: &str) {
        assert_eq!(self.refusal(args), stderr, "edgetool {}", args.join(" "));
    }

    /// What the program says when it fails with code 2 and changes no file.
    #[track_caller]
    pub(crate) fn refusal(&self, args: &[&str]) -> String {
        let before = self.names();
        let ran = self.run(args);
        assert_eq!(ran.code, Some(2), "edgetool {}\n{}", args.join(" "), ran.stderr);
        assert_eq!(ran.stdout, "", "edgetool {}", args.join(" "));
        assert_eq!(self.names(), before, "edgetool {}", args.join(" "));
        ran.stderr
    }

    /// Copies a fixture's checkpoint, without its golden values.
    pub(crate) fn copy(&self, fixture: &str, to: &str) {
        copy_folder(&fixtures().join(fixture), &self.path(to));
    }

    /// Converts `source` into the folder `to` with further options.
    #[track_caller]
    pub(crate) fn convert(&self, source: &str, to: &str, options: &[&str]) -> Ran {
        self.ok(&[&["convert", source, "-o", to], options].concat())
    }

    /// Runs one graph on `inputs`.
    #[track_caller]
    pub(crate) fn eval(&self, model: &str, inputs: &tensors::Tensors) -> tensors::Tensors {
        tensors::write(&self.path("eval-in.safetensors"), inputs);
        self.ok(&["eval", model, "-i", "eval-in.safetensors", "-o", "eval-out.safetensors"]);
        tensors::read(&self.path("eval-out.safetensors"))
    }

    /// Changes one JSON file.
    pub(crate) fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path(file);
        let mut fields = serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("an object");
        edit(&mut fields);
        fs::write(path, serde_json::to_string(&fields).expect("text")).expect("written");
    }

    /// Changes the tensors of one file.
    pub(crate) fn edit_tensors(&self, file: &str, edit: impl FnOnce(&mut tensors::Tensors)) {
        let mut content = tensors::read(&self.path(file));
        edit(&mut content);
        tensors::write(&self.path(file), &content);
    }

    /// Names of all files here, with their sizes; links are not followed.
    pub(crate) fn names(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        walk(self.0.path(), "", &mut |name, path| {
            found.push((name.to_owned(), path.symlink_metadata().map_or(0, |m| if m.is_dir() { 0 } else { m.len() })));
        });
        found
    }

    /// What a test has made here: the names at the top, sorted, without those that each sandbox begins with.
    pub(crate) fn made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the sandbox");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut found: Vec<_> = names.filter(|name| !["tests", "recipes"].contains(&name.as_str())).collect();
        found.sort();
        found
    }

    /// All files of a folder, with their content.
    pub(crate) fn tree(&self, folder: &str) -> Tree {
        let mut found = Tree::new();
        walk(&self.path(folder), "", &mut |name, path| {
            if path.is_file() {
                found.insert(name.to_owned(), fs::read(path).expect("a file"));
            }
        });
        assert!(!found.is_empty(), "`{folder}` has no files");
        found
    }
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Fails with the names of the files that differ.
#[track_caller]
pub(crate) fn assert_same_trees(a: &Tree, b: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    let different: Vec<_> = a.iter().filter(|(name, content)| b.get(*name) != Some(content)).map(|(n, _)| n).collect();
    assert!(different.is_empty(), "these files differ: {different:?}");
}

/// A PNG file: pixels and texts.
pub(crate) struct Png {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
    pub(crate) texts: BTreeMap<String, String>,
}

/// Reads a PNG file.
pub(crate) fn read_png(path: &Path) -> Png {
    let file = BufReader::new(File::open(path).expect("a picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG header");
    let mut rgb = vec![0; reader.output_buffer_size().expect("a small picture")];
    reader.next_frame(&mut rgb).expect("pixels");
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone()));
    let wide = info.utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().expect("text")));
    Png { width: info.width, height: info.height, rgb, texts: plain.chain(wide).collect() }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else if !name.starts_with("golden") && name != "single_file.safetensors" {
            fs::write(to.join(name), fs::read(&path).expect("a file")).expect("a copy");
        }
    }
}

/// Visits everything below a folder, in order, links as themselves.
fn walk(folder: &Path, prefix: &str, visit: &mut dyn FnMut(&str, &Path)) {
    let mut paths: Vec<_> = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = format!("{prefix}{}", path.file_name().expect("a name").to_string_lossy());
        visit(&name, &path);
        if path.is_dir() && !path.is_symlink() {
            walk(&path, &format!("{name}/"), visit);
        }
    }
}
