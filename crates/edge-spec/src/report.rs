//! `report.json`: what was verified, and what came of it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::SpecError;

/// The report's file name.
pub const REPORT_FILE: &str = "report.json";

/// The version of the report that is written, and the only one that is read.
pub const REPORT_SCHEMA: &str = "report/v2";

/// The result of `edgetool verify`. There is no time in it: the same models give the same report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Always [`REPORT_SCHEMA`].
    pub schema: String,
    /// Name and version of the program that wrote it.
    pub producer: String,
    /// Whether all is as good as it has to be.
    pub verdict: Verdict,
    /// The first component, in the order of use, that is not: where to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What was asked of the candidate, by the name of its kind of arithmetic.
    pub precision: String,
    /// What was drawn.
    pub run: Run,
    /// Every check, in the order of use of the components.
    pub checks: Vec<Check>,
    /// Every tensor that was compared.
    pub tensors: Vec<Comparison>,
    /// Every picture that was compared.
    pub pictures: Vec<PictureComparison>,
    /// The ranges of the candidate's integers, and what came into them, in the order of use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<RangeUse>,
    /// The same on another executor, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondOpinion>,
    /// What layers in float would gain, if it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what_if: Vec<WhatIf>,
    /// The error of each layer, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The candidate's components, in the order of use.
    pub components: Vec<Part>,
    /// The candidate's files as they were measured: the manifest, all graphs, all weights; sorted by path.
    pub measured: Vec<Measured>,
    /// The reference's files, likewise.
    pub reference: Vec<Measured>,
}

/// A yes or a no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is good enough.
    Pass,
    /// It is not: what was not measured is not good enough.
    #[default]
    Fail,
}

/// What both models drew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// The prompts, and the seeds of their noise; no seed where the noise was given.
    pub prompts: Vec<PromptRun>,
}

/// A prompt that was drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRun {
    /// The prompt.
    pub text: String,
    /// The seed of its noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// One demand on the candidate, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The tolerance's name: `unet_output_sqnr_db`, ...
    pub name: String,
    /// The component that is at fault if it alone fails.
    pub component: String,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Where the worst value is: `prompt 2, step 1`.
    pub at: String,
    /// The worst value.
    pub value: f64,
    /// The least value that passes, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The greatest value that passes, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// Why the limit is where it is.
    pub reason: String,
    /// Whether the value is within.
    pub verdict: Verdict,
}

/// A tensor of the candidate against the reference's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Which: `context`, `unet_output`, `latent`.
    pub tensor: String,
    /// The component that made it.
    pub component: String,
    /// The prompt's number, from 1.
    pub prompt: usize,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Signal to error, in dB: `10 log10(sum r^2 / sum (c - r)^2)`, 200 at most, which is also said of no error at all.
    pub sqnr_db: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// The greatest difference of two elements.
    pub max_error: f64,
    /// Least and greatest element of the candidate's.
    pub range: [f64; 2],
    /// Least and greatest element of the reference's.
    pub reference_range: [f64; 2],
    /// The share of the candidate's elements that are its least or its greatest: many are where a range was cut.
    pub at_limits: f64,
    /// The candidate's greatest magnitude as a part of what float16 holds, 65504.
    pub float16_use: f64,
}

/// A picture of the candidate against the reference's, as 8-bit pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureComparison {
    /// The prompt's number, from 1.
    pub prompt: usize,
    /// Peak signal to error, in dB, 200 at most, which is also said of equal pictures.
    pub psnr_db: f64,
    /// Structural similarity, 1 for equal pictures.
    pub ssim: f64,
    /// SSIMULACRA 2, of pictures that are large enough: 100 for equal ones, 90 where nobody sees a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssimulacra2: Option<f64>,
    /// The greatest difference of two pixel values, of 255.
    pub max_error: u8,
}

/// The error of each layer, on the first prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The first layer that turns inputs that are well into an output that is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Layer>,
    /// Every node that both models have, in the order of use.
    pub layers: Vec<Layer>,
    /// Where the values of the worst layers lie, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histograms: Vec<LayerHistogram>,
}

/// Where a layer's values lie, in both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerHistogram {
    /// The component.
    pub component: String,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// The node's name.
    pub node: String,
    /// Signal to error, in dB.
    pub sqnr_db: f64,
    /// Where the first bar begins, and the last one ends; all are of one width.
    pub span: [f64; 2],
    /// The least and the greatest number that the candidate's integers stand for, if the output becomes integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// How many of the reference's values are in each bar; of a large tensor, of those that stand for all.
    pub reference: Vec<u32>,
    /// The candidate's.
    pub candidate: Vec<u32>,
}

