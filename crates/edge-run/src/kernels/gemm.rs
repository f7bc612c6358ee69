//! Linear layers, `y = x * w^T + b`, and plain matrix products, `y = x * w`.
//!
//! ONNX `Gemm` with `transB = 1` and `MatMul` of two matrices. Weights are used where they lie.
//! With many rows of `x` the weights are packed as columns; with few, `x` is, and `y` is computed
//! transposed; with one or two, each output is a dot product, as fast as memory gives the weights.

use std::ops::Range;

use fearless_simd::{Simd, f32x16, prelude::*};
use rayon::prelude::*;

use super::matmul::{Bias, Product, Rhs, accumulate, chunk, multiply};
use super::tile::{COLS, Lhs, vectorized};
use super::{KernelError, check, scratch, transpose};

/// Up to this many rows of `x`, each output is a dot product.
const DOT_ROWS: usize = 2;
/// Up to this many rows, `y` is computed transposed.
const FEW_ROWS: usize = 384;
/// Outputs per task where `y` is computed transposed.
const TASK_OUTPUTS: usize = 96;
/// Outputs per task of dot products.
const DOT_OUTPUTS: usize = 64;

/// `[M, K]` times `[N, K]` transposed, plus `[N]`, to `[M, N]`.
pub(crate) fn linear(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    [m, k, n]: [usize; 3],
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_sizes(x, w, bias, [m, k, n], y)?;
    if y.is_empty() {
        return Ok(());
    }
    if m <= DOT_ROWS {
        for (x, y) in x.chunks(k.max(1)).zip(y.chunks_mut(n)) {
            dots(x, w, bias, y);
        }
    } else if m <= FEW_ROWS {
        transposed(x, w, bias, [m, k, n], y);
    } else {
        let rhs = RowsAsColumns { data: w, stride: k, cols: n };
        full(x, &rhs, bias, [k, n], y);
    }
    Ok(())
}

/// `[M, K]` times `[K, N]`, plus `[N]`, to `[M, N]`.
pub(crate) fn matmul(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    [m, k, n]: [usize; 3],
    y: &mut [f32],
) -> Result<(), KernelError> {
    check_sizes(x, w, bias, [m, k, n], y)?;
    full(x, &Columns { data: w, cols: n }, bias, [k, n], y);
    Ok(())
}

/// Holds every length against the shapes.
fn check_sizes(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    [m, k, n]: [usize; 3],
    y: &[f32],
) -> Result<(), KernelError> {
    check("input of a matrix product", m * k, x.len())?;
    check("weight of a matrix product", n * k, w.len())?;
    check("bias of a matrix product", n, bias.map_or(n, <[f32]>::len))?;
    check("output of a matrix product", m * n, y.len())
}

/// The product with packed weights.
fn full<R: Rhs>(x: &[f32], rhs: &R, bias: Option<&[f32]>, [k, n]: [usize; 2], y: &mut [f32]) {
    if k == 0 {
        y.chunks_mut(n.max(1)).for_each(|y| set(bias, y));
        return;
    }
    let product = Product {
        lhs: Lhs::Rows { data: x, stride: k },
        rhs,
        bias: bias.map_or(Bias::None, Bias::PerCol),
        depth: k,
        cols: n,
        chunk: chunk(k, 1),
    };
    multiply(&product, y);
}

/// Sets a row to the bias.
fn set(bias: Option<&[f32]>, y: &mut [f32]) {
    match bias {
        Some(bias) => y.copy_from_slice(bias),
        None => y.fill(0.0),
    }
}

/// A matrix `[K, N]` as right-hand side.
pub(super) struct Columns<'a> {
    /// The matrix, row by row.
    pub(super) data: &'a [f32],
    /// Its columns, N.
    pub(super) cols: usize,
}

impl Rhs for Columns<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, _simd: S, depth: Range<usize>, strip: usize, out: &mut [f32]) {
        let length = depth.len() * COLS;
        let rows = self.data[depth.start * self.cols..].chunks(self.cols);
        for (k, row) in rows.take(depth.len()).enumerate() {
            let pieces = row[strip * COLS..].chunks(COLS);
            for (piece, out) in pieces.zip(out.chunks_exact_mut(length)) {
                let out = &mut out[k * COLS..(k + 1) * COLS];
                if let (Some(from), Some(to)) = (piece.first_chunk::<COLS>(), out.first_chunk_mut()) {
                    *to = *from;
                } else {
                    out[..piece.len()].copy_from_slice(piece);
                    out[piece.len()..].fill(0.0);
                }
            }
        }
    }
}

/// A matrix `[N, K]` whose rows are the columns of the right-hand side.
struct RowsAsColumns<'a> {
    /// The matrix, row by row.
    data: &'a [f32],
    /// Its columns, K.
    stride: usize,
    /// Its rows, N.
    cols: usize,
}

impl Rhs for RowsAsColumns<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, simd: S, depth: Range<usize>, strip: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(depth.len() * COLS).enumerate() {
            let first = (strip + i) * COLS;
            let width = COLS.min(self.cols - first);
            let data = &self.data[first * self.stride + depth.start..];
            transpose::strip(simd, data, self.stride, width, out);
        }
    }
}

