//! The errors of this crate.

/// What can go wrong in a rewrite.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pass failed, or left a graph that breaks a rule.
    #[error("pass `{pass}` failed on `{graph}`")]
    Pass {
        /// The pass.
        pass: &'static str,
        /// The graph's name.
        graph: String,
        /// Why.
        source: edge_ir::Error,
    },
    /// The passes undo one another's work.
    #[error("the passes on `{graph}` do not come to an end: `{pass}` still rewrites in round {round}")]
    Endless {
        /// The last pass that changed something.
        pass: &'static str,
        /// The graph's name.
        graph: String,
        /// How often all passes have run.
        round: usize,
    },
}
