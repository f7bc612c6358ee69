//! The arguments of `quantize` and `calibrate`.

use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};
use edge_quant::calibration::{Method, Shard};
use edge_quant::encodings::Version;
use edge_quant::rounding::Rounding;
use edge_spec::Scheme;

use super::Sampling;

/// Turn a converted model into one that computes in integers.
///
/// MODEL is a folder that `convert --target` wrote, with the sampler folded in. Its UNet is quantized; the other networks
/// stay as they are. What values activations take is seen while MODEL draws the prompts of `--calibration`, or stands in
/// `--statistics`.
#[derive(Debug, clap::Args)]
#[command(after_help = QUANTIZE_EXAMPLES)]
pub(crate) struct Quantize {
    /// The folder to quantize
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The folder to write
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// The target that MODEL was converted for [default: that in its edgetool.json]
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// Bits of weights and activations: w8a16, w8a8, w4a16, w8 or fp16 [default: the first of the target]
    #[arg(long, value_name = "SCHEME")]
    pub(crate) precision: Option<Scheme>,
    /// What single layers have instead: a precision plan, as `sensitivity` writes them
    #[arg(long, value_name = "FILE", conflicts_with = "precision")]
    pub(crate) plan: Option<PathBuf>,
    /// Inputs of a channel that share a scale of weights of 4 bits: 32, 64 or 128; 3x3 convolutions have one a channel
    /// [default: as the target has it]
    #[arg(long, value_name = "N", value_parser = block)]
    pub(crate) block: Option<usize>,
    /// Quantize this network; can be given several times [default: the UNets]
    #[arg(long, value_name = "COMPONENT")]
    pub(crate) component: Vec<String>,
    /// What becomes of the other networks
    #[arg(long, value_enum, default_value_t = Others::Keep)]
    pub(crate) others: Others,
    /// What values the tensors take: a file that `calibrate` wrote for MODEL
    #[arg(long, value_name = "FILE")]
    pub(crate) statistics: Option<PathBuf>,
    /// Draw these prompts, one a line, to see what values the tensors take; `calibrate` does it in parts. Or a safetensors
    /// file with inputs of the networks, named COMPONENT/INPUT, samples along the first axis
    #[arg(short, long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Draw the first prompts only
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<std::num::NonZero<usize>>,
    /// How ranges of activations are chosen: min-max, mse or percentile:P [default: min-max, mse for 8 bits]
    #[arg(long, value_name = "METHOD")]
    pub(crate) ranges: Option<Method>,
    /// How much further than what was seen ranges of 16 bits go on either side, in per cent of what was seen [default: 25]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) headroom: Option<f32>,
    /// How weights become integers: min-max, nearest, sequential-mse or gptq; the last two need --calibration [default:
    /// gptq with --calibration, else nearest]
    #[arg(long, value_name = "METHOD")]
    pub(crate) rounding: Option<Rounding>,
    /// What is done to the float network before; all but none need --calibration; can be given several times [default: bias
    /// with --calibration, else none]
    #[arg(long, value_enum, value_name = "REPAIR")]
    pub(crate) repair: Vec<Repair>,
    /// Write the repaired network in float, for an SDK that quantizes it itself, with weights rounded to the nearest
    #[arg(long, requires = "calibration", requires = "precision", conflicts_with = "encodings")]
    pub(crate) export_float: bool,
    /// Give this module or operator activations of 16 bits in w8a8, as `attn2` or `Mul`; can be given several times, and
    /// counts after the rules of `--plan`
    #[arg(long, value_name = "PART")]
    pub(crate) fine: Vec<String>,
    /// Give this module or operator weights of 8 bits in w4a16, as `attn2`; can be given several times, and counts after the
    /// rules of `--plan`
    #[arg(long, value_name = "PART")]
    pub(crate) wide: Vec<String>,
    /// Draw these prompts, the first 16 or --number, and fit two factors of each scheduler's step to what the quantized UNet
    /// makes of them
    #[arg(long, value_name = "FILE")]
    pub(crate) fit_scheduler: Option<PathBuf>,
    /// Write the encodings as AIMET does, for tools that quantize MODEL themselves: 0.6.1, 1.0.0 or 2.0.0; can be given
    /// several times
    #[arg(long, value_name = "VERSION")]
    pub(crate) encodings: Vec<Version>,
    /// Make files that stay as they are hard links to those of MODEL, not copies
    #[arg(long)]
    pub(crate) link: bool,
    /// Replace the output folder if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

const QUANTIZE_EXAMPLES: &str = "Examples:
  edgetool quantize edgefusion-qnn --precision w8 -o edgefusion-w8
  edgetool quantize edgefusion-qnn --calibration \\
      recipes/shapes/prompts/calibration.txt --number 4 -o edgefusion-w8a16";

/// What is done to a float network, so that integers cost it less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Repair {
    /// It stays as it is
    None,
    /// Channels of activations are made alike: factors move from norms to the weights behind them
    Smooth,
    /// Biases give back what rounded weights take from the mean of outputs
    Bias,
}

