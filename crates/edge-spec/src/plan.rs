//! A precision plan: which layers of a network are quantized to what, in a file that a person can read and edit.

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Precision, Scheme, SpecError};

/// The version of a plan that is read and written.
pub const PLAN_SCHEMA: &str = "precision-plan/v1";

/// A scheme, and the layers that differ from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecisionPlan {
    /// Always [`PLAN_SCHEMA`].
    pub schema: String,
    /// What a layer has that no rule names.
    pub scheme: Scheme,
    /// The exceptions. Of several that name a layer the last one counts, for weights and activations apart.
    #[serde(default)]
    pub rules: Vec<PrecisionRule>,
}

/// What some layers have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecisionRule {
    /// An operator, as `Add`; a module by its path or a piece of it, as `up_blocks.2` or `attn2`; a module without those
    /// in it, as `up_blocks.2.resnets.0/`; or a node, as `up_blocks.2.resnets.0/Add`.
    pub of: String,
    /// Type of weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightType>,
    /// Type of activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<ActivationType>,
}

/// How the weights of a layer are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// Integers of 4 bits.
    Int4,
    /// Integers of 8 bits.
    Int8,
    /// Integers of 16 bits.
    Int16,
    /// Float of 16 bits: the layer computes in float.
    Float16,
    /// As they are: the layer computes in float.
    Float,
}

/// How a layer's activations are stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationType {
    /// Signed, 8 bits.
    Int8,
    /// Unsigned, 8 bits.
    Uint8,
    /// Signed, 16 bits.
    Int16,
    /// Unsigned, 16 bits.
    Uint16,
    /// Not at all.
    Float,
}

impl PrecisionPlan {
    /// A plan without exceptions.
    pub fn new(scheme: Scheme) -> Self {
        Self { schema: PLAN_SCHEMA.to_owned(), scheme, rules: Vec::new() }
    }

    /// Reads a YAML file.
    ///
    /// # Errors
    /// If it cannot be read, is of another schema, has unknown keys or types, or a rule says nothing or contradicts
    /// itself.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "precision plan", reason };
        let plan: Self = serde_yaml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if plan.schema != PLAN_SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {PLAN_SCHEMA}", plan.schema)));
        }
        plan.rules.iter().try_for_each(sound).map_err(invalid)?;
        Ok(plan)
    }

    /// The plan's file, with a comment behind each rule and lines of comment before all.
    pub fn text(&self, about: &[String], comments: &[String]) -> String {
        let mut text = String::new();
        let mut line = |words: fmt::Arguments<'_>| {
            let _ = writeln!(text, "{words}");
        };
        for words in about {
            line(format_args!("# {words}"));
        }
        line(format_args!("schema: {}\nscheme: {}", self.schema, self.scheme));
        if !self.rules.is_empty() {
            line(format_args!("rules:"));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            match comments.get(index).filter(|words| !words.is_empty()) {
                Some(words) => line(format_args!("  - {rule}  # {words}")),
                None => line(format_args!("  - {rule}")),
            }
        }
        text
    }
}

/// A rule says something, and no contradiction.
fn sound(rule: &PrecisionRule) -> Result<(), String> {
    let PrecisionRule { of, weights, activations } = rule;
    if of.trim().is_empty() {
        return Err("a rule has an empty `of`, expected a module or an operator".to_owned());
    }
    match (weights, activations) {
        (None, None) => Err(format!("the rule of `{of}` has neither `weights` nor `activations`")),
        (Some(weights), Some(activations)) if weights.is_float() && *activations != ActivationType::Float => Err(
            format!("the rule of `{of}` has weights in {weights}, with which activations are float, not {activations}"),
        ),
        _ => Ok(()),
    }
}

