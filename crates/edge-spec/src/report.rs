//! `report.json`: what was verified, and what came of it.

use serde::{Deserialize, Serialize};

/// The report's file name.
pub const REPORT_FILE: &str = "report.json";

/// The version of the report that is written, and the only one that is read.
pub const REPORT_SCHEMA: &str = "report/v1";

/// The result of `edgetool verify`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Always [`REPORT_SCHEMA`].
    pub schema: String,
    /// Name and version of the program that wrote it.
    pub producer: String,
    /// Whether all is as good as it has to be.
    pub verdict: Verdict,
    /// The candidate's files as they were measured: the manifest, all graphs, all weights; sorted by path.
    pub measured: Vec<Measured>,
}

/// A yes or a no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is good enough.
    Pass,
    /// It is not.
    Fail,
}

/// A file that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Path from the candidate's folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}
