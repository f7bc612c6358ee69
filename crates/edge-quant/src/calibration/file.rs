//! Statistics on disk: JSON, an object a line. The first line says what was run on what; each further line is a tensor.
//! The same statistics are the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use edge_spec::SpecError;
use serde::{Deserialize, Serialize};

use super::{GraphStatistics, Histogram, Observer, Run, Statistics};

/// The version of the file that is written, and the only one that is read.
pub const CALIBRATION_SCHEMA: &str = "calibration/v1";

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema: String,
    run: Run,
    /// SHA-256 of each component.
    components: BTreeMap<String, String>,
    /// How many lines follow.
    tensors: usize,
}

/// A further line: a tensor that was looked at, or one that has the values of another.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    component: String,
    tensor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_as: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f32>,
    /// Number of the first bin, and counts, of each run of bins that are not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bins: Option<Vec<(i16, Vec<u64>)>>,
}

/// Writes statistics.
///
/// # Errors
/// If the writer fails.
pub fn write(statistics: &Statistics, mut to: impl Write) -> std::io::Result<()> {
    let graphs = &statistics.graphs;
    let head = Head {
        schema: CALIBRATION_SCHEMA.into(),
        run: statistics.run.clone(),
        components: graphs.iter().map(|(name, graph)| (name.clone(), graph.sha256.clone())).collect(),
        tensors: graphs.values().map(|graph| graph.tensors.len() + graph.same.len()).sum(),
    };
    let mut line = |line: serde_json::Result<String>| writeln!(to, "{}", line?);
    line(serde_json::to_string(&head))?;
    for (component, graph) in graphs {
        let named = |tensor: &String| Line { component: component.clone(), tensor: tensor.clone(), ..Line::default() };
        let observed = graph.tensors.iter().map(|(tensor, seen)| Line {
            min: Some(seen.min),
            max: Some(seen.max),
            bins: Some(seen.histogram.runs()),
            ..named(tensor)
        });
        let same = graph.same.iter().map(|(tensor, of)| Line { same_as: Some(of.clone()), ..named(tensor) });
        for tensor in observed.chain(same) {
            line(serde_json::to_string(&tensor))?;
        }
    }
    Ok(())
}

/// Reads statistics.
///
/// # Errors
/// If the file cannot be read, or is no such file, or ends early.
pub fn read(path: &Path) -> Result<Statistics, SpecError> {
    let io = |source| SpecError::Io { path: path.to_owned(), source };
    let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "calibration file", reason };
    let mut lines = BufReader::new(File::open(path).map_err(io)?).lines();
    let first = lines.next().transpose().map_err(io)?.unwrap_or_default();
    let head: Head = serde_json::from_str(&first).map_err(|e| invalid(format!("line 1: {e}")))?;
    if head.schema != CALIBRATION_SCHEMA {
        return Err(invalid(format!("field `schema` is `{}`, supported: {CALIBRATION_SCHEMA}", head.schema)));
    }
    let known = head.components.into_iter();
    let known = known.map(|(name, sha256)| (name, GraphStatistics { sha256, ..Default::default() }));
    let mut statistics = Statistics { run: head.run, graphs: known.collect() };
    let mut count = 0;
    for line in lines {
        count += 1;
        add(&mut statistics, &line.map_err(io)?).map_err(|e| invalid(format!("line {}: {e}", count + 1)))?;
    }
    if count != head.tensors {
        return Err(invalid(format!("expected {} tensors, got {count}", head.tensors)));
    }
    Ok(statistics)
}

fn add(statistics: &mut Statistics, line: &str) -> Result<(), String> {
    let Line { component, tensor, same_as, min, max, bins } = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let graph = statistics.graphs.get_mut(&component);
    let graph = graph.ok_or_else(|| format!("component `{component}` is not on the first line"))?;
    if graph.tensors.contains_key(&tensor) || graph.same.contains_key(&tensor) {
        return Err(format!("tensor `{tensor}` of `{component}` is there twice"));
    }
    match (same_as, min, max, bins) {
        (Some(source), None, None, None) => _ = graph.same.insert(tensor, source),
        (None, Some(min), Some(max), Some(bins)) => {
            let histogram = Histogram::of_runs(&bins).filter(|_| min <= max);
            let histogram = histogram.ok_or_else(|| format!("`min`, `max` or `bins` of `{tensor}` cannot be"))?;
            graph.tensors.insert(tensor, Observer { min, max, not_finite: 0, histogram });
        }
        _ => return Err(format!("expected `same_as`, or `min`, `max` and `bins`, of `{tensor}`")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{PromptSet, Shard};
    use super::*;

    fn statistics() -> Statistics {
        let prompts = PromptSet::of(["a cat"]);
        let run = Run {
            prompts,
            seed: 7,
            steps: 2,
            guidance: 7.3,
            decoder: "vae_decoder".into(),
            shard: Shard::WHOLE,
            quantized: None,
        };
        let mut statistics = Statistics::new(run);
        statistics.observe("unet", "x", &[0.1, -0.3, 1e-40, f32::MAX, 0.0, 16_777_217.0]).unwrap();
        statistics.observe("unet", "y", &[0.1]).unwrap();
        let graph = statistics.graphs.get_mut("unet").unwrap();
        graph.sha256 = "ab".into();
        graph.same.insert("z".into(), "x".into());
        statistics
    }

    fn text(statistics: &Statistics) -> String {
        let mut bytes = Vec::new();
        write(statistics, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn parse(text: &str) -> Result<Statistics, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn what_is_written_is_read() {
        let text = text(&statistics());
        assert_eq!(parse(&text).unwrap(), statistics());
        assert_eq!(self::text(&parse(&text).unwrap()), text);
    }

    #[test]
    fn damage_is_named_by_its_line() {
        let text = text(&statistics());
        let refused = |text: &str| {
            let error = parse(text).unwrap_err();
            error.strip_prefix("`FILE` is not a calibration file: ").map(str::to_owned).unwrap_or(error)
        };
        assert_eq!(
            refused(&text.replace("calibration/v1", "calibration/v9")),
            "field `schema` is `calibration/v9`, supported: calibration/v1"
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(refused(&lines[..3].join("\n")), "expected 3 tensors, got 2");
        assert_eq!(refused(&[lines[0], lines[1], lines[1]].join("\n")), "line 3: tensor `x` of `unet` is there twice");
        assert_eq!(
            refused(&text.replace("\"min\":0.1", "\"min\":0.2")),
            "line 3: `min`, `max` or `bins` of `y` cannot be"
        );
        assert_eq!(
            refused(&text.replace("\"component\":\"unet\",\"tensor\":\"y\"", "\"component\":\"vae\",\"tensor\":\"y\"")),
            "line 3: component `vae` is not on the first line"
        );
        assert!(refused("").starts_with("line 1: EOF"), "{}", refused(""));
        assert!(refused("{\"schema\": 1}").starts_with("line 1: "), "{}", refused("{}"));
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let mut state = 1_u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(state);
            let back: f32 = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap_or(f32::NAN);
            assert!(!value.is_finite() || back.to_bits() == value.to_bits(), "{value}");
        }
    }
}
