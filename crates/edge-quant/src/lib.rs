//! Quantization: what values a tensor takes, and by which integers they are stood for.

pub mod calibration;
mod range;
pub mod rounding;

pub use range::Range;
