//! Runs passes one after the other, with a check after each.

use edge_ir::{Checked, Graph};

use crate::{Error, Pass};

/// All passes have run this often at most: one more than any graph needs that passes do not fight over.
const ROUNDS: usize = 8;

/// Where to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopAfter {
    /// After the first run of the pass with this name.
    pub pass: String,
    /// In which it does only so many rewrites, counted over all graphs.
    pub rewrites: Option<usize>,
}

/// One pass on one graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The graph's name.
    pub graph: String,
    /// The pass's name.
    pub pass: &'static str,
    /// The name of the node at which each rewrite was done, in order.
    pub places: Vec<String>,
}

/// Runs passes and keeps a record.
#[derive(Default)]
pub struct Driver<'a> {
    /// Where to stop, if not at the end.
    pub stop_after: Option<StopAfter>,
    /// Called with every pass and the graph that it left.
    pub after_pass: Option<AfterPass<'a>>,
    /// The passes that changed something, in order.
    pub runs: Vec<Run>,
}

/// Sees a pass's name and the graph after it.
type AfterPass<'a> = Box<dyn FnMut(&'static str, &Checked<Graph>) + 'a>;

impl Driver<'_> {
    /// Runs all passes, in order, again and again until none changes the graph.
    ///
    /// # Errors
    /// If a pass fails, leaves a graph that breaks a rule, or the passes do not come to an end.
    pub fn run(&mut self, passes: &[Box<dyn Pass>], mut graph: Checked<Graph>) -> Result<Checked<Graph>, Error> {
        let mut last = None;
        for _ in 0..ROUNDS {
            last = None;
            for pass in passes {
                let (rewritten, changed) = self.one(pass.as_ref(), graph)?;
                graph = rewritten;
                if changed {
                    last = Some(pass.name());
                }
                if self.stop_after.as_ref().is_some_and(|stop| stop.pass == pass.name()) {
                    return Ok(graph);
                }
            }
            if last.is_none() {
                return Ok(graph);
            }
        }
        Err(Error::Endless { pass: last.unwrap_or_default(), graph: graph.name.clone(), round: ROUNDS })
    }

    /// How many rewrites a pass has done on all graphs so far.
    pub fn rewrites(&self, pass: &str) -> usize {
        self.runs.iter().filter(|run| run.pass == pass).map(|run| run.places.len()).sum()
    }

    fn one(&mut self, pass: &dyn Pass, graph: Checked<Graph>) -> Result<(Checked<Graph>, bool), Error> {
        let name = graph.name.clone();
        let limit = match &self.stop_after {
            Some(StopAfter { pass: last, rewrites: Some(rewrites) }) if *last == pass.name() => {
                rewrites.saturating_sub(self.rewrites(last))
            }
            _ => usize::MAX,
        };
        let fail = |source| Error::Pass { pass: pass.name(), graph: name.clone(), source };
        let rewritten = pass.run(graph.into_inner(), limit).map_err(fail)?;
        let graph = rewritten.graph.check().map_err(fail)?;
        if let Some(look) = &mut self.after_pass {
            look(pass.name(), &graph);
        }
        let changed = !rewritten.places.is_empty();
        if changed {
            self.runs.push(Run { graph: name, pass: pass.name(), places: rewritten.places });
        }
        Ok((graph, changed))
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType, Error as IrError, Rewritten, rewrite};

    use super::*;

    /// Replaces one operator by another.
    struct Swap(&'static str, &'static str);

    impl Pass for Swap {
        fn name(&self) -> &'static str {
            self.0
        }

        fn about(&self) -> &'static str {
            "for tests"
        }

        fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, IrError> {
            rewrite(graph, limit, &mut |view, index, b| {
                let Some(node) = view.node(index, self.0) else { return Ok(None) };
                Ok(Some(vec![b.node(self.1, &node.name, &[node.inputs[0].expect("an input")], &[])?]))
            })
        }
    }

    fn graph(name: &str) -> Checked<Graph> {
        let mut b = Builder::new(name);
        let mut x = b.input("x", DType::Float32, &[2]);
        for step in ["a", "b", "c"] {
            x = b.node("Relu", step, &[x], &[]).expect("a node");
        }
        b.output("out", x);
        b.finish().expect("a graph")
    }

    fn operators(graph: &Graph) -> Vec<&'static str> {
        graph.nodes.iter().map(|n| n.op.name).collect()
    }

    fn passes() -> Vec<Box<dyn Pass>> {
        vec![Box::new(Swap("Relu", "Tanh")), Box::new(Swap("Tanh", "Erf"))]
    }

    #[test]
    fn all_passes_run_and_are_recorded() {
        let mut seen = Vec::new();
        let after_pass: AfterPass<'_> = Box::new(|pass, graph| seen.push((pass, operators(graph)[0])));
        let mut driver = Driver { after_pass: Some(after_pass), ..Driver::default() };
        let done = driver.run(&passes(), graph("g")).expect("passes");
        assert_eq!(operators(&done), ["Erf"; 3]);
        let places = ["a", "b", "c"].map(str::to_owned).to_vec();
        let run = |pass| Run { graph: "g".into(), pass, places: places.clone() };
        assert_eq!(driver.runs, [run("Relu"), run("Tanh")]);
        drop(driver);
        assert_eq!(seen, [("Relu", "Tanh"), ("Tanh", "Erf"), ("Relu", "Erf"), ("Tanh", "Erf")]);
    }

    #[test]
    fn rewrites_are_counted_over_graphs() {
        let stop_after = Some(StopAfter { pass: "Relu".into(), rewrites: Some(4) });
        let mut driver = Driver { stop_after, ..Driver::default() };
        assert_eq!(operators(&driver.run(&passes(), graph("g")).expect("passes")), ["Tanh"; 3]);
        assert_eq!(operators(&driver.run(&passes(), graph("h")).expect("passes")), ["Tanh", "Relu", "Relu"]);
        assert_eq!(driver.rewrites("Relu"), 4);
    }

    #[test]
    fn passes_that_undo_each_other_are_told() {
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(Swap("Relu", "Tanh")), Box::new(Swap("Tanh", "Relu"))];
        let error = Driver::default().run(&passes, graph("g")).expect_err("no end").to_string();
        assert_eq!(error, "the passes on `g` do not come to an end: `Tanh` still rewrites in round 8");
    }
}
