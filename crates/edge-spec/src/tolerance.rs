//! Tolerances: what is asked of a model, each with a name and a reason.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::SpecError;

/// The version of a file of tolerances.
pub const TOLERANCES_SCHEMA: &str = "tolerances/v1";

/// The kinds of arithmetic, the finest first, as reports and tolerances name them.
pub const PRECISIONS: [&str; 7] = ["float32", "float32-approximate", "float16", "w8", "w8a16", "w4a16", "w8a8"];

/// Limits to use in the place of built-in ones.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerances {
    /// Always [`TOLERANCES_SCHEMA`].
    pub schema: String,
    /// The limits.
    pub tolerances: Vec<Tolerance>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// What is limited: `unet_output_sqnr_db`, ...
    pub name: String,
    /// The least value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The greatest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// The kinds of arithmetic that it is for, as a report names them: `w8a16`, ...; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub precisions: Vec<String>,
    /// Why the limit is where it is.
    pub reason: String,
}

impl Tolerances {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// If it cannot be read, is of another schema, names something that is not limited, or gives a limit without a
    /// number or a reason.
    pub fn read(path: &Path, known: &[&str]) -> Result<Self, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "file of tolerances", reason };
        let file: Self = serde_yaml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if file.schema != TOLERANCES_SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {TOLERANCES_SCHEMA}", file.schema)));
        }
        check(&file.tolerances, known).map_err(invalid)?;
        Ok(file)
    }
}

/// Why these are no limits, if they are not.
pub(crate) fn check(tolerances: &[Tolerance], known: &[&str]) -> Result<(), String> {
    tolerances.iter().try_for_each(|tolerance| check_one(tolerance, known))
}

fn check_one(tolerance: &Tolerance, known: &[&str]) -> Result<(), String> {
    let Tolerance { name, least, most, precisions, reason } = tolerance;
    if !known.contains(&name.as_str()) {
        return Err(format!("`{name}` is not a tolerance, expected one of {}", known.join(", ")));
    }
    if let Some(precision) = precisions.iter().find(|p| !PRECISIONS.contains(&p.as_str())) {
        let known = PRECISIONS.join(", ");
        return Err(format!("`{name}` is for `{precision}`, which is no precision, expected one of {known}"));
    }
    let limits: Vec<f64> = [*least, *most].into_iter().flatten().collect();
    if limits.is_empty() || limits.iter().any(|v| !v.is_finite()) {
        return Err(format!("`{name}` needs a number in `least` or `most`"));
    }
    if reason.trim().is_empty() {
        return Err(format!("`{name}` needs a `reason`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> Result<Vec<Tolerance>, String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("t.yaml");
        std::fs::write(&path, format!("schema: tolerances/v1\ntolerances:\n{rest}")).expect("write");
        let read = Tolerances::read(&path, &["a_db", "b"]);
        read.map(|t| t.tolerances).map_err(|e| e.to_string().split_once(": ").expect("a reason").1.to_owned())
    }

    #[test]
    fn a_limit_has_a_known_name_a_number_and_a_reason() {
        let found = read("- {name: a_db, least: 40, reason: the eye}\n").expect("one");
        let (name, reason) = ("a_db".into(), "the eye".into());
        let expect = Tolerance { name, least: Some(40.0), most: None, precisions: Vec::new(), reason };
        assert_eq!(found, [expect]);
        assert_eq!(
            read("- {name: c, most: 1, reason: r}\n"),
            Err("`c` is not a tolerance, expected one of a_db, b".into())
        );
        assert_eq!(read("- {name: b, reason: r}\n"), Err("`b` needs a number in `least` or `most`".into()));
        let error = read("- {name: b, most: 1, reason: r, precisions: [w8, w9]}\n").expect_err("no precision");
        assert!(error.starts_with("`b` is for `w9`, which is no precision, expected one of float32, "), "{error}");
        assert_eq!(read("- {name: b, most: 1, reason: ' '}\n"), Err("`b` needs a `reason`".into()));
        assert!(read("- {name: b, at_most: 1, reason: r}\n").expect_err("unknown").contains("unknown field `at_most`"));
    }
}
