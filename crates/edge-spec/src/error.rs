//! What can be wrong with a file.

use std::path::PathBuf;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("`{}` is not a {what}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Its name cannot be in a bundle.
    #[error("`{name}` cannot be in a bundle: the name {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Names cannot be in one bundle.
    #[error("the files cannot be in one bundle: {reason}")]
    Names {
        /// What is wrong with them.
        reason: String,
    },
    /// It was changed while it was packed.
    #[error("`{name}` was changed while it was packed")]
    Changed {
        /// Its name in the bundle.
        name: String,
    },
}
