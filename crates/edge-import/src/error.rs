//! The errors of this crate.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What can be wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that must be there is not.
    #[error("`{}` {what}", path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
        /// What it is, and what was expected.
        what: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A JSON file is not JSON, or not an object.
    #[error("cannot read `{}`: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A configuration asks for something that is not implemented.
    #[error("`{}`: field `{field}` is {found}, supported: {supported}", path.display())]
    Field {
        /// The configuration file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What would do.
        supported: String,
    },
    /// A weight file is damaged.
    #[error("`{}` is not a sound safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// Tensors are missing, left over, or of the wrong shape or type.
    #[error("`{}` does not fit {component}'s configuration:{}", path.display(), list(problems))]
    Tensors {
        /// The component.
        component: String,
        /// The weight file or its folder.
        path: PathBuf,
        /// What is wrong, a tensor each.
        problems: Vec<TensorProblem>,
    },
    /// The size asked for cannot be drawn.
    #[error("{what} {found} is not a positive multiple of {factor}")]
    Size {
        /// `height` or `width`.
        what: &'static str,
        /// Pixels asked for.
        found: usize,
        /// Pixels per latent element.
        factor: usize,
    },
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] edge_ir::Error),
}

/// What is wrong with one tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorProblem {
    /// It is not in the file.
    Missing {
        /// Its name.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// It is in the file and nothing reads it.
    Extra {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// It has another shape than the configuration asks for.
    Shape {
        /// Its name.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// It has an element type that weights cannot have.
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
}

impl Error {
    /// An [`Error::Field`].
    pub(crate) fn field(path: &Path, field: &str, found: impl std::fmt::Display, supported: impl Into<String>) -> Self {
        Self::Field {
            path: path.to_owned(),
            field: field.to_owned(),
            found: found.to_string(),
            supported: supported.into(),
        }
    }

    /// An [`Error::NotFound`].
    pub(crate) fn not_found(path: &Path, what: impl Into<String>) -> Self {
        Self::NotFound { path: path.to_owned(), what: what.into() }
    }
}

impl std::fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { name, expected } => write!(f, "missing `{name}` {expected:?}"),
            Self::Extra { name, found } => write!(f, "left over `{name}` {found:?}"),
            Self::Shape { name, expected, found } => write!(f, "`{name}` has shape {found:?}, expected {expected:?}"),
            Self::Type { name, found } => write!(f, "`{name}` has type {found}, expected F32, F16 or BF16"),
        }
    }
}

/// The first problems and how many more there are.
fn list(problems: &[TensorProblem]) -> String {
    const SHOWN: usize = 8;
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {problem}");
    }
    if problems.len() > SHOWN {
        let _ = write!(text, "\n  and {} more", problems.len() - SHOWN);
    }
    text
}
