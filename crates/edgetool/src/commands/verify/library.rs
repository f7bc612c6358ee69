//! Where the user's ONNX Runtime is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use edge_onnxruntime::{Library, OLDEST};

use crate::report;

/// Prints the folder of the package `onnxruntime` without loading it.
const ASK: &str = "import importlib.util as u; s = u.find_spec('onnxruntime'); \
                   print(s.submodule_search_locations[0] if s else '')";

/// Loads the library that is named, or in `ORT_DYLIB_PATH`, or that `python3` would use.
pub(super) fn load(given: Option<&Path>) -> Result<Library> {
    let named = || std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = given.map(Path::to_owned).or_else(named).or_else(of_python);
    let hint = format!("name the library with `--ort-lib`, or `pip install 'onnxruntime>=1.{OLDEST}'` for python3");
    let Some(path) = path else {
        let text = "no ONNX Runtime was found: `--ort-lib` and ORT_DYLIB_PATH name none, and python3 has no package \
                    `onnxruntime`";
        return Err(report::with_hint(text, hint));
    };
    Library::load(&path).map_err(|error| report::with_hint(error.to_string(), hint))
}

/// The library in the package that `python3` imports.
fn of_python() -> Option<PathBuf> {
    let asked = Command::new("python3").args(["-c", ASK]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    let folder = Path::new(text.trim()).join("capi");
    let files = std::fs::read_dir(folder).ok()?.filter_map(|file| Some(file.ok()?.path()));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = name.strip_prefix("libonnxruntime.").unwrap_or_default();
        rest.starts_with("so") || rest.split('.').next_back() == Some("dylib")
    };
    files.filter(is_library).min()
}
