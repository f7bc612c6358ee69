//! What a pass is.

use edge_ir::{Error, Graph, Rewritten};

/// How far a function is from the one that it stands in for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Approximation {
    /// What is approximated, and by what.
    pub what: &'static str,
    /// The greatest difference of the two functions, for all arguments.
    pub bound: f32,
}

/// One kind of rewrite. A pass with settings has them as fields.
pub trait Pass {
    /// Its name, as `--stop-after` takes it: lower case, words joined by `-`.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn about(&self) -> &'static str;

    /// What it changes, if it is not exact.
    fn approximation(&self) -> Option<Approximation> {
        None
    }

    /// Rewrites the graph, in `limit` places at most, and says in which; usually a call of [`edge_ir::rewrite`].
    /// After any number of rewrites the graph computes what it did before. A pass that has done all its work rewrites
    /// nothing when it runs again.
    ///
    /// # Errors
    /// If the graph cannot be rewritten.
    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error>;
}
