//! The files that edgetool writes and reads beside the graphs: their schemas, and nothing else.

mod manifest;
pub mod target;

pub use manifest::{
    Approximation, Component, Lowering, MANIFEST_FILE, Manifest, ManifestError, PassRun, Pipeline, Port, SCHEMA, sha256,
};
pub use target::{Target, TargetError};
