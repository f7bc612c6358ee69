//! The command line.

mod build;
mod compile;
mod package;
mod quantize;
mod sensitivity;
mod verify;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use edge_passes::StopAfter;

pub(crate) use build::Build;
pub(crate) use compile::{Compile, Compiler};
pub(crate) use package::{Bundle, BundleAction, Package, THIS_PROGRAM};
pub(crate) use quantize::{Calibrate, Others, Quantize, Repair};
pub(crate) use sensitivity::{Budget, By, Sensitivity};
pub(crate) use verify::{Executor, Verify};

/// Turns a trained Stable-Diffusion-shaped model into something an NPU runs.
///
/// A checkpoint is converted to ONNX without Python, at the speed of a file copy, and draws pictures on the built-in
/// runner, numerically as diffusers does.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Convert(Convert),
    Run(Run),
    Evaluate(Evaluate),
    Calibrate(Calibrate),
    Quantize(Quantize),
    Sensitivity(Sensitivity),
    Inspect(Inspect),
    Eval(Eval),
    Targets(Targets),
    Verify(Verify),
    Package(Package),
    Compile(Compile),
    Build(Build),
    Bundle(Bundle),
}

/// Convert a checkpoint to ONNX.
///
/// CHECKPOINT is a diffusers folder, an entry of the Hugging Face cache, or an original-layout .safetensors file. The
/// output has a folder per network with `model.onnx` in it, the tokenizer and the scheduler, as Optimum lays them out.
#[derive(Debug, clap::Args)]
#[command(after_help = CONVERT_EXAMPLES)]
pub(crate) struct Convert {
    /// The trained model
    #[arg(value_name = "CHECKPOINT")]
    pub(crate) source: PathBuf,
    /// The folder to write
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Diffusers folder with the configurations and the tokenizer, for a single file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// ONNX opset [default: the target's, or 17]
    #[arg(long, value_parser = parse_opset)]
    pub(crate) opset: Option<u32>,
    /// Image height in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) height: Option<usize>,
    /// Image width in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) width: Option<usize>,
    /// Images per run
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64), value_name = "N")]
    pub(crate) batch: usize,
    /// Where the weights go
    #[arg(long, value_enum, default_value_t = Weights::Copy)]
    pub(crate) weights: Weights,
    /// Type of the weights; arithmetic is in float32 either way
    #[arg(long, value_enum, default_value_t = Dtype::Stored)]
    pub(crate) dtype: Dtype,
    /// Shape of the UNet's timestep input
    #[arg(long, value_enum, default_value_t = Timestep::Shared)]
    pub(crate) timestep: Timestep,
    /// Put the sampler into the graphs, for a fixed number of steps
    #[arg(long, value_enum, default_value_t = Fold::None, value_name = "FORM", help_heading = FOLDING)]
    pub(crate) fold: Fold,
    /// Sampling steps that are folded [default: 2]
    #[arg(long, value_name = "N", help_heading = FOLDING)]
    pub(crate) steps: Option<usize>,
    /// Guidance scale that is folded, or `input` to leave it an input [default: 8 with a guidance embedding, 1 without]
    #[arg(long, value_name = "W", value_parser = parse_guidance, allow_negative_numbers = true, help_heading = FOLDING)]
    pub(crate) guidance: Option<FoldedGuidance>,
    /// How a UNet without guidance embedding answers to prompt and negative prompt [default: calls]
    #[arg(long, value_enum, value_name = "HOW", help_heading = FOLDING)]
    pub(crate) branches: Option<Branches>,
    /// Who does the scheduler's step [default: graph]
    #[arg(long, value_enum, value_name = "WHO", help_heading = FOLDING)]
    pub(crate) scheduler_step: Option<SchedulerStep>,
    /// Fold LCM whatever scheduler the checkpoint names
    #[arg(long, value_enum, help_heading = FOLDING)]
    pub(crate) scheduler: Option<Scheduler>,
    /// Layout of the picture that a folded decoder gives [default: nchw]
    #[arg(long, value_enum, value_name = "LAYOUT", help_heading = FOLDING)]
    pub(crate) image: Option<Image>,
    /// Which decoder ends the pipeline of `--fold pipeline` [default: vae]
    #[arg(long, value_enum, help_heading = FOLDING)]
    pub(crate) decoder: Option<Decoder>,
    /// Compute keys and values of the cross-attentions in the text encoder, once for a prompt
    #[arg(long, help_heading = FOLDING)]
    pub(crate) hoist_kv: bool,
    /// Replace the output folder if it is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Write the graphs in the form that this target takes: one that `edgetool targets` lists, or a YAML file
    #[arg(long, value_name = "TARGET", help_heading = LOWERING)]
    pub(crate) target: Option<String>,
    /// Stop after this pass, and in it after N rewrites, to find the one that breaks a model
    #[arg(long, value_name = "PASS[:N]", requires = "target", value_parser = parse_stop, help_heading = LOWERING)]
    pub(crate) stop_after: Option<StopAfter>,
    /// Print every graph after this pass
    #[arg(long, value_name = "PASS", requires = "target", help_heading = LOWERING)]
    pub(crate) dump_after: Option<String>,
}

