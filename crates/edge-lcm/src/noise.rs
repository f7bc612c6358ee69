//! Gaussian noise from a seed, as `torch.randn` draws it on the CPU.
//!
//! Source: `aten/src/ATen/native/cpu/DistributionTemplates.h` (`normal_kernel`, `normal_fill`) and
//! `aten/src/ATen/core/DistributionsHelper.h` (`normal_distribution`) of `PyTorch` 2.x. The same seed
//! gives the same picture as diffusers does with `torch.Generator("cpu").manual_seed(seed)`.
//!
//! Tensors of 16 or more values are made by the vectorised kernel, bit for bit as on an x86 machine
//! with AVX2. Below 16 the platform's double-precision functions are used there and `libm` here:
//! they may differ in the last bit of a `f64`, which a rounding to `f32` nearly always hides.

use rand_mt::Mt;

use crate::mathfun;

/// How many values one block of the vectorised kernel makes: eight pairs.
const BLOCK: usize = 16;
const HALF_BLOCK: usize = BLOCK / 2;

/// `PyTorch`'s CPU random number generator: MT19937, and the normal value it keeps for the next draw.
#[derive(Clone, Debug)]
pub struct TorchGenerator {
    engine: Mt,
    /// Box-Muller makes two values; draws of fewer than 16 keep the second one here.
    kept: Option<f64>,
}

impl TorchGenerator {
    /// A generator as `torch.Generator("cpu").manual_seed(seed)`; only the low 32 bits of `seed` count.
    pub fn new(seed: u64) -> Self {
        let low = u32::try_from(seed & 0xffff_ffff).unwrap_or_default();
        Self { engine: Mt::new(low), kept: None }
    }

    /// The next 32 random bits of the engine, as every draw below consumes them.
    pub fn next_u32(&mut self) -> u32 {
        self.engine.next_u32()
    }

    /// `n` values with mean 0 and standard deviation 1, as `torch.randn(n, generator=self)` for a
    /// contiguous `float32` tensor of any shape with `n` elements.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal()).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            // The last 16 values are drawn anew: they overlap the last whole block.
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| self.uniform());
            box_muller(tail);
        }
        values
    }

    /// One value of a small tensor: computed in `f64`, two at a time.
    #[expect(clippy::cast_possible_truncation, reason = "the tensor holds `f32`")]
    fn normal(&mut self) -> f32 {
        if let Some(kept) = self.kept.take() {
            return kept as f32;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = libm::sqrt(-2.0 * libm::log1p(-u2));
        let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * u1);
        self.kept = Some(radius * sin);
        (radius * cos) as f32
    }

    /// Uniform in [0, 1) from the low 24 bits of one draw.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit a `f32` exactly")]
    fn uniform(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [0, 1) from the low 53 bits of two draws, the first one high.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a `f64` exactly")]
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        let bits = (high << 32 | low) & ((1 << 53) - 1);
        bits as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// Turns 16 uniform values into 16 normal ones: value `i` and value `i + 8` make a pair.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(HALF_BLOCK);
    for (a, b) in first.iter_mut().zip(second) {
        // (0, 1] rather than [0, 1): the logarithm of zero is not finite.
        let radius = (-2.0 * mathfun::ln(1.0 - *a)).sqrt();
        let (sin, cos) = mathfun::sin_cos(2.0 * std::f32::consts::PI * *b);
        // Adding the mean, 0, turns a negative zero into a positive one.
        *a = radius * cos + 0.0;
        *b = radius * sin + 0.0;
    }
}
