//! Quantization: what values a tensor takes, by which integers they are stood for, and the graph with those integers.
//!
//! [`quantize`] takes a float graph in a target's form. `plan` decides which tensors are quantized and how, by the table
//! of `rules`; `insert` writes the graph; `weights` chooses the scales of weights, [`Range::encode`] those of
//! activations. [`encodings`] writes what was decided for tools that quantize themselves.

pub mod calibration;
pub mod encodings;
mod error;
mod float_form;
mod half;
mod inputs;
mod insert;
mod joins;
mod layers;
mod masks;
pub mod mixed;
mod names;
mod plan;
mod range;
pub mod repairs;
pub mod rounding;
mod rules;
mod settings;
mod shared;
mod weights;

pub use error::Error;
pub use float_form::{FloatForm, float_form};
pub use half::half_weights;
pub use inputs::Inputs;
pub use insert::{Encoded, Quantized, fold_casts, quantize};
pub use names::{applies, has_weights, near};
pub use plan::Ranges;
pub use range::Range;
pub use settings::Settings;
pub use shared::SharedWeights;
pub use weights::WeightScheme;
