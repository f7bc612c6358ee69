//! The subcommands, one file each.

mod beside;
mod build;
mod bundle;
mod calibrate;
mod compile;
mod convert;
mod copies;
mod diff;
mod eval;
mod evaluate;
mod fit;
mod floats;
mod fold;
mod golden;
mod inspect;
mod lower;
mod model;
mod package;
mod plan;
mod quantize;
mod recorded;
mod repair;
mod run;
mod sampling;
mod schedule;
mod sensitivity;
mod targets;
mod verify;

use std::sync::Once;

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
        Command::Sensitivity(args) => sensitivity::sensitivity(&args),
        Command::Calibrate(args) => calibrate::calibrate(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Targets(args) => targets::targets(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Package(args) => package::package(&args),
        Command::Compile(args) => compile::compile(&args),
        Command::Build(args) => build::build(&args),
        Command::Bundle(args) => bundle::bundle(&args),
    }
}

/// Uses this many threads, or one per core. The first call counts: a build's stages run in one process.
fn set_threads(asked: Option<usize>) -> Result<()> {
    static DONE: Once = Once::new();
    let mut result = Ok(());
    DONE.call_once(|| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        result = edge_run::set_threads(asked.unwrap_or(cores).max(1));
    });
    Ok(result?)
}
