//! What commands are made of: headings, and calls of cargo in the workspace.
#![expect(clippy::print_stderr, reason = "this is the one place of xtask that prints")]

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The folder of the workspace, as cargo says at run time: checkouts that share a target directory share this program.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into()));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Announces a step.
pub(crate) fn heading(text: impl Display) {
    eprintln!("\n== {text}");
}

/// A line of talk.
pub(crate) fn say(line: impl Display) {
    eprintln!("{line}");
}

/// Runs cargo in the workspace, under a heading that says how to do the same by hand.
pub(crate) fn cargo(args: &str, environment: &[(&str, &str)]) -> Result<()> {
    let settings: Vec<String> = environment.iter().map(|(key, value)| format!("{key}=\"{value}\" ")).collect();
    heading(format!("{}cargo {args}", settings.concat()));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args.split_whitespace()).envs(environment.iter().copied()).current_dir(root());
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {args}` failed");
    Ok(())
}
