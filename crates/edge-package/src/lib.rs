//! Packs a verified model for an NPU SDK: [`gate()`] lets pass what a report speaks of, [`assemble`] puts a bundle together,
//! and an [`Emitter`] adds the files that the SDK wants.

mod assemble;
mod compile;
mod emit;
mod error;
mod gate;
mod golden;
mod ports;
mod readme;

pub use assemble::{Assembled, Call, Floats, Played, Source, assemble, has_integers};
pub use compile::{
    CompilerSaid, EmulatorSaid, FloatOperator, Refused, add_compiled, crashing, groups, refused, unasked,
};
pub use emit::{EMITTERS, Emission, Emitter, Job, Scripts, check, find};
pub use error::{GateError, PackageError};
pub use gate::{gate, model_files};
