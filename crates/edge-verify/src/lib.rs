//! Judges whether a model does what it was trained to do.
//!
//! Knows tensors, pictures and graphs, and a judge through [`edge_ir::Executor`]; it knows no runtime.
//! [`judge`](fn@judge) makes checks of what two models drew, [`profile`](fn@profile) finds the layer at which they part,
//! [`page`](fn@page) shows a report to a person.

mod checks;
mod drawing;
mod floats;
mod judge;
pub mod metrics;
mod page;
mod place;
mod precision;
mod profile;
mod sample;
mod saturation;
mod tolerances;

pub use checks::{Apart, Evidence, Findings, PICTURE, Precisions, judge};
pub use drawing::{Drawing, aligned, aligned_to};
pub use floats::{FloatError, Weights, in_float};
pub use judge::{Error, Judge, Share, Tally};
pub use page::{PageError, Shown, ShownStep, page};
pub use place::{Landmark, Place, SCHEDULER, TEXT_ENCODER, UNET, comparable, landmarks, place};
pub use precision::Precision;
pub use profile::{Measure, Run, Suspicion, profile};
pub use sample::{Histogram, Sample};
pub use saturation::{Quantizer, Saturation, quantizers};
pub use tolerances::Limits;
