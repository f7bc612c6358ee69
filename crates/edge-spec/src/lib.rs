//! The files that edgetool writes and reads beside the graphs: their schemas, and nothing else.

mod error;
mod judge;
mod manifest;
mod prompts;

pub use error::SpecError;
pub use judge::{Head, JUDGE_FILE, JUDGE_SCHEMA, JudgeSpec};
pub use manifest::{Component, MANIFEST_FILE, Manifest, Pipeline, Port, SCHEMA, sha256};
pub use prompts::Prompt;