/// `y^T = w * x^T`: the weights are read once and in order, `x` is packed.
fn transposed(x: &[f32], w: &[f32], bias: Option<&[f32]>, [m, k, n]: [usize; 3], y: &mut [f32]) {
    let strips = m.div_ceil(COLS);
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..n.div_ceil(TASK_OUTPUTS)).map(|_| Vec::with_capacity(m)).collect();
    for row in y.chunks_mut(n) {
        for (task, piece) in tasks.iter_mut().zip(row.chunks_mut(TASK_OUTPUTS)) {
            task.push(piece);
        }
    }
    let length = chunk(k, 1);
    scratch::with(k * strips * COLS, |panel| {
        panel.par_chunks_mut((length * strips * COLS).max(1)).enumerate().for_each(|(c, part)| {
            let depth = part.len() / (strips * COLS);
            part.par_chunks_mut(depth * COLS).enumerate().for_each(|(i, strip)| {
                let data = &x[i * COLS * k + c * length..];
                let rows = COLS.min(m - i * COLS);
                vectorized!(simd => transpose::strip(simd, data, k, rows, strip));
            });
        });
        let panel = &*panel;
        tasks.par_iter_mut().enumerate().for_each(|(t, rows)| {
            let lhs = Lhs::Rows { data: w, stride: k };
            let first = t * TASK_OUTPUTS;
            vectorized!(simd => few(simd, lhs, first, bias, (k, length, strips), panel, rows));
        });
    });
}

/// One task of [`transposed`]: some outputs of every row, gathered before they are turned.
#[inline(always)]
fn few<S: Simd>(
    simd: S,
    lhs: Lhs,
    first: usize,
    bias: Option<&[f32]>,
    (k, length, strips): (usize, usize, usize),
    panel: &[f32],
    rows: &mut [&mut [f32]],
) {
    let outputs = rows.first().map_or(0, |row| row.len());
    let mut sums = vec![0.0_f32; outputs * strips * COLS];
    for start in (0..k).step_by(length.max(1)) {
        let depth = start..(start + length).min(k);
        let part = &panel[start * strips * COLS..depth.end * strips * COLS];
        accumulate(simd, lhs, first, depth, part, rows.len(), &mut sums);
    }
    for (m, row) in rows.iter_mut().enumerate() {
        let part = &sums[m / COLS * outputs * COLS + m % COLS..];
        for (n, y) in row.iter_mut().enumerate() {
            *y = part[n * COLS] + bias.map_or(0.0, |bias| bias[first + n]);
        }
    }
}

/// One row of `x` against every row of `w`.
fn dots(x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    if x.is_empty() {
        return set(bias, y);
    }
    y.par_chunks_mut(DOT_OUTPUTS).enumerate().for_each(|(c, y)| {
        vectorized!(simd => {
            let rows = w[c * DOT_OUTPUTS * x.len()..].chunks_exact(x.len());
            for (i, (y, row)) in y.iter_mut().zip(rows).enumerate() {
                let add = bias.map_or(0.0, |bias| bias[c * DOT_OUTPUTS + i]);
                *y = dot(simd, x, row) + add;
            }
        });
    });
}

/// The dot product of two rows in 64 interleaved partial sums.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [f32x16::splat(simd, 0.0); 4];
    let (a, a_rest) = a.as_chunks::<64>();
    let (b, b_rest) = b.as_chunks::<64>();
    for (a, b) in a.iter().zip(b) {
        for (i, sum) in sums.iter_mut().enumerate() {
            let a = f32x16::from_slice(simd, &a[i * 16..(i + 1) * 16]);
            let b = f32x16::from_slice(simd, &b[i * 16..(i + 1) * 16]);
            *sum = a.mul_add(b, *sum);
        }
    }
    let mut lanes = [0.0; 16];
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).store_slice(&mut lanes);
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, on_pools};

    type Kernel = fn(&[f32], &[f32], Option<&[f32]>, [usize; 3], &mut [f32]) -> Result<(), KernelError>;

    /// Compares a kernel with sums in `f64`; `at` gives the weight's index for a step and a column.
    fn check_kernel(kernel: Kernel, at: impl Fn(usize, usize) -> usize, [m, k, n]: [usize; 3], biased: bool) {
        let (x, w, b) = (numbers(1, m * k), numbers(2, n * k), numbers(3, n));
        let bias = biased.then_some(&b[..]);
        let got = on_pools(|| {
            let mut y = vec![f32::NAN; m * n];
            kernel(&x, &w, bias, [m, k, n], &mut y).unwrap();
            y
        });
        let mut want = vec![0.0; m * n];
        for (i, want) in want.iter_mut().enumerate() {
            let (row, col) = (i / n, i % n);
            let terms = (0..k).map(|s| f64::from(x[row * k + s]) * f64::from(w[at(s, col)]));
            *want = terms.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[col]));
        }
        assert_close(&got, &want);
    }

    #[test]
    fn linear_agrees_with_its_twin() {
        for shape in [[1, 70, 5], [2, 333, 130], [1, 1, 1], [77, 768, 100], [5, 39, 97]] {
            check_kernel(linear, |s, col| col * shape[1] + s, shape, true);
        }
        for shape in [[385, 401, 37], [400, 17, 330], [390, 40, 4099], [384, 20, 3]] {
            check_kernel(linear, |s, col| col * shape[1] + s, shape, false);
            check_kernel(linear, |s, col| col * shape[1] + s, shape, true);
        }
    }

    #[test]
    fn matmul_agrees_with_its_twin() {
        for shape in [[1, 50, 7], [77, 64, 77], [31, 500, 33], [13, 777, 4100]] {
            check_kernel(matmul, |s, col| s * shape[2] + col, shape, true);
        }
    }

    #[test]
    fn an_empty_depth_gives_the_bias() {
        let mut y = [f32::NAN; 6];
        linear(&[], &[], Some(&[1.0, 2.0]), [3, 0, 2], &mut y).unwrap();
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn wrong_lengths_are_named() {
        let error = linear(&[0.0; 5], &[0.0; 6], None, [2, 3, 2], &mut [0.0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "input of a matrix product: expected 6, got 5");
    }
}
