//! Configurations, read strictly: every field is used, or known to be without effect on inference, or refused.

mod autoencoder_kl;
mod autoencoder_tiny;
mod clip_text;
mod fields;
mod unet;

pub use autoencoder_kl::Kl;
pub use autoencoder_tiny::Tiny;
pub use clip_text::{Activation, ClipText};
pub use unet::{Block, Unet};
