//! The subcommands, one file each.

mod bundle;
mod calibrate;
mod convert;
mod diff;
mod eval;
mod evaluate;
mod fold;
mod golden;
mod inspect;
mod lower;
mod model;
mod package;
mod plan;
mod quantize;
mod repair;
mod run;
mod sampling;
mod schedule;
mod targets;
mod verify;

use anyhow::Result;

use crate::cli::{Args, Command};

/// Runs the subcommand that was asked for.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Convert(args) => convert::convert(&args),
        Command::Run(args) => run::run(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Evaluate(args) => evaluate::evaluate(&args),
        Command::Quantize(args) => quantize::quantize(&args),
        Command::Calibrate(args) => calibrate::calibrate(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Targets(args) => targets::targets(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Package(args) => package::package(&args),
        Command::Bundle(args) => bundle::bundle(&args),
    }
}

/// Uses this many threads, or one per core.
fn set_threads(asked: Option<usize>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(edge_run::set_threads(asked.unwrap_or(cores).max(1))?)
}
