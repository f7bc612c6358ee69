//! The interval of values that integers stand for.

use serde::{Deserialize, Serialize};

/// An interval of finite values. `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least value.
    pub min: f32,
    /// The greatest value.
    pub max: f32,
}
