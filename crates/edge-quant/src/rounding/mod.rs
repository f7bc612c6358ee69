//! Weights become integers with the least error of what their layer gives, not of the weights themselves.
//!
//! What a layer gives for inputs `X` is `X w`; the square error of rounded weights is `e^T (X^T X) e` of their
//! differences `e`. So all that is needed of the inputs is [`Gram`], `X^T X`, which is summed while a model runs. A layer
//! with many inputs has one for each [`Part`] of them, as if parts had nothing to do with one another.

mod cholesky;
mod gptq;
mod gram;
mod layer;
mod scales;

use std::ops::Range;

pub use gptq::gptq;
pub use gram::Gram;
pub(crate) use layer::round;
pub use scales::{Integers, Scales, nearest, sequential_mse};

/// How weights become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Each to the nearest, with the scale that makes the weights' error least.
    #[default]
    Nearest,
    /// Each to the nearest, with the scale that makes the outputs' error least.
    SequentialMse,
    /// Each so that it makes up for the errors of those before it.
    Gptq,
}

/// What is known of some of a layer's inputs.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The outputs that have these inputs: all, but for a convolution in groups.
    pub outputs: Range<usize>,
    /// The inputs, by their place in the weights of an output.
    pub columns: Range<usize>,
    /// Their products.
    pub gram: &'a Gram,
}
