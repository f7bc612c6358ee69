//! The arguments of `sensitivity`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};
use edge_quant::rounding::Rounding;
use edge_spec::{ActivationType, Scheme, WeightType};

/// Find which layers need more bits, and write a precision plan for `quantize --plan`.
///
/// Each layer of MODEL is quantized alone, and pictures are drawn: the error of the denoised latents is measured and, for
/// layers that carry the text, that of the picture and of the prompt's influence. Then wider types are given to layers in
/// the order in which they pay, as far as the budget goes, or as long as the plan is not good enough.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sensitivity {
    /// The folder that `convert --target` wrote
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// The plan to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Prompts to draw, one a line
    #[arg(short, long, value_name = "FILE")]
    pub(crate) calibration: PathBuf,
    /// Draw the first prompts only [default: 8]
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<NonZero<usize>>,
    /// Look what layers read, and what values tensors take, in the first N prompts [default: 4 times as many as are drawn]
    #[arg(long, value_name = "N")]
    pub(crate) seen: Option<NonZero<usize>>,
    /// Draw more prompts for whole plans than for single layers: the first N
    #[arg(long, value_name = "N")]
    pub(crate) check: Option<NonZero<usize>>,
    /// What values the tensors take: a file that `calibrate` wrote for MODEL [default: what the prompts show]
    #[arg(long, value_name = "FILE")]
    pub(crate) statistics: Option<PathBuf>,
    /// How weights become integers, as in `quantize` [default: gptq]
    #[arg(long, value_name = "METHOD")]
    pub(crate) rounding: Option<Rounding>,
    /// The target that MODEL was converted for [default: that in its edgetool.json]
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// The scheme to begin with: w4a16, w8a16, w8a8 or w8 [default: the first of the target]
    #[arg(long, value_name = "SCHEME")]
    pub(crate) precision: Option<Scheme>,
    /// Choose for this network; can be given several times [default: the UNets]
    #[arg(long, value_name = "COMPONENT")]
    pub(crate) component: Vec<String>,
    /// Choose for the parts in this module alone, as `up_blocks.2` or `attn2`; can be given several times [default: all]
    #[arg(long, value_name = "PART")]
    pub(crate) only: Vec<String>,
    /// Types of weights to choose from, as int4,int8,float16 [default: those of the scheme and the next wider]
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub(crate) weights: Vec<WeightType>,
    /// Types of activations to choose from, as uint8,uint16,float [default: uint8,uint16 in w8a8]
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub(crate) activations: Vec<ActivationType>,
    /// What the plan may take: bytes of weights and activations (900KiB, 2MiB), estimated time (8ms, 900us), or times of
    /// what the scheme takes (1.2x) [default: 1.1x, no limit where the plan is to reach something]
    #[arg(long, value_name = "SIZE")]
    pub(crate) budget: Option<Budget>,
    /// What wider types are weighed against
    #[arg(long, value_enum, default_value_t = By::Bytes)]
    pub(crate) by: By,
    /// Go on until the denoised latents have this ratio of signal to error, in dB
    #[arg(long, value_name = "DB")]
    pub(crate) sqnr: Option<f64>,
    /// Go on until no two prompts' influence deviates by more, in percent
    #[arg(long, value_name = "PERCENT")]
    pub(crate) conditioning: Option<f64>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but errors and warnings
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

const EXAMPLES: &str = "Examples:
  edgetool sensitivity edgefusion-qnn --precision w4a16 --only conv_out \\
      --calibration recipes/shapes/prompts/calibration.txt --number 2 \\
      -o w4a16.yaml
  edgetool sensitivity edgefusion-qnn --precision w8a8 --only down_blocks.0 \\
      --calibration recipes/shapes/prompts/calibration.txt --number 2 \\
      --budget 1.5x -o w8a8.yaml";

/// What types cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Bytes of weights, and of activations that a run writes
    Bytes,
    /// Time that the target's figures let a run take: an estimate
    Time,
}

/// What a plan may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// Bytes.
    Bytes(u64),
    /// Picoseconds.
    Time(u64),
    /// Times of what the scheme takes.
    Times(f64),
}

impl std::str::FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KIB: f64 = 1024.0;
        type Kind = fn(u64) -> Budget;
        const UNITS: &[(&str, f64, Kind)] = &[
            ("KiB", KIB, Budget::Bytes),
            ("MiB", KIB * KIB, Budget::Bytes),
            ("GiB", KIB * KIB * KIB, Budget::Bytes),
            ("us", 1e6, Budget::Time),
            ("ms", 1e9, Budget::Time),
        ];
        let expected = || {
            "expected a size, as 900KiB, 2.5MiB or 123456, a time, as 8ms or 900us, or a multiple, as 1.2x".to_owned()
        };
        let number =
            |digits: &str| digits.parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0).ok_or_else(expected);
        if let Some(times) = text.strip_suffix('x') {
            return Ok(Self::Times(number(times)?));
        }
        let unit = UNITS.iter().find_map(|(unit, size, kind)| Some((text.strip_suffix(unit)?, size, kind)));
        let (digits, size, kind) = unit.unwrap_or((text, &1.0, &(Budget::Bytes as Kind)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
        Ok(kind((number(digits)? * size) as u64))
    }
}
