//! Prompt accuracy: a classifier reads off a picture what a prompt asked for. The analogue of a CLIP score where the
//! answer is known.

use edge_ir::{Checked, DType, Executor, Graph, Tensor, TensorType};
use edge_spec::{JudgeSpec, Prompt};

/// Why a picture could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The classifier is not what its description says.
    #[error("the judge `{graph}` has {found}, expected {expected}")]
    Graph {
        /// The graph's name.
        graph: String,
        /// The input or output that is there.
        found: String,
        /// What its description asks for.
        expected: String,
    },
    /// Pictures of another size.
    #[error("the judge reads pictures of {expected:?} (height and width in pixels), got {got:?}")]
    Size {
        /// Height and width of the classifier's input.
        expected: [usize; 2],
        /// Height and width of the picture.
        got: [usize; 2],
    },
    /// A prompt asks for something that no head of the judge can read.
    #[error("prompt `{prompt}` asks for `{key}={value}`, which the judge cannot read")]
    Unknown {
        /// The prompt.
        prompt: String,
        /// The attribute.
        key: String,
        /// Its value.
        value: String,
    },
    /// The classifier did not run.
    #[error("the judge did not run")]
    Run(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A classifier of pictures with a head for each attribute.
pub struct Judge {
    spec: JudgeSpec,
    executor: Box<dyn Executor>,
    size: [usize; 2],
}

impl Judge {
    /// Takes the classifier's description, its graph, and the same graph ready to run.
    ///
    /// # Errors
    /// If the graph does not take one `[1, 3, height, width]` float32 picture with values from 0 to 1, or does not give
    /// one row of logits for each head, in order.
    pub fn new(spec: JudgeSpec, graph: &Checked<Graph>, executor: Box<dyn Executor>) -> Result<Self, Error> {
        let show = |ids: &[edge_ir::ValueId]| {
            let ports: Vec<_> = ids.iter().map(|id| (graph.value(*id).name.clone(), graph.ty(*id).clone())).collect();
            (ports.iter().map(|(name, ty)| format!("`{name}` {ty}")).collect::<Vec<_>>().join(", "), ports)
        };
        let wrong =
            |found: &str, expected: String| Error::Graph { graph: graph.name.clone(), found: found.into(), expected };
        let (shown, inputs) = show(&graph.inputs);
        let [(_, TensorType { dtype: DType::Float32, shape })] = inputs.as_slice() else {
            return Err(wrong(&shown, "one float32 input".into()));
        };
        let [1, 3, height, width] = shape[..] else {
            return Err(wrong(&shown, "an input [1, 3, height, width]".into()));
        };
        let (shown, outputs) = show(&graph.outputs);
        let expected: Vec<_> =
            spec.heads.iter().map(|h| (h.name.clone(), TensorType::new(DType::Float32, [1, h.labels.len()]))).collect();
        if outputs != expected {
            let expected = expected.iter().map(|(name, ty)| format!("`{name}` {ty}")).collect::<Vec<_>>().join(", ");
            return Err(wrong(&shown, expected));
        }
        Ok(Self { spec, executor, size: [height, width] })
    }

    /// Reads a picture, `[3, height, width]` with values from 0 to 1: the index of the likeliest label for each head.
    ///
    /// # Errors
    /// If the picture has another size, or the classifier fails.
    pub fn read(&mut self, picture: &[f32], size: [usize; 2]) -> Result<Vec<usize>, Error> {
        let [height, width] = self.size;
        if size != self.size || picture.len() != 3 * height * width {
            return Err(Error::Size { expected: self.size, got: size });
        }
        let outputs = self.executor.run(&[Tensor::f32s([1, 3, height, width], picture)]).map_err(Error::Run)?;
        Ok(outputs.iter().map(|logits| likeliest(&logits.to_f32s())).collect())
    }

    /// A tally of no pictures.
    pub fn tally(&self) -> Tally {
        let heads = self.spec.heads.iter().map(|h| (h.name.clone(), Share::default())).collect();
        Tally { heads, accuracy_heads: self.spec.accuracy.clone(), accuracy: Share::default() }
    }

    /// Counts a reading: right where it is what the prompt asks for. Returns whether all that counts for the prompt
    /// accuracy is right.
    ///
    /// # Errors
    /// If the prompt asks for something that no head reads.
    pub fn count(&self, tally: &mut Tally, prompt: &Prompt, reading: &[usize]) -> Result<bool, Error> {
        let mut all = true;
        for (key, value) in &prompt.truth {
            let unknown = || Error::Unknown { prompt: prompt.text.clone(), key: key.clone(), value: value.clone() };
            let head = self.spec.heads.iter().position(|h| h.name == *key).ok_or_else(unknown)?;
            let wanted = self.spec.heads[head].labels.iter().position(|l| l == value).ok_or_else(unknown)?;
            let right = reading.get(head) == Some(&wanted);
            tally.heads[head].1.add(right);
            all &= right || !self.spec.accuracy.contains(key);
        }
        tally.accuracy.add(all);
        Ok(all)
    }

    /// What a reading says, by the labels' names.
    pub fn labels<'a>(&'a self, reading: &'a [usize]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let label = |(head, index): (&'a edge_spec::Head, &usize)| {
            (head.name.as_str(), head.labels.get(*index).map_or("?", String::as_str))
        };
        self.spec.heads.iter().zip(reading).map(label)
    }
}

