//! The arguments of `build`.

use std::path::PathBuf;

use clap::ArgAction;

use super::Compiler;

/// Make a bundle of a recipe: convert, quantize, verify, package, and compile if asked.
///
/// RECIPE is a YAML file that names a model and what it can bear. What each stage makes is kept in a cache, under a name
/// that its inputs, options and this program determine: a stage runs again only if one of them is another.
#[derive(Debug, clap::Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct Build {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    /// What to build for: a target that `edgetool targets` lists, or a YAML file; with a device behind a `/`
    #[arg(long, value_name = "TARGET[/DEVICE]")]
    pub(crate) target: String,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Put float forms of quantized graphs in, as `edgetool package` does
    #[arg(long)]
    pub(crate) with_float: bool,
    /// Compile the bundle as well, as `edgetool compile` does
    #[arg(long)]
    pub(crate) compile: bool,
    #[command(flatten)]
    pub(crate) compiler: Compiler,
    /// Sign the manifest with this minisign secret key, one without password
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_key: Option<PathBuf>,
    /// Where stages keep what they made [default: edgetool/build in the user's cache]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

const BUILD_EXAMPLES: &str = "Examples:
  edgetool build recipes/shapes.yaml --target qnn -o shapes-sm8650.zip
  edgetool build recipes/shapes.yaml --target qnn/sm8750 \\
      -o shapes-sm8750.zip";
