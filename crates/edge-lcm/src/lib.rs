//! The Latent Consistency sampler as pure mathematics: no tensors, no files, no clock.
//!
//! A scheduler configuration ([`SchedulerConfig`]) and a request for steps ([`StepRequest`]) give a
//! [`Schedule`]: the timesteps, the coefficients of every step, and the step itself. Noise comes from
//! [`TorchGenerator`], the embeddings that the network is conditioned on from [`guidance_embedding`]
//! and [`timestep_embedding`].
//!
//! Everything follows diffusers 0.42 on `PyTorch`'s CPU kernels, in `f32` and in their order of
//! operations. Functions beyond square root come from `libm`, never from the platform: the same
//! inputs give the same bits on every machine.

mod affine;
mod betas;
mod config;
mod cousins;
mod embedding;
mod error;
mod mathfun;
mod noise;
mod schedule;
mod step;

pub use affine::{Affine, Clip};
pub use config::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing};
pub use embedding::{guidance_embedding, timestep_embedding};
pub use error::Error;
pub use noise::TorchGenerator;
pub use schedule::{Coefficients, Schedule, StepRequest, Warning};
pub use step::StepOutput;
