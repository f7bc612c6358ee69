//! Parts of a run become the whole.

use std::collections::BTreeMap;

use super::{CalibrationError, GraphStatistics, Run, Shard, Statistics};

/// Joins parts one by one, in any order. What comes out is equal to the statistics of one run over everything.
#[derive(Debug, Default)]
pub struct Merger {
    joined: Option<Statistics>,
    /// Where each part came from.
    names: BTreeMap<Shard, String>,
    first: String,
}

impl Merger {
    /// Joins a part that came from `name`.
    ///
    /// # Errors
    /// If it is of another model, of another run, or was joined already.
    pub fn add(&mut self, name: &str, part: Statistics) -> Result<(), CalibrationError> {
        let shard = part.run.shard;
        let Some(joined) = &mut self.joined else {
            name.clone_into(&mut self.first);
            self.names.insert(shard, name.to_owned());
            self.joined = Some(part);
            return Ok(());
        };
        if let Some((what, expected, found)) = difference(joined, &part) {
            let (first, other) = (self.first.clone(), name.to_owned());
            return Err(CalibrationError::Foreign { first, other, what, expected, found });
        }
        if let Some(first) = self.names.insert(shard, name.to_owned()) {
            return Err(CalibrationError::Overlap { first, other: name.to_owned(), shard });
        }
        for (component, graph) in part.graphs {
            let into = joined.graphs.entry(component).or_default();
            for (tensor, observer) in &graph.tensors {
                into.tensors.entry(tensor.clone()).or_default().merge(observer);
            }
        }
        Ok(())
    }

    /// The whole.
    ///
    /// # Errors
    /// If parts are missing.
    pub fn finish(self) -> Result<Statistics, CalibrationError> {
        let mut joined = self.joined.ok_or(CalibrationError::Nothing)?;
        let of = joined.run.shard.of();
        let all = (1..=of).filter_map(|index| Shard::new(index, of));
        let shards: Vec<Shard> = all.filter(|shard| !self.names.contains_key(shard)).collect();
        if !shards.is_empty() {
            return Err(CalibrationError::Missing { of, shards });
        }
        joined.run.shard = Shard::WHOLE;
        Ok(joined)
    }
}

impl Statistics {
    /// Takes what `other` says of its components in the place of what was known of them: for components that are looked at
    /// again after others have changed. `name` and `other_name` are for messages.
    ///
    /// # Errors
    /// If the two are not of one run.
    pub fn put(&mut self, name: &str, other_name: &str, other: Self) -> Result<(), CalibrationError> {
        let parts = ("the part", self.run.shard.to_string(), other.run.shard.to_string());
        if let Some((what, expected, found)) = run(&self.run, &other.run).into_iter().chain([parts]).find(differs) {
            let (first, other, what) = (name.to_owned(), other_name.to_owned(), what.to_owned());
            return Err(CalibrationError::Foreign { first, other, what, expected, found });
        }
        self.graphs.extend(other.graphs);
        Ok(())
    }
}

/// What tells two parts of a run apart, as the first and as the other has it.
fn difference(first: &Statistics, other: &Statistics) -> Option<(String, String, String)> {
    let own = |(what, a, b): (&str, _, _)| (what.to_owned(), a, b);
    let components = ("the list of components", names(&first.graphs), names(&other.graphs));
    let run = run(&first.run, &other.run).into_iter().chain([components]).map(own);
    let graphs = first.graphs.iter().zip(&other.graphs).flat_map(|((component, a), (_, b))| graph(component, a, b));
    run.chain(graphs).find(|(_, a, b)| a != b)
}

fn differs((_, a, b): &(&str, String, String)) -> bool {
    a != b
}