/// A range of integers, and what came into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeUse {
    /// The component.
    pub component: String,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// The node that makes the integers.
    pub node: String,
    /// The least and the greatest number that the integers stand for.
    pub range: [f64; 2],
    /// The least and the greatest number that came.
    pub seen: [f64; 2],
    /// The part of the range that they span.
    pub used: f64,
    /// The share of numbers outside of the range, which are cut.
    pub saturated: f64,
}

/// The candidate on another executor, and how far that is from the built-in one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondOpinion {
    /// The other executor.
    pub executor: String,
    /// Whether all components agree.
    pub verdict: Verdict,
    /// Each component on the same inputs, and the picture that the other executor alone drew.
    pub outputs: Vec<Agreement>,
}

/// What two executors make of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// The component.
    pub component: String,
    /// The output, or `picture`.
    pub output: String,
    /// Signal to the difference between the two, in dB; of pictures, peak signal.
    pub sqnr_db: f64,
    /// The greatest difference of two elements.
    pub max_error: f64,
    /// The least signal to difference that passes.
    pub least: f64,
    /// Whether it does.
    pub verdict: Verdict,
}

/// What would be if some layers were in float.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// The modules or operators.
    pub float: Vec<String>,
    /// How many nodes they are, in all graphs.
    pub nodes: usize,
    /// What the checks measure then, in the order of the report's.
    pub checks: Vec<Gain>,
}

/// A measure with some layers in float.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gain {
    /// The tolerance's name.
    pub name: String,
    /// The component.
    pub component: String,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// The candidate's value.
    pub before: f64,
    /// The value with these layers in float.
    pub after: f64,
}

/// A node's output against that of the reference's node of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The component.
    pub component: String,
    /// The step's number, from 1, if it is of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// The node's name: the module of the checkpoint, and what of it.
    pub node: String,
    /// The operator.
    pub op: String,
    /// Signal to error, in dB, of what it reads: the worst of its inputs.
    pub input_sqnr_db: f64,
    /// Signal to error, in dB, of what it gives.
    pub sqnr_db: f64,
    /// The output's greatest magnitude as a part of what float16 holds.
    pub float16_use: f64,
}

/// A component of the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The kind of its arithmetic.
    pub precision: String,
    /// Nodes.
    pub nodes: usize,
    /// Numbers in its weights.
    pub parameters: u64,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

/// A file that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Path from the model's folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// If it is not there, or not of this schema.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "report", reason };
        let report: Self = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if report.schema != REPORT_SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {REPORT_SCHEMA}", report.schema)));
        }
        Ok(report)
    }

    /// The report as it stands in its file.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Measured {
    /// Measures the files of a folder but those that `skip` names, sorted by path.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn folder(folder: &Path, skip: &[&str]) -> Result<Vec<Self>, SpecError> {
        let mut found = Vec::new();
        walk(folder, "", skip, &mut found)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Measures one file, which the report calls `name`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(path: &Path, name: String) -> Result<Self, SpecError> {
        let io = |source| SpecError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Ok(Self { path: name, size, sha256: crate::sha256(file).map_err(io)? })
    }
}

fn walk(folder: &Path, prefix: &str, skip: &[&str], found: &mut Vec<Measured>) -> Result<(), SpecError> {
    let io = |source| SpecError::Io { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if skip.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, &format!("{name}/"), skip, found)?;
        } else {
            found.push(Measured::file(&path, name)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            schema: REPORT_SCHEMA.into(),
            verdict: Verdict::Pass,
            run: Run { steps: 2, guidance: 8.0, prompts: vec![PromptRun { text: "a cat".into(), seed: Some(0) }] },
            ..Report::default()
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(REPORT_FILE);
        std::fs::write(&path, report().text()).expect("write");
        assert_eq!(Report::read(&path).expect("a report"), report());
        std::fs::write(&path, report().text().replace("\"verdict\"", "\"vote\"")).expect("write");
        let error = Report::read(&path).expect_err("an unknown field").to_string();
        assert!(error.contains("is not a report: unknown field `vote`"), "{error}");
        std::fs::write(&path, Report { schema: "report/v9".into(), ..report() }.text()).expect("write");
        let error = Report::read(&path).expect_err("another version").to_string();
        assert!(error.ends_with("field `schema` is `report/v9`, supported: report/v2"), "{error}");
    }

    #[test]
    fn files_are_measured_in_order() {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(dir.path().join("b")).expect("a folder");
        for name in ["b/x", "a", REPORT_FILE] {
            std::fs::write(dir.path().join(name), "abc").expect("write");
        }
        let found = Measured::folder(dir.path(), &[REPORT_FILE]).expect("files");
        let names: Vec<_> = found.iter().map(|m| (m.path.as_str(), m.size)).collect();
        assert_eq!(names, [("a", 3), ("b/x", 3)]);
        assert!(found[0].sha256.starts_with("ba7816bf"));
    }
}
