//! The `edgetool` program: arguments become calls, results become messages.

mod cli;
mod commands;
mod layout;
mod report;
mod staging;

use std::process::ExitCode;

use clap::Parser;

/// Exit code when edgetool could not do its work.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    let result = staging::install_interrupt_handler().and_then(|()| commands::run(args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::from(FAILED)
        }
    }
}
