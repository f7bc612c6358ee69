//! What was seen of a model, and on what.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use edge_ir::{Checked, Graph};
use edge_spec::Hasher;
use serde::{Deserialize, Serialize};

use super::{CalibrationError, Grid, Method, Observer, fingerprint, taps};
use crate::Range;

/// What was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The prompts of all parts.
    pub prompts: PromptSet,
    /// The seed of the first prompt's noise; each further one has the next seed.
    pub seed: u64,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// The decoder.
    pub decoder: String,
    /// Which of the prompts were drawn.
    pub shard: Shard,
    /// SHA-256 of the manifest of the quantized model whose networks made what those after them read; the float ones did
    /// if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<String>,
}

/// A list of prompts, or samples of networks' inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// SHA-256, in hexadecimal, of the prompts, each with a line feed after it; or of the file of samples.
    pub sha256: String,
    /// How many there are.
    pub count: usize,
}

impl PromptSet {
    /// The list of these prompts.
    pub fn of<'a>(prompts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut hash, mut count) = (Hasher::default(), 0);
        for prompt in prompts {
            hash.update(prompt.as_bytes());
            hash.update(b"\n");
            count += 1;
        }
        Self { sha256: hash.finish(), count }
    }
}

/// A part of a run: of `of` parts the one with number `index`, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Part `index` of `of`; `None` unless `1 <= index <= of`.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (1..=of).contains(&index).then_some(Self { index, of })
    }

    /// Its number, from 1 on.
    pub fn index(self) -> u32 {
        self.index
    }

    /// The number of parts.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether the prompt at this place of the list, from 0 on, is in this part: every `of`-th is.
    pub fn has(self, prompt: usize) -> bool {
        prompt % self.of as usize + 1 == self.index as usize
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Self::new(index.parse().ok()?, of.parse().ok()?));
        parts.ok_or_else(|| format!("expected `I/N` with I from 1 to N, as in 1/4, got `{text}`"))
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

/// What was seen of a model's tensors in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// What was drawn.
    pub run: Run,
    /// What was seen, by component.
    pub graphs: BTreeMap<String, GraphStatistics>,
}

/// What was seen of a component's tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphStatistics {
    /// The graph's [`fingerprint`].
    pub sha256: String,
    /// What was seen, by tensor.
    pub tensors: BTreeMap<String, Observer>,
    /// Tensors that have the values of one of [`Self::tensors`].
    pub same: BTreeMap<String, String>,
}

impl GraphStatistics {
    /// Of a graph whose tensors were not seen yet.
    ///
    /// # Errors
    /// If its weights cannot be read.
    pub fn of(graph: &Checked<Graph>) -> Result<Self, CalibrationError> {
        Ok(Self { sha256: fingerprint(graph)?, same: taps(graph).same, ..Self::default() })
    }
}

impl Statistics {
    /// Nothing seen yet.
    pub fn new(run: Run) -> Self {
        Self { run, graphs: BTreeMap::new() }
    }

    /// Looks at a tensor's values.
    ///
    /// # Errors
    /// If one of them is not finite.
    pub fn observe(&mut self, component: &str, tensor: &str, values: &[f32]) -> Result<(), CalibrationError> {
        self.add(component, tensor, &Observer::of(values))
    }

    /// Adds what was seen of a tensor.
    ///
    /// # Errors
    /// If values were not finite.
    pub fn add(&mut self, component: &str, tensor: &str, seen: &Observer) -> Result<(), CalibrationError> {
        let graph = self.graphs.entry(component.to_owned()).or_default();
        match graph.tensors.get_mut(tensor) {
            Some(observer) => observer.merge(seen),
            None => _ = graph.tensors.insert(tensor.to_owned(), seen.clone()),
        }
        match seen.not_finite() {
            0 => Ok(()),
            count => Err(CalibrationError::NotFinite { component: component.into(), tensor: tensor.into(), count }),
        }
    }

    /// What was seen of a tensor.
    pub fn observer(&self, component: &str, tensor: &str) -> Option<&Observer> {
        let graph = self.graphs.get(component)?;
        let name = graph.same.get(tensor).map_or(tensor, String::as_str);
        graph.tensors.get(name)
    }

