//! The subcommands, one file each.

mod convert;
mod eval;
mod inspect;
mod model;
mod run;

use anyhow::Result;

use crate::cli::{Args, Command};

/// Runs the subcommand that was asked for.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Convert(args) => convert::convert(&args),
        Command::Run(args) => run::run(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Inspect(args) => inspect::inspect(&args),
    }
}
