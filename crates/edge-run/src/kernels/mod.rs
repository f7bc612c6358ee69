//! The arithmetic behind the operators: pure functions over `f32` slices.
//!
//! Every kernel computes each output element in an order that depends on the shapes alone, never
//! on the number of threads, so results are the same bits on any thread count. Vector code is
//! chosen at run time; machines with fused multiply-add give the same bits among themselves.
//!
//! | file | what |
//! |---|---|
//! | `tile` | the register tile all matrix products are made of |
//! | `matmul` | blocked, parallel product of a matrix with packed columns |
//! | `transpose` | packs rows as columns, in registers |
//! | `gemm` | linear layers and plain matrix products |
//! | `conv` | two-dimensional convolution |
//! | `attention` | scaled dot-product attention in blocks of queries |
//! | `norm` | group and layer normalization |
//! | `elementwise` | activations |
//! | `math` | `exp`, `erf` and activations that compilers can vectorize |
//! | `scratch` | temporary buffers, one per thread |

#![expect(clippy::inline_always, reason = "vector code must be inlined where its instructions are enabled")]
#![expect(clippy::many_single_char_names, reason = "matrices and their sizes have the names of the literature")]

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gemm;
mod math;
mod matmul;
pub(crate) mod norm;
mod scratch;
mod tile;
mod transpose;

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "test data are small numbers")]
mod testing;

/// A buffer whose length does not fit the shapes it was given with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got}")]
pub(crate) struct KernelError {
    /// What was measured.
    what: &'static str,
    /// The value that the shapes call for.
    expected: usize,
    /// The value found.
    got: usize,
}

/// Holds `got` against `expected`.
fn check(what: &'static str, expected: usize, got: usize) -> Result<(), KernelError> {
    if expected == got { Ok(()) } else { Err(KernelError { what, expected, got }) }
}