    /// The range that a method chooses for a tensor, as [`Observer::range`]; `None` if it was not seen.
    pub fn range(&self, component: &str, tensor: &str, method: Method, grid: Grid) -> Option<Range> {
        self.observer(component, tensor)?.range(method, grid)
    }

    /// An error unless the statistics of a component are of this graph, down to its weights.
    ///
    /// # Errors
    /// If they are of another graph, or have nothing of it, or its weights cannot be read.
    pub fn check_graph(&self, component: &str, graph: &Checked<Graph>) -> Result<(), CalibrationError> {
        let component = component.to_owned();
        let Some(known) = self.graphs.get(&component) else {
            let known: Vec<String> = self.graphs.keys().map(|name| format!("`{name}`")).collect();
            return Err(CalibrationError::UnknownComponent { component, known: known.join(", ") });
        };
        let found = fingerprint(graph)?;
        if found == known.sha256 {
            return Ok(());
        }
        Err(CalibrationError::OtherModel { component, expected: known.sha256.clone(), found })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, DType};

    use super::*;

    fn run() -> Run {
        Run {
            prompts: PromptSet::of(["a cat", "a dog"]),
            seed: 0,
            steps: 2,
            guidance: 8.0,
            decoder: "vae_decoder".into(),
            shard: Shard::WHOLE,
            quantized: None,
        }
    }

    fn graph(weight: f32) -> Checked<Graph> {
        let mut b = Builder::new("unet");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let w = b.floats("w", &[1], &[weight]);
        let y = b.node("Mul", "scale", &[x, w], &[]).unwrap();
        let turned = b.node("Transpose", "turn", &[y], &[("perm", Attribute::Ints(vec![1, 0]))]).unwrap();
        b.output("y", turned);
        b.finish().unwrap()
    }

    #[test]
    fn a_moved_tensor_has_the_range_of_its_source() {
        let mut statistics = Statistics::new(run());
        statistics.graphs.insert("unet".into(), GraphStatistics::of(&graph(2.0)).unwrap());
        statistics.observe("unet", "scale", &[2.0, -1.0]).unwrap();
        let grid = Grid { levels: 256, symmetric: false };
        let range = Some(Range { min: -1.0, max: 2.0 });
        assert_eq!(statistics.range("unet", "y", Method::MinMax, grid), range);
        assert_eq!(statistics.range("unet", "scale", Method::MinMax, grid), range);
        assert_eq!(statistics.range("unet", "other", Method::MinMax, grid), None);
        assert_eq!(statistics.range("vae_decoder", "y", Method::MinMax, grid), None);
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let error = Statistics::new(run()).observe("unet", "h", &[f32::NAN, 1.0]).unwrap_err();
        assert_eq!(error.to_string(), "`h` of `unet` has 1 values that are NaN or infinite");
    }

    #[test]
    fn another_model_is_refused() {
        let mut statistics = Statistics::new(run());
        statistics.graphs.insert("unet".into(), GraphStatistics::of(&graph(2.0)).unwrap());
        assert!(statistics.check_graph("unet", &graph(2.0)).is_ok());
        let other = statistics.check_graph("unet", &graph(2.5)).unwrap_err().to_string();
        assert!(other.starts_with("the statistics are of another `unet`: its SHA-256 is "), "{other}");
        statistics.graphs = BTreeMap::from([("vae_decoder".to_owned(), GraphStatistics::default())]);
        let unknown = statistics.check_graph("unet", &graph(2.0)).unwrap_err().to_string();
        assert_eq!(unknown, "the statistics say nothing of `unet`, but of `vae_decoder`");
    }

    #[test]
    fn every_prompt_is_in_one_part() {
        for of in 1..5 {
            for prompt in 0..10 {
                assert_eq!((1..=of).filter(|i| Shard::new(*i, of).unwrap().has(prompt)).count(), 1);
            }
        }
        for text in ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        assert_eq!("2/4".parse(), Ok(Shard { index: 2, of: 4 }));
    }
}