/// The heading of options that fold the sampler.
const FOLDING: &str = "Folding the sampler";
/// The heading of options that rewrite the graphs for a target.
const LOWERING: &str = "For a target";

const CONVERT_EXAMPLES: &str = "Examples:
  edgetool convert tests/fixtures/edgefusion -o edgefusion-onnx
  edgetool convert tests/fixtures/edgefusion -o edgefusion-qnn \\
      --target qnn --fold per-step --dtype float32";

/// How the steps lie in the graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fold {
    /// Not at all: the UNet takes the timestep
    None,
    /// One UNet with tables, and the input `step`
    Table,
    /// A UNet for each step, with one weight file
    PerStep,
    /// All steps in one graph, `sampler`
    Unrolled,
    /// Token ids and noise to picture in one graph, `pipeline`
    Pipeline,
}

/// The guidance scale to fold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FoldedGuidance {
    /// An input of the graphs.
    Input,
    /// A constant.
    Scale(f32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Branches {
    /// The UNet is in the graph twice, with one copy of the weights
    Calls,
    /// The UNet runs on twice the images
    Batch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchedulerStep {
    /// The graph
    Graph,
    /// Whoever runs it, with the coefficients in edgetool.json
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Image {
    /// float32, 0 to 1, one colour after the other
    Nchw,
    /// float32, 0 to 1, the colours of a pixel together
    Nhwc,
    /// uint8, one colour after the other
    NchwU8,
    /// uint8, the colours of a pixel together
    NhwcU8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// In one file beside each model
    Copy,
    /// In the checkpoint's own files, hard-linked beside the models: nothing is copied (the onnx package's checker
    /// refuses such files; runtimes read them)
    Link,
    /// In the model files; less than 2 GiB each
    Inline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// As in the checkpoint, followed by a Cast where that is 16 bits
    Stored,
    /// Converted to float32
    Float32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Timestep {
    /// One for all images
    Shared,
    /// One for each image
    PerImage,
}

/// Draw a picture.
///
/// MODEL is a converted folder, a bundle or a checkpoint. The same seed gives the same picture as diffusers does on a CPU.
#[derive(Debug, clap::Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    /// The model to run
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// What to draw
    #[arg(short, long)]
    pub(crate) prompt: String,
    /// What not to draw, for models without a guidance embedding
    #[arg(long, default_value = "")]
    pub(crate) negative_prompt: String,
    /// The PNG file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Size of the picture [default: the model's]
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    pub(crate) size: Option<(usize, usize)>,
    /// Diffusers folder with the configurations and the tokenizer, for a single file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// Noise from a file with the keys `latent` and `noise` instead of from the seed
    #[arg(long, value_name = "FILE")]
    pub(crate) latents: Option<PathBuf>,
    /// Write every intermediate tensor to this safetensors file
    #[arg(long, value_name = "FILE")]
    pub(crate) save_tensors: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// How to sample.
#[derive(Debug, clap::Args)]
pub(crate) struct Sampling {
    /// Sampling steps [default: those folded in, else 2]
    #[arg(long)]
    pub(crate) steps: Option<usize>,
    /// Guidance scale [default: that folded in, else 8 with a guidance embedding, 1 without]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub(crate) guidance: Option<f32>,
    /// Which decoder makes the picture [default: that folded in, else vae]
    #[arg(long, value_enum)]
    pub(crate) decoder: Option<Decoder>,
    /// Sample with LCM whatever scheduler the checkpoint names
    #[arg(long, value_enum)]
    pub(crate) scheduler: Option<Scheduler>,
}

const RUN_EXAMPLES: &str = "Examples:
  edgetool run tests/fixtures/edgefusion --prompt \"a photo of a cat\" -o cat.png
  edgetool run edgefusion-onnx --prompt \"a photo of a cat\" \\
      --steps 4 --seed 7 -o cat.png";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Decoder {
    /// The autoencoder that the model was trained with
    Vae,
    /// The tiny autoencoder (TAESD) beside it
    Taesd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheduler {
    /// The latent consistency sampler
    Lcm,
}

/// Measure how often pictures show what their prompts ask for.
///
/// A picture is drawn for each prompt of a file, each with a seed of its own, and a judge, a classifier of pictures,
/// reads it. The prompt accuracy is the share of pictures on which everything is right that the judge's description
/// counts.
#[derive(Debug, clap::Args)]
#[command(after_help = EVALUATE_EXAMPLES)]
pub(crate) struct Evaluate {
    /// The model to run
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Prompts, one a line: the prompt, a tab, attribute=value; attribute=value
    #[arg(short, long, value_name = "FILE")]
    pub(crate) prompts: PathBuf,
    /// The judge: a folder with `judge.json` and the ONNX file that it names
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) judge: PathBuf,
    /// Seed of the first picture's noise; each further one has the next seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Use the first prompts only
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<std::num::NonZero<usize>>,
    /// Write the pictures and `evaluation.json`, what the judge read on each, into this folder
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output folder if it is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) how: Judging,
}

/// How pictures are drawn to be judged, and the result is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Judging {
    /// Diffusers folder with the configurations and the tokenizer, for a single file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// How to show the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Say nothing but the result and errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

const EVALUATE_EXAMPLES: &str = "Examples:
  edgetool evaluate recipes/shapes/model --judge recipes/shapes/judge \\
      --prompts recipes/shapes/prompts/evaluation.txt
  edgetool evaluate recipes/shapes/model --judge recipes/shapes/judge \\
      --prompts recipes/shapes/prompts/evaluation.txt --limit 20 -o pictures";

/// Show what a model contains and costs.
///
/// PATH is a checkpoint, a converted folder, a bundle, or one .onnx file.
#[derive(Debug, clap::Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(crate) struct Inspect {
    /// What to look at
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Diffusers folder with the configurations and the tokenizer, for a single file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) config: Option<PathBuf>,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Show every node instead of the counts
    #[arg(long)]
    pub(crate) nodes: bool,
    /// Show what is different from this path: what a pass or a target changed
    #[arg(long, value_name = "BEFORE", conflicts_with = "nodes")]
    pub(crate) diff: Option<PathBuf>,
}

