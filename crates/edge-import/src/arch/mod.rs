//! The architectures: a configuration and weights become a graph. One file an architecture; what they share is in
//! [`layers`].

pub(crate) mod autoencoder_kl;
pub(crate) mod autoencoder_tiny;
pub(crate) mod clip_text;
mod layers;
pub(crate) mod unet;
