//! `cargo xtask test`: the Rust tests of all crates, with the fixtures of this repository and nothing else.

use anyhow::Result;

use crate::steps::cargo;

/// Runs all tests.
///
/// The whole workspace, so that its dependencies are compiled with the features that other commands use; in release
/// mode, because the tests run networks.
pub(crate) fn run(_: &[String]) -> Result<()> {
    cargo("test --release --workspace", &[])
}
