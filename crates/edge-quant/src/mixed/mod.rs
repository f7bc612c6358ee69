//! Mixed precision: which parts of a network get how many bits.
//!
//! [`parts`](fn@parts) lists what can be chosen, [`path`](fn@path) says in which order wider types pay, [`widen`] and
//! [`Fit`] repair the scheduler's step of a quantized graph. What a part's type costs is measured by whoever can run the
//! graph, in [`pieces`](fn@pieces) of which a part changes one; what it takes on a device, [`estimate`] says.

mod choice;
mod parts;
mod pieces;
mod scheduler;
mod time;

pub use choice::{Menu, Offer, path, within};
pub use parts::{Part, Role, parts};
pub use pieces::pieces;
pub use scheduler::{Fit, Sums, widen};
pub use time::estimate;