fn run(a: &Run, b: &Run) -> [(&'static str, String, String); 8] {
    [
        ("the number of parts", a.shard.of().to_string(), b.shard.of().to_string()),
        ("the number of prompts", a.prompts.count.to_string(), b.prompts.count.to_string()),
        ("the SHA-256 of the prompts", a.prompts.sha256.clone(), b.prompts.sha256.clone()),
        ("the seed", a.seed.to_string(), b.seed.to_string()),
        ("the number of steps", a.steps.to_string(), b.steps.to_string()),
        ("the guidance scale", a.guidance.to_string(), b.guidance.to_string()),
        ("the decoder", a.decoder.clone(), b.decoder.clone()),
        ("the SHA-256 of the quantized model", shown(a), shown(b)),
    ]
}

fn shown(run: &Run) -> String {
    run.quantized.clone().unwrap_or_else(|| "that of none".to_owned())
}

fn graph(component: &str, a: &GraphStatistics, b: &GraphStatistics) -> [(String, String, String); 2] {
    [
        (format!("the SHA-256 of `{component}`"), a.sha256.clone(), b.sha256.clone()),
        (format!("the list of tensors of `{component}`"), names(&a.tensors), names(&b.tensors)),
    ]
}

fn names<T>(of: &BTreeMap<String, T>) -> String {
    of.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::{Observer, PromptSet};
    use super::*;

    const VALUES: [[f32; 3]; 4] = [[1.0, 2.0, -7.5], [0.1, -0.0, 0.0], [3e8, 1e-30, 2.0], [0.5, 0.25, -0.125]];

    /// The part `index` of `of`, of four prompts.
    fn part(index: u32, of: u32) -> Statistics {
        let shard = Shard::new(index, of).unwrap();
        let prompts = PromptSet::of(["a", "b", "c", "d"]);
        let run =
            Run { prompts, seed: 3, steps: 2, guidance: 8.0, decoder: "vae_decoder".into(), shard, quantized: None };
        let mut statistics = Statistics::new(run);
        for (_, values) in VALUES.iter().enumerate().filter(|(prompt, _)| shard.has(*prompt)) {
            statistics.observe("unet", "x", values).unwrap();
        }
        statistics
    }

    fn merge(parts: Vec<(&str, Statistics)>) -> Result<Statistics, String> {
        let mut merger = Merger::default();
        for (name, part) in parts {
            merger.add(name, part).map_err(|e| e.to_string())?;
        }
        merger.finish().map_err(|e| e.to_string())
    }

    #[test]
    fn parts_in_any_order_are_the_whole() {
        let whole = part(1, 1);
        for [a, b, c] in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let joined = merge([a, b, c].map(|i| ("", part(i, 3))).to_vec()).unwrap();
            assert_eq!(joined, whole);
        }
        assert_eq!(merge(vec![("", whole.clone())]).unwrap(), whole);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert_eq!(merge(vec![]), Err("there is nothing to join".into()));
        let missing = merge(vec![("b", part(2, 4))]);
        assert_eq!(missing, Err("of 4 parts, 3 are missing: 1/4, 3/4, 4/4".into()));
        let twice = merge(vec![("a", part(1, 4)), ("b", part(1, 4))]);
        assert_eq!(twice, Err("`a` and `b` are both part 1/4".into()));
        let foreign = |change: fn(&mut Statistics), expected: &str| {
            let mut other = part(2, 4);
            change(&mut other);
            let error = merge(vec![("a", part(1, 4)), ("b", other)]).unwrap_err();
            assert_eq!(error, format!("`b` is no part of the same run as `a`: {expected}"));
        };
        foreign(|s| s.run.shard = Shard::new(2, 3).unwrap(), "the number of parts is 3, expected 4");
        foreign(|s| s.run.prompts.count = 5, "the number of prompts is 5, expected 4");
        let (text, of) = ("the SHA-256 of the quantized model is", "expected that of none");
        foreign(|s| s.run.quantized = Some("12".into()), &format!("{text} 12, {of}"));
        foreign(|s| s.run.seed = 4, "the seed is 4, expected 3");
        foreign(|s| s.run.steps = 4, "the number of steps is 4, expected 2");
        foreign(|s| s.run.guidance = 7.5, "the guidance scale is 7.5, expected 8");
        foreign(|s| s.run.decoder = "taesd_decoder".into(), "the decoder is taesd_decoder, expected vae_decoder");
        foreign(
            |s| _ = s.graphs.insert("vae_decoder".into(), GraphStatistics::default()),
            "the list of components is `unet`, `vae_decoder`, expected `unet`",
        );
        foreign(|s| s.graphs.get_mut("unet").unwrap().sha256 = "ab".into(), "the SHA-256 of `unet` is ab, expected ");
        foreign(
            |s| _ = s.graphs.get_mut("unet").unwrap().tensors.insert("y".into(), Observer::default()),
            "the list of tensors of `unet` is `x`, `y`, expected `x`",
        );
    }

    #[test]
    fn a_component_is_replaced_within_one_run() {
        let mut base = part(1, 1);
        base.graphs.insert("text_encoder".into(), GraphStatistics::default());
        let mut again = part(1, 1);
        again.observe("unet", "x", &[9e9]).unwrap();
        let mut joined = base.clone();
        joined.put("base", "again", again.clone()).unwrap();
        assert_eq!(joined.graphs["unet"], again.graphs["unet"]);
        assert_eq!(joined.graphs.keys().collect::<Vec<_>>(), ["text_encoder", "unet"]);
        again.run.seed = 9;
        let error = base.put("base", "again", again).unwrap_err().to_string();
        assert_eq!(error, "`again` is no part of the same run as `base`: the seed is 9, expected 3");
        let error = base.put("base", "again", part(1, 2)).unwrap_err().to_string();
        assert_eq!(error, "`again` is no part of the same run as `base`: the number of parts is 2, expected 1");
    }
}
