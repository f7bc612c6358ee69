//! Runs models: a graph on tract ([`Session`]), and a prompt to a picture ([`Sampler`]).
//!
//! The only crate that knows tract, the tokenizer library and PNG. Before a graph runs, groups of its operators are
//! replaced by operators of this crate (`fuse`) whose kernels (`kernels`) use every core and hold no large
//! intermediate results; the numbers stay the same to rounding.

mod error;
mod fuse;
mod kernels;
mod observe;
mod ops;
pub mod picture;
mod sampler;
mod session;
pub mod tensors;
pub mod tokenizer;

pub use error::Error;
pub use observe::{Failure, Observer};
pub use sampler::{Decoder, Folded, Form, Graphs, Guidance, Noise, Plan, Prompts, Request, Sampler, Sessions, Trace};
pub use session::{Loaded, Session, Watcher, set_threads};
