//! The arguments of `verify`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{Judging, Sampling};

/// Say whether a model does what another does.
///
/// Both draw the same prompts on the same noise. What their components hand on is compared in the order of use, so that
/// the first check that fails names the component at fault. The answer is the exit code: 0 for pass, 1 for fail. The
/// report is written beside the candidate's manifest, or into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    /// The model to judge: a converted folder, a bundle, or a checkpoint
    #[arg(value_name = "CANDIDATE")]
    pub(crate) candidate: PathBuf,
    /// What it has to be like: a checkpoint, a converted folder, a bundle, or a safetensors file of golden values
    /// [default: the recipe's model]
    #[arg(long, value_name = "REFERENCE", required_unless_present = "recipe")]
    pub(crate) against: Option<PathBuf>,
    /// The recipe: its model, prompts, judge, sampling and tolerances are used where the arguments say nothing
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Prompts, one a line; two after each other are drawn on the same noise [default: four built-in ones]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Use the first prompts only
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<std::num::NonZero<usize>>,
    /// Seed of the first two pictures' noise; each further two have the next seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Compare prompt accuracies too, by this judge: a folder with `judge.json`
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) judge: Option<PathBuf>,
    /// YAML file with limits to use in the place of the built-in ones
    #[arg(long, value_name = "FILE")]
    pub(crate) thresholds: Option<PathBuf>,
    /// Compare every layer as well, and name the first that is at fault
    #[arg(long)]
    pub(crate) bisect: bool,
    /// Show what these modules or operators in float would gain, as `conv_out,attn2`; can be given several times
    #[arg(long, value_name = "LAYERS")]
    pub(crate) float: Vec<String>,
    /// Ask this executor too
    #[arg(long, value_enum, default_value_t = Executor::Builtin)]
    pub(crate) executor: Executor,
    /// The library of ONNX Runtime [default: that in `ORT_DYLIB_PATH`, else that of python3]
    #[arg(long, value_name = "FILE", requires = "executor")]
    pub(crate) ort_lib: Option<PathBuf>,
    /// Compute what the reference makes, whether it is known from before or not, and do not keep it
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Write the report into this folder [default: beside the candidate's manifest]
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) report: Option<PathBuf>,
    /// Replace the report's folder if it is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) how: Judging,
}

/// What runs the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// The one in this program
    Builtin,
    /// ONNX Runtime as well, from a library that is installed; the two are compared
    Onnxruntime,
}

const VERIFY_EXAMPLES: &str = "Examples:
  edgetool verify edgefusion-onnx --against tests/fixtures/edgefusion
  edgetool verify edgefusion-qnn --against tests/fixtures/edgefusion \\
      --bisect --report report";
