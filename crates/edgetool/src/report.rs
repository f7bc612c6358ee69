//! Everything that is said: talk goes to stderr, data to stdout.
#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use edge_import::Error as ImportError;
use indicatif::{ProgressBar, ProgressStyle};

/// One line of talk.
pub(crate) fn say(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

/// Something that may be wrong.
pub(crate) fn warn(line: impl std::fmt::Display) {
    eprintln!("warning: {line}");
}

/// A result, for whoever reads stdout.
pub(crate) fn data(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // A reader who has seen enough closes the pipe: that is no error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to the standard output"),
    }
}

/// What went wrong, what caused it, and what to do.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if text != said {
            eprintln!("  caused by: {text}");
        }
        said = text;
    }
    if let Some(hint) = hint(error) {
        eprintln!("\nhint: {hint}");
    }
}

/// Shows what is being done, on a terminal only.
pub(crate) fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet || std::env::var_os("CI").is_some() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// What to do about an error, where there is something.
fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(hint) = error.downcast_ref::<Hint>() {
        return Some(hint.1.clone());
    }
    if let Some(no) = error.chain().find_map(|cause| cause.downcast_ref::<No>()) {
        return no.1.clone();
    }
    error.chain().find_map(|cause| match cause.downcast_ref::<ImportError>()? {
        ImportError::NotFound { what, .. } if what.contains("model_index.json") => {
            Some("name the folder that diffusers' `save_pretrained` wrote: it holds `model_index.json`, `unet/`, `vae/`, ...".into())
        }
        ImportError::Tensors { .. } => Some("are the weights and `config.json` from the same model?".into()),
        ImportError::Safetensors { .. } => Some("copy or download the file again".into()),
        ImportError::Size { factor, found, .. } => {
            let (below, above) = (found / factor * factor, (found / factor + 1) * factor);
            Some(match below {
                0 => format!("{above} is the smallest size"),
                _ => format!("{below} is the nearest size below, {above} the nearest above"),
            })
        }
        _ => None,
    })
}

/// An error with advice.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) String, pub(crate) String);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hint {}

/// An answer: the work was done, and the result is no; with advice, where there is some.
#[derive(Debug)]
struct No(String, Option<String>);

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for No {}

/// The answer no, for this reason, with this advice.
pub(crate) fn no(reason: impl Into<String>, hint: Option<String>) -> anyhow::Error {
    No(reason.into(), hint).into()
}

/// Whether an error is an answer.
pub(crate) fn is_no(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<No>().is_some())
}

/// An error with this text and this advice.
pub(crate) fn with_hint(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hint(text.into(), hint.into()).into()
}
