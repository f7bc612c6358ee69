//! What values the tensors of a model take while it draws.
//!
//! An [`Observer`] keeps extremes and a histogram of one tensor, never the values. Everything in it is a number of
//! occurrences, a least or a greatest value, so that observations join exactly, in any order: [`Statistics`] of parts of
//! a list of prompts, made on any number of machines, give the bytes of one run over all of it ([`Merger`]).

mod choice;
mod error;
mod file;
mod fingerprint;
mod histogram;
mod merge;
mod method;
mod mse;
mod observer;
mod statistics;
mod taps;

pub use error::CalibrationError;
pub use file::{CALIBRATION_SCHEMA, read, write};
pub use fingerprint::fingerprint;
pub use histogram::Histogram;
pub use merge::Merger;
pub use method::{Grid, HEADROOM, Method};
pub use observer::Observer;
pub use statistics::{GraphStatistics, PromptSet, Run, Shard, Statistics};
pub use taps::{Taps, taps};
