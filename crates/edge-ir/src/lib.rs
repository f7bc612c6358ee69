//! The graph that every stage of edgetool reads or writes.
//!
//! A [`Graph`] is a list of nodes over a list of typed, statically shaped values; the operators are the rows of the
//! table in [`ops`], named and defined as in ONNX. Weights are views ([`Data`]): a range of a mapped file, bytes in
//! memory, or a cast of another view that is evaluated while it streams to disk. A graph is trusted by writers and
//! executors only as [`Checked`], which [`Graph::check`] alone makes. [`onnx`] is the only module that knows protobuf.

mod builder;
mod check;
mod data;
mod dtype;
mod dump;
pub mod encoding;
mod error;
mod executor;
mod graph;
mod inline;
pub mod onnx;
pub mod ops;
mod rewrite;
mod stats;
mod view;

pub use builder::Builder;
pub use check::Checked;
pub use data::{Data, MappedFile};
pub use dtype::DType;
pub use dump::dump;
pub use encoding::{Encoding, Granularity};
pub use error::Error;
pub use executor::{Executor, Failure, Ports, Tensor};
pub use graph::{Attribute, Graph, Model, Node, TensorType, Value, ValueId};
pub use inline::Scope;
pub use rewrite::{Rewritten, Rule, rewrite};
pub use stats::{Stats, stats};
pub use view::{View, pair, replacement};
