//! The files that edgetool writes and reads beside the graphs: their schemas, and nothing else.

mod fold;
mod manifest;
pub mod target;

pub use fold::{Fold, FoldClip, FoldForm, FoldGuidance, FoldStep, GuidanceBy, ImageLayout, Place};
pub use manifest::{Component, MANIFEST_FILE, Manifest, ManifestError, Pipeline, Port, SCHEMA, sha256};
pub use target::{Target, TargetError};
