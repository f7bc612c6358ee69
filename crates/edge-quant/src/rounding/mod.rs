//! Weights become integers with the least error of what their layer gives, not of the weights themselves.
//!
//! What a layer gives for inputs `X` is `X w`; the square error of rounded weights is `e^T (X^T X) e` of their
//! differences `e`. So all that is needed of the inputs is [`Gram`], `X^T X`, which is summed while a model runs.

mod cholesky;
mod gptq;
mod gram;
mod scales;

pub use gptq::gptq;
pub use gram::Gram;
pub use scales::{Integers, Scales, nearest, sequential_mse};
