//! eval
use anyhow::Result;
pub(crate) fn eval(_: &crate::cli::Eval) -> Result<()> {
    Ok(())
}
