//! Rewrites of graphs, each one exact or its error stated: folding of constants, and lowering to what a target runs.
//!
//! A [`Pass`] is one kind of rewrite, one file. [`Driver`] runs a list of passes until none changes the graph any more,
//! checks the graph after each, and can stop or show the graph in the middle.

mod cse;
mod driver;
mod error;
mod eval;
mod fold;
pub mod lcm;
pub mod lower;
mod pass;
mod simplify;

pub use cse::CommonSubexpressions;
pub use driver::{Driver, Run, StopAfter};
pub use error::Error;
pub use eval::{Constant, evaluate};
pub use fold::FoldConstants;
pub use pass::{Approximation, Pass};
pub use simplify::SimplifyMoves;
