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
