//! `cargo xtask ci`: every check that needs Rust alone. `.ci/run` calls it and adds those that need Python.

use anyhow::Result;

use crate::steps::cargo;
use crate::{test, tidy};

/// Runs all checks, the quick ones first.
pub(crate) fn run(_: &[String]) -> Result<()> {
    cargo("fmt --all -- --check", &[])?;
    tidy::run()?;
    cargo("clippy --release --locked --workspace --all-targets -- -D warnings", &[])?;
    test::run(&[])?;
    cargo("doc --release --locked --workspace --no-deps", &[("RUSTDOCFLAGS", "-D warnings")])
}