/// What becomes of networks that are not quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Others {
    /// They stay as they are
    Keep,
    /// Their weights are stored in 16 bits of float
    Fp16,
}

/// How far ranges may go further than what was seen, in per cent of it.
fn percent(text: &str) -> Result<f32, String> {
    const MOST: f32 = 100.0;
    let fits = text.parse().ok().filter(|percent| (0.0..=MOST).contains(percent));
    fits.ok_or_else(|| format!("expected per cent from 0 to {MOST}, got `{text}`"))
}

/// A number of inputs that share a scale.
fn block(text: &str) -> Result<usize, String> {
    let known = [32, 64, 128];
    text.parse().ok().filter(|n| known.contains(n)).ok_or_else(|| "expected one of 32, 64, 128".to_owned())
}

/// Record what values the tensors of a model take while it draws.
///
/// A picture is drawn for each prompt, each with a seed of its own. What is kept of a tensor are extremes and a
/// histogram. Parts of the prompts can be drawn by different machines: `--merge` makes of their files, byte for byte, the
/// file of one run.
#[derive(Debug, clap::Args)]
#[command(after_help = CALIBRATE_EXAMPLES)]
pub(crate) struct Calibrate {
    /// The model to run
    #[arg(value_name = "MODEL", required_unless_present = "merge")]
    pub(crate) model: Option<PathBuf>,
    /// Prompts, one a line; what stands after a tab is not read. Or a safetensors file with inputs of the networks, named
    /// COMPONENT/INPUT, samples along the first axis
    #[arg(short, long, value_name = "FILE", required_unless_present = "merge")]
    pub(crate) prompts: Option<PathBuf>,
    /// The statistics file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Use the first prompts only
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<std::num::NonZero<usize>>,
    /// Seed of the first prompt's noise; each further one has the next seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Draw the I-th of N parts of the prompts
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub(crate) shard: Shard,
    /// Join the files of all parts instead of drawing
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["model", "prompts", "number", "seed", "shard", "component", "onto", "with", "steps", "guidance", "decoder", "scheduler", "config", "threads"])]
    pub(crate) merge: Vec<PathBuf>,
    /// Look at this component alone; can be given several times
    #[arg(long, value_name = "COMPONENT")]
    pub(crate) component: Vec<String>,
    /// Take from this statistics file of the same run what is not looked at now
    #[arg(long, value_name = "FILE", requires = "component", conflicts_with = "shard")]
    pub(crate) onto: Option<PathBuf>,
    /// Let networks read what those before them give in this quantized form of MODEL, as on the device
    #[arg(long, value_name = "FOLDER")]
    pub(crate) with: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Diffusers folder with the configurations and the tokenizer, for a single file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but errors and warnings
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

const CALIBRATE_EXAMPLES: &str = "Examples:
  edgetool calibrate recipes/shapes/model -o shapes.calibration \\
      --prompts recipes/shapes/prompts/calibration.txt --number 8
  edgetool calibrate edgefusion-onnx -o part-1.calibration --shard 1/4 \\
      --prompts recipes/shapes/prompts/calibration.txt --number 8";
