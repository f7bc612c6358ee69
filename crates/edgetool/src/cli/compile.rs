//! The arguments of `compile`.

use std::path::PathBuf;

use clap::ArgAction;

use super::Format;

/// Compile a bundle for its device, with the vendor's compiler.
///
/// The graphs of a bundle for QNN become context binaries, through ONNX Runtime's QNN provider in a Python that has
/// `onnxruntime`, `onnxruntime-qnn` and `numpy`; Qualcomm's emulator then runs the golden inputs. Both are put into the
/// bundle. The answer is no if a node is refused, computes in floating point without being asked to, or an output is
/// too far off.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPILE_EXAMPLES)]
pub(crate) struct Compile {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// The bundle to write [default: BUNDLE itself]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compiler: Compiler,
    /// Sign the new manifest with this minisign secret key, one without password
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_key: Option<PathBuf>,
    /// Leave a bundle that was signed without a signature
    #[arg(long, conflicts_with = "secret_key")]
    pub(crate) drop_signature: bool,
    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Say nothing but the result and errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// How to compile.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Compiler {
    /// The Python that has the compiler's packages [default: python3 or python of the PATH]
    #[arg(long, value_name = "PROGRAM", help_heading = COMPILING)]
    pub(crate) python: Option<PathBuf>,
    /// Folder with another libQnnHtp.so, as the QAIRT SDK has it in lib/x86_64-linux-clang [default: the package's]
    #[arg(long, value_name = "FOLDER", help_heading = COMPILING)]
    pub(crate) qnn_lib: Option<PathBuf>,
    /// Compile the UNet's steps into one binary with their weights once, which the emulator cannot load
    #[arg(long, help_heading = COMPILING)]
    pub(crate) share_weights: bool,
    /// Operators of a graph that may compute in floating point without being asked to
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = COMPILING)]
    pub(crate) allow_float: usize,
    /// Do not run the emulator
    #[arg(long, help_heading = COMPILING)]
    pub(crate) no_emulator: bool,
}

/// The heading of options for a vendor's compiler.
const COMPILING: &str = "Compiling";

const COMPILE_EXAMPLES: &str = "Examples:
  edgetool compile edgefusion-sm8750.zip --python .venv/bin/python
  edgetool compile edgefusion-sm8750.zip --share-weights -o compiled.zip";