const INSPECT_EXAMPLES: &str = "Examples:
  edgetool inspect tests/fixtures/edgefusion --format json
  edgetool inspect --diff edgefusion-onnx edgefusion-qnn";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: one object with a `schema` field
    Json,
}

/// List the targets that models are converted for.
///
/// A target says what an SDK takes: its operators, and the form of the graphs that suits it.
#[derive(Debug, clap::Args)]
#[command(after_help = TARGETS_EXAMPLES)]
pub(crate) struct Targets {
    /// Show this one: a name, or a YAML file, which is checked
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

const TARGETS_EXAMPLES: &str = "Examples:
  edgetool targets qnn
  edgetool targets --format json";

/// Run one graph on given tensors.
#[derive(Debug, clap::Args)]
#[command(after_help = EVAL_EXAMPLES)]
pub(crate) struct Eval {
    /// The .onnx file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// A safetensors file with a tensor for each input, under the input's name
    #[arg(short, long, value_name = "FILE")]
    pub(crate) inputs: PathBuf,
    /// The safetensors file to write the outputs to
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Run this many times; with `--format json` the times are shown
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000), value_name = "N")]
    pub(crate) repeat: usize,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// How to show the times
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

const EVAL_EXAMPLES: &str = "Examples:
  edgetool eval edgefusion-onnx/text_encoder/model.onnx \\
      -i ids.safetensors -o hidden.safetensors
  edgetool eval edgefusion-onnx/text_encoder/model.onnx \\
      -i ids.safetensors -o hidden.safetensors --repeat 5 --format json";

fn parse_opset(text: &str) -> Result<u32, String> {
    let known = edge_ir::onnx::OPSETS.iter().map(|(opset, _)| *opset);
    let opset = text.parse::<u32>().ok().filter(|o| known.clone().any(|k| k == *o));
    opset.ok_or_else(|| format!("expected one of {:?}", known.collect::<Vec<_>>()))
}

fn parse_guidance(text: &str) -> Result<FoldedGuidance, String> {
    if text == "input" {
        return Ok(FoldedGuidance::Input);
    }
    let scale = text.parse::<f32>().ok().filter(|scale| scale.is_finite());
    scale.map(FoldedGuidance::Scale).ok_or_else(|| "expected a number, or `input`".to_owned())
}

fn parse_stop(text: &str) -> Result<StopAfter, String> {
    let (pass, rewrites) = text.split_once(':').map_or((text, None), |(pass, n)| (pass, Some(n)));
    let number = |n: &str| n.parse().map_err(|_| format!("expected a number of rewrites after `:`, got `{n}`"));
    Ok(StopAfter { pass: pass.to_owned(), rewrites: rewrites.map(number).transpose()? })
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
    sides.ok_or_else(|| "expected height and width in pixels, as in 512x768".to_owned())
}
