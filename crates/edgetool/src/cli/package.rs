//! The arguments of `package` and `bundle`.

use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};

use super::{Compiler, Format, Sampling};

/// Pack a verified model for an NPU SDK, into one file.
///
/// MODEL is a converted folder. The bundle holds it with its verification report, the files that the SDK wants, a golden
/// run to check a device with, and a README with the commands. A model that is not verified, failed, or was changed
/// since is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = PACKAGE_EXAMPLES)]
pub(crate) struct Package {
    /// The model to pack
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// What to pack it for: a target that `edgetool targets` lists, or a YAML file; with a device behind a `/`
    #[arg(long, value_name = "TARGET[/DEVICE]")]
    pub(crate) target: String,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The verification report [default: report.json in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// The prompt of the golden run
    #[arg(long, default_value = "a photo of a cat")]
    pub(crate) prompt: String,
    /// Seed of the golden run's noise; each further example has the next seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Prompts, one a line, whose runs are examples for SDKs that choose ranges themselves [default: the golden run]
    #[arg(long, value_name = "FILE")]
    pub(crate) examples: Option<PathBuf>,
    /// Put float forms of quantized graphs in, with AIMET's encodings, for SDKs that quantize by them (`qairt-converter`)
    #[arg(long)]
    pub(crate) with_float: bool,
    /// Put the edgetool executable in, or this one, which was built for the device
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = THIS_PROGRAM)]
    pub(crate) with_runner: Option<PathBuf>,
    /// Sign the manifest with this minisign secret key, one without password
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_key: Option<PathBuf>,
    /// Compile the bundle as well, as `edgetool compile` does
    #[arg(long)]
    pub(crate) compile: bool,
    #[command(flatten)]
    pub(crate) compiler: Compiler,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// Stands for the program's own file where `--with-runner` names none; as a folder, it can be no other.
pub(crate) const THIS_PROGRAM: &str = ".";

const PACKAGE_EXAMPLES: &str = "Examples:
  edgetool package edgefusion-qnn --target qnn/sm8750 \\
      --report report/report.json -o edgefusion-sm8750.zip
  edgetool package edgefusion-onnx --target onnxruntime \\
      --prompt \"a red heart\" -o edgefusion.zip";

/// Look into a bundle, trusting nothing in it.
///
/// `list` shows the files, `check` compares each with the manifest, `extract` does so while it writes them.
#[derive(Debug, clap::Args)]
#[command(after_help = BUNDLE_EXAMPLES)]
pub(crate) struct Bundle {
    /// What to do
    #[arg(value_enum, value_name = "ACTION")]
    pub(crate) action: BundleAction,
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub(crate) path: PathBuf,
    /// The folder to extract to
    #[arg(short, long, value_name = "FOLDER", required_if_eq("action", "extract"))]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output folder if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// The bundle must be signed by this minisign public key: a file, or the key's own text
    #[arg(long, value_name = "KEY")]
    pub(crate) public_key: Option<String>,
    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleAction {
    /// Show the files
    List,
    /// Compare every file with the manifest
    Check,
    /// Write the files into a folder
    Extract,
}

const BUNDLE_EXAMPLES: &str = "Examples:
  edgetool bundle check edgefusion-sm8750.zip
  edgetool bundle extract edgefusion-sm8750.zip -o bundle";
