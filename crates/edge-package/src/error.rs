//! Why a model is not packed.

use std::path::PathBuf;

/// What keeps a model from being packed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The target's facts are not what its emitter reads.
    #[error("target `{target}`: {place}: {reason}")]
    Facts {
        /// The target.
        target: String,
        /// `options`, or the device.
        place: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// No emitter of this name is there.
    #[error("target `{target}`: {}", emitter_is(emitter.as_deref(), known))]
    Emitter {
        /// The target.
        target: String,
        /// The name, if the target names one.
        emitter: Option<String>,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A device is needed and not there.
    #[error("target `{target}` has no devices, and its emitter needs to know one")]
    NoDevice {
        /// The target.
        target: String,
    },
    /// The model's folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file's name is not text.
    #[error("`{}` has a name that is not UTF-8", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
}

fn emitter_is(name: Option<&str>, known: &[&str]) -> String {
    let known = known.join(", ");
    match name {
        Some(name) => format!("field `emitter` is `{name}`, expected one of {known}"),
        None => format!("field `emitter` is absent, expected one of {known}"),
    }
}

/// Why a report does not let a model pass.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The model was verified and is not good enough.
    #[error("the model failed its verification")]
    Failed,
    /// A file is not what was measured.
    #[error("`{path}` was changed after it was verified: the SHA-256 is {found}, the report's {expected}")]
    Changed {
        /// Its path in the model's folder.
        path: String,
        /// The report's SHA-256.
        expected: String,
        /// The file's.
        found: String,
    },
    /// A measured file is gone.
    #[error("`{path}` was verified and is not there")]
    Missing {
        /// Its path in the model's folder.
        path: String,
    },
    /// A file of the graphs was not measured.
    #[error("`{path}` was not verified: the report does not list it")]
    Unmeasured {
        /// Its path in the model's folder.
        path: String,
    },
}
