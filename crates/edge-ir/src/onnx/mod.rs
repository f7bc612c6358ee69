//! ONNX files: reading and writing. The only module that names protobuf types.
//!
//! Weights stand in the model file (`inline`), in one `model.onnx_data` beside it (`copy`), or stay in the files they
//! came from, which are hard-linked beside the model (`link`): ONNX external data may point into any file. Graphs of one folder
//! share their weights' file.

#[rustfmt::skip]
#[expect(unreachable_pub, clippy::pedantic, clippy::enum_variant_names, reason = "generated")]
mod proto;

mod context;
mod encode;
mod read;
mod weights;
mod write;

pub use context::{Context, read_context};
pub use read::read;
pub use write::{NonFinite, WeightMode, WriteOptions, Written, encode_inline, write, write_all};

/// The file name of a graph in its component's folder.
pub const MODEL_FILE: &str = "model.onnx";

/// The opsets that can be written, each with the IR version that goes with it.
pub const OPSETS: &[(u32, i64)] = &[(17, 8), (18, 8), (19, 9), (20, 9), (21, 10)];
