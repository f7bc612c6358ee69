//! `judge.json`: a classifier that reads pictures, and what its outputs mean.

use std::path::Path;

use serde::Deserialize;

use crate::SpecError;

/// The version of the description that is read.
pub const JUDGE_SCHEMA: &str = "judge/v1";

/// The description's file name.
pub const JUDGE_FILE: &str = "judge.json";

/// A classifier of pictures.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeSpec {
    /// Always [`JUDGE_SCHEMA`].
    pub schema: String,
    /// The ONNX file, beside the description. It takes one picture `[1, 3, height, width]` with values from 0 to 1 and
    /// gives, for each head, a row of logits under the head's name.
    pub model: String,
    /// What it reads, in the order of its outputs.
    pub heads: Vec<Head>,
    /// The heads that must all be right for a picture to count in the prompt accuracy.
    pub accuracy: Vec<String>,
}

/// One attribute of a picture.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The attribute's name.
    pub name: String,
    /// Its values, in the order of the logits.
    pub labels: Vec<String>,
}

impl JudgeSpec {
    /// Reads `folder/judge.json`.
    ///
    /// # Errors
    /// If it is not there, not of this schema, or names a head in `accuracy` that it does not have.
    pub fn open(folder: &Path) -> Result<Self, SpecError> {
        let path = folder.join(JUDGE_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| SpecError::Io { path: path.clone(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.clone(), what: "judge", reason };
        let spec: Self = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if spec.schema != JUDGE_SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {JUDGE_SCHEMA}", spec.schema)));
        }
        if let Some(name) = spec.accuracy.iter().find(|name| spec.heads.iter().all(|h| h.name != **name)) {
            return Err(invalid(format!("field `accuracy` names `{name}`, which is none of its heads")));
        }
        Ok(spec)
    }
}