impl Precision {
    /// The types of weights that a plan for this target may name.
    pub fn weight_types(&self) -> Vec<WeightType> {
        let has = |schemes: &[Scheme]| self.schemes.iter().any(|s| schemes.contains(s));
        let rows = [
            (WeightType::Int4, has(&[Scheme::W4a16])),
            (WeightType::Int8, has(&[Scheme::W8a16, Scheme::W8a8, Scheme::W8, Scheme::W4a16])),
            (WeightType::Int16, self.weights_16),
            (WeightType::Float16, has(FLOAT)),
            (WeightType::Float, has(FLOAT)),
        ];
        rows.into_iter().filter(|row| row.1).map(|row| row.0).collect()
    }

    /// The types of activations that a plan for this target may name.
    pub fn activation_types(&self) -> Vec<ActivationType> {
        let has = |schemes: &[Scheme]| self.schemes.iter().any(|s| schemes.contains(s));
        let rows = [
            (self.activations_8.into(), has(&[Scheme::W8a8])),
            (self.activations_16.into(), has(&[Scheme::W8a16, Scheme::W4a16, Scheme::W8a8])),
            (ActivationType::Float, has(FLOAT)),
        ];
        rows.into_iter().filter(|row| row.1).map(|row| row.0).collect()
    }

    /// What is wrong with a rule for this target, named `target`, if something is.
    pub fn refuses(&self, target: &str, rule: &PrecisionRule) -> Option<String> {
        let refuse = |what: &str, name: &dyn fmt::Display, known: Vec<String>| {
            let PrecisionRule { of, .. } = rule;
            format!(
                "target `{target}` has no {what} of {name}, which the rule of `{of}` asks for: it has {}",
                known.join(", ")
            )
        };
        let weights = rule.weights.filter(|ty| !self.weight_types().contains(ty));
        let activations = rule.activations.filter(|ty| !self.activation_types().contains(ty));
        match (weights, activations) {
            (Some(ty), _) => Some(refuse("weights", &ty, names(&self.weight_types()))),
            (None, Some(ty)) => Some(refuse("activations", &ty, names(&self.activation_types()))),
            (None, None) => None,
        }
    }
}

/// Schemes that leave something in float.
const FLOAT: &[Scheme] = &[Scheme::W8, Scheme::Fp16];

fn names<T: fmt::Display>(types: &[T]) -> Vec<String> {
    types.iter().map(ToString::to_string).collect()
}

impl WeightType {
    const TABLE: &[(&str, Self)] = &[
        ("int4", Self::Int4),
        ("int8", Self::Int8),
        ("int16", Self::Int16),
        ("float16", Self::Float16),
        ("float", Self::Float),
    ];

    /// Whether a layer with such weights computes in float.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::Float)
    }

    /// Bits of a weight.
    pub fn bits(self) -> u64 {
        match self {
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Int16 | Self::Float16 => 16,
            Self::Float => 32,
        }
    }
}

impl ActivationType {
    const TABLE: &[(&str, Self)] = &[
        ("int8", Self::Int8),
        ("uint8", Self::Uint8),
        ("int16", Self::Int16),
        ("uint16", Self::Uint16),
        ("float", Self::Float),
    ];

    /// Bits of an activation; those in float have 16 on devices.
    pub fn bits(self) -> u64 {
        match self {
            Self::Int8 | Self::Uint8 => 8,
            Self::Int16 | Self::Uint16 | Self::Float => 16,
        }
    }
}

impl From<crate::Integer> for ActivationType {
    fn from(integer: crate::Integer) -> Self {
        match integer {
            crate::Integer::Int8 => Self::Int8,
            crate::Integer::Uint8 => Self::Uint8,
            crate::Integer::Int16 => Self::Int16,
            crate::Integer::Uint16 => Self::Uint16,
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TABLE.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
}

impl fmt::Display for ActivationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TABLE.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
}

impl std::str::FromStr for WeightType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let row = Self::TABLE.iter().find(|row| row.0 == text);
        row.map(|row| row.1).ok_or_else(|| "expected int4, int8, int16, float16 or float".to_owned())
    }
}