/// How many pictures are right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// For each head of the judge, over the prompts that ask for its attribute.
    pub heads: Vec<(String, Share)>,
    /// The heads that the prompt accuracy asks to be right at once.
    pub accuracy_heads: Vec<String>,
    /// Over all prompts.
    pub accuracy: Share,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Pictures that are right.
    pub right: u32,
    /// Pictures judged.
    pub of: u32,
}

impl Share {
    fn add(&mut self, right: bool) {
        self.right += u32::from(right);
        self.of += 1;
    }

    /// From 0 to 1; 0 if nothing was judged.
    pub fn value(self) -> f64 {
        f64::from(self.right) / f64::from(self.of.max(1))
    }
}

fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edge_ir::{Builder, Ports};
    use edge_spec::Head;

    use super::*;

    /// Reads the first two values of a picture as logits.
    #[derive(Default)]
    struct First(Ports);

    impl Executor for First {
        fn ports(&self) -> &Ports {
            &self.0
        }

        fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(vec![Tensor::f32s([1, 2], &inputs[0].to_f32s()[..2])])
        }
    }

    fn graph(labels: usize) -> Checked<Graph> {
        let mut b = Builder::new("judge");
        let x = b.input("image", DType::Float32, &[1, 3, 1, labels]);
        let shape = b.ints(&[3, i64::try_from(labels).expect("small")]);
        let y = b.node("Reshape", "rows", &[x, shape], &[]).expect("reshape");
        let index = b.ints(&[0]);
        let z = b.node("Gather", "first", &[y, index], &[]).expect("gather");
        b.output("shape", z);
        b.finish().expect("a graph")
    }

    fn spec() -> JudgeSpec {
        JudgeSpec {
            schema: edge_spec::JUDGE_SCHEMA.into(),
            model: "judge.onnx".into(),
            heads: vec![Head { name: "shape".into(), labels: vec!["circle".into(), "ring".into()] }],
            accuracy: vec!["shape".into()],
        }
    }

    fn prompt(value: &str) -> Prompt {
        Prompt { text: "a shape".into(), truth: BTreeMap::from([("shape".into(), value.into())]) }
    }

    #[test]
    fn a_reading_counts_as_right_where_it_is_what_was_asked_for() {
        let mut judge = Judge::new(spec(), &graph(2), Box::<First>::default()).expect("a judge");
        let mut tally = judge.tally();
        for (picture, asked, right) in
            [([0.1, 0.9], "ring", true), ([0.9, 0.1], "ring", false), ([0.9, 0.1], "circle", true)]
        {
            let planes = [picture.as_slice(), &[0.0; 4]].concat();
            let reading = judge.read(&planes, [1, 2]).expect("a reading");
            assert_eq!(judge.count(&mut tally, &prompt(asked), &reading).expect("known"), right);
        }
        assert_eq!(tally.accuracy, Share { right: 2, of: 3 });
        assert_eq!(tally.heads, [("shape".to_owned(), Share { right: 2, of: 3 })]);
        let error = judge.count(&mut tally, &prompt("star"), &[0]).expect_err("no such label");
        assert_eq!(error.to_string(), "prompt `a shape` asks for `shape=star`, which the judge cannot read");
        let error = judge.read(&[0.0; 12], [2, 2]).expect_err("too large");
        assert_eq!(error.to_string(), "the judge reads pictures of [1, 2] (height and width in pixels), got [2, 2]");
    }

    #[test]
    fn a_graph_that_is_not_as_described_is_refused() {
        let error = Judge::new(spec(), &graph(3), Box::<First>::default()).err().expect("three labels").to_string();
        assert_eq!(error, "the judge `judge` has `shape` float32[1, 3], expected `shape` float32[1, 2]");
    }
}
