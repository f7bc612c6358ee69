//! Judges whether a model does what it was trained to do.
//!
//! Works through [`edge_ir::Executor`], so it knows no runtime.

mod judge;

pub use judge::{Error, Judge, Share, Tally};