impl std::str::FromStr for ActivationType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let row = Self::TABLE.iter().find(|row| row.0 == text);
        row.map(|row| row.1).ok_or_else(|| "expected int8, uint8, int16, uint16 or float".to_owned())
    }
}

/// Words that are more than text to some reader of YAML.
const YAML_VALUES: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// As a mapping on one line.
impl fmt::Display for PrecisionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._/".contains(c);
        // A name that YAML might read as something else stands in quotes.
        let is_value = YAML_VALUES.iter().any(|value| self.of.eq_ignore_ascii_case(value));
        let is_word = self.of.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_value;
        if is_word && self.of.chars().all(plain) {
            write!(f, "{{of: {}", self.of)?;
        } else {
            write!(f, "{{of: {}", serde_json::Value::from(self.of.as_str()))?;
        }
        if let Some(ty) = self.weights {
            write!(f, ", weights: {ty}")?;
        }
        if let Some(ty) = self.activations {
            write!(f, ", activations: {ty}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PrecisionPlan, String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("p.yaml");
        std::fs::write(&path, text).expect("write");
        PrecisionPlan::read(&path)
            .map_err(|e| e.to_string().split_once("precision plan: ").expect("a reason").1.to_owned())
    }

    fn rule(of: &str, weights: Option<WeightType>, activations: Option<ActivationType>) -> PrecisionRule {
        PrecisionRule { of: of.into(), weights, activations }
    }

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let rules = vec![
            rule("up_blocks.2/", Some(WeightType::Int16), None),
            rule("true", None, Some(ActivationType::Uint16)),
            rule("attn2: #\"", Some(WeightType::Float16), Some(ActivationType::Float)),
        ];
        let plan = PrecisionPlan { rules, ..PrecisionPlan::new(Scheme::W4a16) };
        let text = plan.text(&["Made by hand.".into()], &["why: so".into(), String::new()]);
        assert!(text.starts_with("# Made by hand.\nschema: precision-plan/v1\nscheme: w4a16\nrules:\n"), "{text}");
        assert!(text.contains("\n  - {of: up_blocks.2/, weights: int16}  # why: so\n"), "{text}");
        assert_eq!(read(&text), Ok(plan));
        let bare = PrecisionPlan::new(Scheme::Fp16);
        assert_eq!(read(&bare.text(&[], &[])), Ok(bare));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |rules: &str, expect: &str| {
            let error =
                read(&format!("schema: precision-plan/v1\nscheme: w8a8\nrules:\n{rules}\n")).expect_err("wrong");
            assert!(error.contains(expect), "{error}");
        };
        check("- {of: a, weight: int8}", "unknown field `weight`, expected one of `of`, `weights`, `activations`");
        check("- {of: a, weights: int3}", "unknown variant `int3`");
        check("- {of: a}", "the rule of `a` has neither `weights` nor `activations`");
        check("- {of: '', weights: int8}", "a rule has an empty `of`");
        check(
            "- {of: a, weights: float16, activations: uint8}",
            "weights in float16, with which activations are float, not uint8",
        );
        let error = read("schema: precision-plan/v2\nscheme: w8a8\n").expect_err("another version");
        assert_eq!(error, "field `schema` is `precision-plan/v2`, supported: precision-plan/v1");
    }

    #[test]
    fn a_target_says_what_it_has() {
        let openvino = crate::Target::find("openvino").expect("a target").precision.expect("a precision");
        let refused = |weights, activations| openvino.refuses("openvino", &rule("a", weights, activations));
        assert_eq!(refused(Some(WeightType::Int8), Some(ActivationType::Uint8)), None);
        let expect =
            "target `openvino` has no weights of int4, which the rule of `a` asks for: it has int8, float16, float";
        assert_eq!(refused(Some(WeightType::Int4), None).as_deref(), Some(expect));
        let expect = "target `openvino` has no activations of int16, which the rule of `a` asks for: it has uint8, uint16, float";
        assert_eq!(refused(None, Some(ActivationType::Int16)).as_deref(), Some(expect));
    }
}
