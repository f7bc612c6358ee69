//! How fast an SDK's devices are thought to be: the part `speed` of a target.

use serde::{Deserialize, Serialize};

/// What estimates of time follow from. They are for comparing forms of a network, and no promise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// Products of 8 bits with 8 bits, in thousand millions a second.
    pub gmacs_per_s: f64,
    /// Bytes of weights and activations that move, in thousand millions a second.
    pub gb_per_s: f64,
    /// How many times as long other products take.
    pub times: Times,
}

/// How long a product takes, in times of one of 8 bits with 8 bits. Weights of 4 bits count as 8.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// 8 bits with 16 bits.
    pub w8a16: f64,
    /// 16 bits with 16 bits.
    pub w16a16: f64,
    /// Float of 16 bits.
    pub float: f64,
}

impl Speed {
    /// Why the figures cannot be, if they cannot.
    pub(crate) fn wrong(&self) -> Option<String> {
        let Self { gmacs_per_s, gb_per_s, times: Times { w8a16, w16a16, float } } = *self;
        let rows = [
            ("gmacs_per_s", gmacs_per_s),
            ("gb_per_s", gb_per_s),
            ("times.w8a16", w8a16),
            ("times.w16a16", w16a16),
            ("times.float", float),
        ];
        let (field, value) = rows.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0))?;
        Some(format!("field `speed.{field}` is {value}, expected a number above 0"))
    }
}
