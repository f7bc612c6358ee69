//! The errors of this crate.

use std::path::PathBuf;

/// What can go wrong with a graph, its weights or its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A node's inputs or attributes do not fit its operator.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// What does not fit.
        reason: String,
    },
    /// A rule of the checker is broken; its number is that of the list in `check.rs`.
    #[error("graph `{graph}` breaks rule {rule}: {reason}")]
    Rule {
        /// The graph's name.
        graph: String,
        /// The number of the rule.
        rule: u8,
        /// What was expected and what was found.
        reason: String,
    },
    /// The bytes are not an ONNX model, or not one that edgetool reads.
    #[error("cannot read `{}` as ONNX: {reason}", path.display())]
    Onnx {
        /// The model file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The graph cannot be written as asked.
    #[error("cannot write `{}`: {reason}", path.display())]
    Write {
        /// The model file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Io`] closure for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
