//! What an SDK computes in integers: the part `precision` of a target.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::target::Facts;

/// What a network can be quantized to for an SDK.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// What the SDK runs; the first is the default.
    pub schemes: Vec<Scheme>,
    /// Type of activations of 16 bits: unsigned with a zero point, or signed without.
    #[serde(default = "uint16")]
    pub activations_16: Integer,
    /// Type of activations of 8 bits.
    #[serde(default = "uint8")]
    pub activations_8: Integer,
    /// Inputs of a channel that share a scale, of 4-bit weights; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Whether layers between activations of 16 bits may have weights of 16 bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weights_16: bool,
    /// Biases.
    #[serde(default)]
    pub biases: Biases,
    /// Type of the second operand of a product of two activations of 16 bits; that of activations if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul_second_16: Option<Integer>,
    /// Type of the weights of depthwise convolutions between activations of 16 bits; as others' if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depthwise_16: Option<Integer>,
    /// Channels up to which a depthwise convolution between activations of 16 bits has a scale for each; one of more has one
    /// scale. All have one for each if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depthwise_scales_16: Option<u32>,
    /// Significant bits of the factors by which a layer's sums become integers of 16 bits again, one for each output channel;
    /// exact enough if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier_bits_16: Option<u32>,
    /// Types of the gains of norms, by operator; that of activations where one is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gains: BTreeMap<String, Integer>,
    /// What is otherwise on some devices. Of a target that was chosen for a device, these have been applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
}

/// A rule for devices of which some fact is below a number, as an architecture's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The fact's name in `devices`; its value is a whole number.
    pub fact: String,
    /// The number below which the rule holds.
    pub below: u64,
    /// In the place of [`Precision::weights_16`], if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_16: Option<bool>,
    /// In the place of [`Precision::matmul_second_16`], if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul_second_16: Option<Integer>,
    /// In the place of [`Precision::depthwise_16`], if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depthwise_16: Option<Integer>,
    /// In the place of [`Precision::depthwise_scales_16`], if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depthwise_scales_16: Option<u32>,
    /// In the place of [`Precision::multiplier_bits_16`], if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier_bits_16: Option<u32>,
    /// In the place of [`Precision::gains`] of the same operators.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gains: BTreeMap<String, Integer>,
}

/// Bits of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// 8-bit weights, 16-bit activations.
    W8a16,
    /// 8-bit weights and activations.
    W8a8,
    /// 4-bit weights, 16-bit activations.
    W4a16,
    /// 8-bit weights, activations in float.
    W8,
    /// Weights in float of 16 bits, and no integers.
    Fp16,
}

/// A type of integers that stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integer {
    /// Signed, 8 bits.
    Int8,
    /// Unsigned, 8 bits.
    Uint8,
    /// Signed, 16 bits.
    Int16,
    /// Unsigned, 16 bits.
    Uint16,
}

/// How biases are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Biases {
    /// As `int32`, whose scale is that of the input times that of the weights.
    #[default]
    Int32,
    /// As they are.
    Float,
}

impl Scheme {
    /// All, by name.
    const TABLE: &[(&str, Self)] =
        &[("w8a16", Self::W8a16), ("w8a8", Self::W8a8), ("w4a16", Self::W4a16), ("w8", Self::W8), ("fp16", Self::Fp16)];
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::TABLE.iter().map(|row| row.0).collect::<Vec<_>>().join(", ");
        let row = Self::TABLE.iter().find(|row| row.0 == text);
        row.map(|row| row.1).ok_or_else(|| format!("expected one of {}", names()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TABLE.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
}

impl Integer {
    /// The name, as numpy writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
        }
    }
}

impl Precision {
    /// The first of the numbers of bits that is none of a `float32`'s significand, 2 to 24.
    pub(crate) fn bad_bits(&self) -> Option<u32> {
        let all = self.exceptions.iter().filter_map(|e| e.multiplier_bits_16).chain(self.multiplier_bits_16);
        all.into_iter().find(|bits| !(2..=24).contains(bits))
    }

    /// What holds on a device of which these facts are known.
    #[must_use]
    pub fn on(&self, device: &Facts) -> Self {
        let mut precision = Self { exceptions: Vec::new(), ..self.clone() };
        let value = |fact: &str| device.get(fact).and_then(serde_json::Value::as_u64);
        for exception in self.exceptions.iter().filter(|e| value(&e.fact).is_some_and(|v| v < e.below)) {
            precision.weights_16 = exception.weights_16.unwrap_or(precision.weights_16);
            precision.matmul_second_16 = exception.matmul_second_16.or(precision.matmul_second_16);
            precision.depthwise_16 = exception.depthwise_16.or(precision.depthwise_16);
            precision.depthwise_scales_16 = exception.depthwise_scales_16.or(precision.depthwise_scales_16);
            precision.multiplier_bits_16 = exception.multiplier_bits_16.or(precision.multiplier_bits_16);
            precision.gains.extend(exception.gains.clone());
        }
        precision
    }
}

fn uint16() -> Integer {
    Integer::Uint16
}

fn uint8() -> Integer {
    Integer::Uint8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_read_as_they_are_written() {
        for (name, scheme) in Scheme::TABLE {
            assert_eq!(name.parse(), Ok(*scheme));
            assert_eq!(scheme.to_string(), *name);
            assert_eq!(serde_json::to_string(scheme).expect("text"), format!("\"{name}\""));
        }
        assert_eq!("w2".parse::<Scheme>(), Err("expected one of w8a16, w8a8, w4a16, w8, fp16".to_owned()));
    }
}
