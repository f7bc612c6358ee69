//! What a pass is.

use edge_ir::{Error, Graph, Rewritten};

/// One kind of rewrite. A pass with settings has them as fields.
pub trait Pass {
    /// Its name, as `--stop-after` takes it: lower case, words joined by `-`.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn about(&self) -> &'static str;

    /// Rewrites the graph, in `limit` places at most, and says in which; usually a call of [`edge_ir::rewrite`].
    /// After any number of rewrites the graph computes what it did before. A pass that has done all its work rewrites
    /// nothing when it runs again.
    ///
    /// # Errors
    /// If the graph cannot be rewritten.
    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error>;
}
