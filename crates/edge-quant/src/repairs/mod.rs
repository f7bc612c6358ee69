//! Changes of a float graph that make up for what integers will cost it.

mod bias;
mod reach;
mod smooth;

pub use bias::correct_biases;
pub use smooth::smooth;
