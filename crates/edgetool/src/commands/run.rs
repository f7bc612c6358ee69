//! run
use anyhow::Result;
pub(crate) fn run(_: &crate::cli::Run) -> Result<()> {
    Ok(())
}
