//! The files that edgetool writes and reads beside the graphs: their schemas, and nothing else.

pub mod bundle;
mod error;
mod fold;
mod judge;
mod manifest;
mod precision;
mod prompts;
mod report;
pub mod target;
mod tolerance;

pub use error::SpecError;
pub use fold::{Fold, FoldClip, FoldForm, FoldGuidance, FoldStep, GuidanceBy, ImageLayout, Place};
pub use judge::{Head, JUDGE_FILE, JUDGE_SCHEMA, JudgeSpec};
pub use manifest::{
    Approximation, Component, Hasher, Lowering, MANIFEST_FILE, Manifest, PassRun, Pipeline, Port, Quantization,
    Repaired, SCHEMA, sha256,
};
pub use precision::{Biases, Integer, Precision, Scheme};
pub use prompts::Prompt;
pub use report::{
    Check, Comparison, Layer, Measured, Part, PictureComparison, Profile, PromptRun, REPORT_FILE, REPORT_SCHEMA,
    Report, Run, Verdict,
};
pub use target::{Target, TargetError};
pub use tolerance::{TOLERANCES_SCHEMA, Tolerance, Tolerances};
