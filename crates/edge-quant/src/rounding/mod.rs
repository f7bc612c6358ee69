//! Weights become integers with the least error of what their layer gives, not of the weights themselves.
//!
//! What a layer gives for inputs `X` is `X w`; the square error of rounded weights is `e^T (X^T X) e` of their
//! differences `e`. So all that is needed of the inputs is [`Gram`], `X^T X`, which is summed while a model runs. A layer
//! with many inputs has one for each [`Part`] of them, as if parts had nothing to do with one another.

#![expect(clippy::inline_always, reason = "vector code must be inlined where its instructions are enabled")]

mod cholesky;
mod gptq;
mod gram;
mod layer;
mod scales;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use gptq::gptq;
pub use gram::Gram;
pub(crate) use layer::round;
pub use scales::{Integers, Scales, nearest, sequential_mse};

/// How weights become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Each to the nearest, with the scale that the greatest weight asks for.
    MinMax,
    /// Each to the nearest, with the scale that makes the weights' error least.
    #[default]
    Nearest,
    /// Each to the nearest, with the scale that makes the outputs' error least.
    SequentialMse,
    /// Each so that it makes up for the errors of those before it.
    Gptq,
}

impl Rounding {
    /// All, by name.
    const TABLE: &[(&str, Self)] = &[
        ("min-max", Self::MinMax),
        ("nearest", Self::Nearest),
        ("sequential-mse", Self::SequentialMse),
        ("gptq", Self::Gptq),
    ];

    /// Whether it takes the products of a layer's inputs.
    pub fn needs_products(self) -> bool {
        matches!(self, Self::SequentialMse | Self::Gptq)
    }
}

impl FromStr for Rounding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::TABLE.iter().map(|row| row.0).collect::<Vec<_>>().join(", ");
        let row = Self::TABLE.iter().find(|row| row.0 == text);
        row.map(|row| row.1).ok_or_else(|| format!("expected one of {}", names()))
    }
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::TABLE.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
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
