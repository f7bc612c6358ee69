//! The user's Python: which one has the compiler's packages, and scripts that it runs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::report;

/// The names that a Python goes by.
const NAMES: &[&str] = &["python3", "python"];
/// Says which packages there are: modules that can be found, with the versions of what brought them.
const PROBE: &str = r#"
import importlib.metadata, importlib.util, json
def version(module, package):
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
wanted = ["onnxruntime", "onnxruntime-qnn", "numpy"]
print(json.dumps([[name, version(name.replace("-", "_"), name)] for name in wanted]))
"#;
/// The most of a script's log that is kept.
const LOG: usize = 8 << 20;

/// A Python with the packages.
#[derive(Debug)]
pub(super) struct Python {
    program: PathBuf,
    /// Folder of the vendor's library, if not the package's.
    library: Option<PathBuf>,
    /// The packages with their versions, as `onnxruntime 1.32.0`.
    pub(super) packages: Vec<String>,
}

/// What the probe prints: packages with their versions.
type Probed = Vec<(String, Option<String>)>;

/// How a script ended.
pub(super) struct Ended {
    /// What killed it, if it was killed.
    pub(super) signal: Option<i32>,
    /// Whether it said that all is well.
    pub(super) success: bool,
    /// What it wrote to its standard error.
    pub(super) log: String,
}

impl Python {
    /// The one that was asked for, or the first that has the packages.
    pub(super) fn find(asked: Option<&Path>, library: Option<&Path>) -> Result<Self> {
        if let Some(folder) = library {
            let file = folder.join("libQnnHtp.so");
            anyhow::ensure!(file.is_file(), "`--qnn-lib`: `{}` is not there", file.display());
        }
        let candidates: Vec<PathBuf> = match asked {
            Some(program) => vec![program.to_owned()],
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let mut problems = Vec::new();
        for program in candidates {
            match probe(&program) {
                Ok(probed) => {
                    let lacking: Vec<&str> =
                        probed.iter().filter(|(_, v)| v.is_none()).map(|(name, _)| name.as_str()).collect();
                    if lacking.is_empty() {
                        let shown = |(name, version): &(String, Option<String>)| {
                            format!("{name} {}", version.as_deref().unwrap_or_default())
                        };
                        let packages = probed.iter().map(shown).collect();
                        // Scripts run in another folder. Links stay: a virtual environment's program is one.
                        let is_path = program.components().count() > 1;
                        let program = if is_path { std::path::absolute(&program)? } else { program };
                        let library = library.map(std::path::absolute).transpose()?;
                        return Ok(Self { program, library, packages });
                    }
                    problems.push(format!("`{}` lacks {}", program.display(), lacking.join(", ")));
                }
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        let text = format!("no Python with the compiler's packages was found: {}", problems.join("; "));
        let hint = "make one: `python3 -m venv .venv`, `.venv/bin/pip install onnxruntime onnxruntime-qnn numpy`, and name \
                    it with `--python .venv/bin/python`";
        Err(report::with_hint(text, hint))
    }

    /// Runs a script of the folder, which gives its lines to `line` as they come.
    pub(super) fn run(
        &self,
        folder: &Path,
        script: &str,
        arguments: &[&str],
        line: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Ended> {
        let cannot = || format!("cannot run `{}`", self.program.display());
        let mut command = Command::new(&self.program);
        command.arg(script).args(arguments).current_dir(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(library) = &self.library {
            command.env("QNN_LIB", library);
        }
        // Scripts of a bundle that is being made leave nothing beside themselves.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.spawn().with_context(cannot)?;
        let error = child.stderr.take().context("a script has a standard error")?;
        let log = std::thread::spawn(move || read_log(error));
        let output = child.stdout.take().context("a script has a standard output")?;
        for text in BufReader::new(output).lines() {
            line(&text.with_context(cannot)?)?;
        }
        let status = child.wait().with_context(cannot)?;
        let log = log.join().unwrap_or_default();
        Ok(Ended { signal: status.signal(), success: status.success(), log })
    }
}

fn probe(program: &Path) -> Result<Probed> {
    let output = Command::new(program).args(["-c", PROBE]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("`{}` cannot be run", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it said nothing");
    let answer = serde_json::from_str(text.lines().last().unwrap_or_default()).ok();
    answer.with_context(|| format!("`{}` is no Python 3 that answers: {last}", program.display()))
}

/// The beginning of what is written, as text; the rest is read and forgotten, so that the writer does not wait.
fn read_log(reader: impl Read) -> String {
    let mut reader = BufReader::new(reader);
    let mut kept = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
        if kept.len() < LOG {
            kept.extend_from_slice(&line);
        }
        line.clear();
    }
    String::from_utf8_lossy(&kept).into_owned()
}
