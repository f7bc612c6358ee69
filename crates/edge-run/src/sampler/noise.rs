//! Noise, one latent's worth at a time.

use edge_lcm::TorchGenerator;

use super::Noise;
use crate::Error;

/// Hands out noise in the order in which it is used.
pub(super) enum NoiseSource<'a> {
    Generator { torch: Box<TorchGenerator>, size: usize },
    Given { parts: std::iter::Chain<std::slice::Chunks<'a, f32>, std::slice::Chunks<'a, f32>>, size: usize },
}

impl<'a> NoiseSource<'a> {
    /// For latents of `size` numbers.
    pub(super) fn new(noise: &'a Noise, size: usize) -> Self {
        match noise {
            Noise::Seed(seed) => Self::Generator { torch: Box::new(TorchGenerator::new(*seed)), size },
            Noise::Given { latent, noise } => {
                Self::Given { parts: latent.chunks(size).chain(noise.chunks(size)), size }
            }
        }
    }

    /// The next part.
    pub(super) fn next(&mut self) -> Result<Vec<f32>, Error> {
        match self {
            Self::Generator { torch, size } => Ok(torch.randn(*size)),
            Self::Given { parts, size } => {
                let part = parts.next().unwrap_or_default();
                if part.len() == *size {
                    Ok(part.to_vec())
                } else {
                    Err(Error::Noise { expected: *size, got: part.len() })
                }
            }
        }
    }
}
