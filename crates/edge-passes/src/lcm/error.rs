//! Why a sampler does not fold.

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The model lacks a graph, or a graph lacks an input or output.
    #[error("the model has no {what}")]
    Missing {
        /// What was looked for.
        what: String,
    },
    /// An operator that depends on the timestep alone, and that is not known here.
    #[error("node `{node}` ({op}) depends on the timestep alone and cannot be computed beforehand")]
    Operator {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
    },
    /// A value that ought to follow from known ones does not.
    #[error("`{value}` does not follow from the timestep")]
    Unknown {
        /// The value.
        value: String,
    },
    /// The configuration thresholds, for which there is no operator in the graphs.
    #[error("it takes a quantile of each image, for which the graphs have no operator")]
    Thresholding,
    /// A request that goes against the model.
    #[error("{0}")]
    Request(&'static str),
    /// The graph that came out is not sound.
    #[error(transparent)]
    Ir(#[from] edge_ir::Error),
}
