//! The `edgetool` program: arguments become calls, results become messages.

mod cli;
mod commands;
mod layout;
mod report;
mod staging;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Tensors come and go by the hundred megabytes: big pages, and no haste to give them back to the system, are worth as
/// much as fast kernels. jemalloc reads this as its `malloc_conf`, a pointer to text that ends in NUL.
#[expect(unsafe_code, reason = "jemalloc finds its settings by the name of a symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 60] = b"thp:always,metadata_thp:auto,dirty_decay_ms:10000,narenas:2\0";

/// Exit code when the answer is no.
const NO: u8 = 1;
/// Exit code when edgetool could not do its work.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    let result = staging::install_interrupt_handler().and_then(|()| commands::run(args));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            ExitCode::from(if report::is_no(&error) { NO } else { FAILED })
        }
    }
}
