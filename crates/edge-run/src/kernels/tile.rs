//! The register tile: up to 12 rows times 32 columns of a matrix product.
//!
//! The right-hand side is packed in strips of 32 columns: for each step of the depth, 32 floats in
//! a row. The left-hand side is read where it lies. Each element is one chain of fused
//! multiply-adds in the order of the depth, whatever the vector width.

use fearless_simd::{Level, Simd, prelude::*};

/// Columns of a strip.
pub(super) const COLS: usize = 32;
/// Most rows of a tile.
pub(super) const ROWS: usize = 12;

/// A left-hand matrix, read in place.
#[derive(Clone, Copy)]
pub(super) enum Lhs<'a> {
    /// Element (i, k) is at `i * stride + k`.
    Rows {
        /// The matrix, from its first element.
        data: &'a [f32],
        /// Distance between rows.
        stride: usize,
    },
    /// Element (i, k) is at `k * stride + i`.
    Cols {
        /// The matrix, from its first element.
        data: &'a [f32],
        /// Distance between columns.
        stride: usize,
    },
}

/// The part of a product that one tile covers.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// First row of the left-hand side.
    pub(super) row: usize,
    /// First step of the depth in the left-hand side.
    pub(super) start: usize,
    /// Steps of the depth; the strip holds as many rows of [`COLS`].
    pub(super) depth: usize,
    /// Columns that matter; the others may be left untouched.
    pub(super) cols: usize,
}

/// Vector code for this machine.
pub(super) fn level() -> Level {
    Level::new()
}

/// How many rows the next tile takes when `left` remain: 12, 8, 4, 2 or 1.
#[inline(always)]
pub(super) fn step(left: usize) -> usize {
    match left {
        12.. => 12,
        8..12 => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}

/// Writes `rows` x [`COLS`] products to `out`, where `rows` comes from [`step`].
#[inline(always)]
pub(super) fn tile<S: Simd>(simd: S, lhs: Lhs, rows: usize, span: Span, strip: &[f32], out: &mut [f32]) {
    match rows {
        12 => split::<S, 12, 6>(simd, lhs, span, strip, out),
        8 => split::<S, 8, 4>(simd, lhs, span, strip, out),
        4 => split::<S, 4, 4>(simd, lhs, span, strip, out),
        2 => split::<S, 2, 2>(simd, lhs, span, strip, out),
        _ => split::<S, 1, 1>(simd, lhs, span, strip, out),
    }
}

/// Cuts a tile to what the registers of this vector width hold.
#[inline(always)]
fn split<S: Simd, const R: usize, const PART: usize>(simd: S, lhs: Lhs, span: Span, strip: &[f32], out: &mut [f32]) {
    let width = S::f32s::LEN;
    if width >= 16 {
        if span.cols > 16 {
            registers::<S, R, 2>(simd, lhs, span, 0, strip, out);
        } else {
            registers::<S, R, 1>(simd, lhs, span, 0, strip, out);
        }
        return;
    }
    for (part, out) in out.chunks_exact_mut(PART * COLS).take(R / PART).enumerate() {
        let span = Span { row: span.row + part * PART, ..span };
        for col in (0..span.cols).step_by(2 * width) {
            registers::<S, PART, 2>(simd, lhs, span, col, strip, out);
        }
    }
}

/// `R` rows by `V` vectors, kept in registers over the whole depth.
#[inline(always)]
fn registers<S: Simd, const R: usize, const V: usize>(
    simd: S,
    lhs: Lhs,
    span: Span,
    col: usize,
    strip: &[f32],
    out: &mut [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            let acc = match lhs {
                Lhs::Rows { data, stride } => by_rows::<S, R, V>(simd, data, stride, span, col, strip),
                Lhs::Cols { data, stride } => by_cols::<S, R, V>(simd, data, stride, span, col, strip),
            };
            let width = S::f32s::LEN;
            for (row, out) in acc.iter().zip(out.chunks_exact_mut(COLS)) {
                for (vector, out) in row.iter().zip(out[col..].chunks_exact_mut(width)) {
                    vector.store_slice(out);
                }
            }
        },
    );
}

/// The accumulators for a left-hand side whose rows are contiguous.
#[inline(always)]
fn by_rows<S: Simd, const R: usize, const V: usize>(
    simd: S,
    data: &[f32],
    stride: usize,
    span: Span,
    col: usize,
    strip: &[f32],
) -> [[S::f32s; V]; R] {
    let mut acc = [[S::f32s::splat(simd, 0.0); V]; R];
    let rows: [&[f32]; R] = std::array::from_fn(|i| &data[(span.row + i) * stride + span.start..][..span.depth]);
    let (steps, _) = strip.as_chunks::<COLS>();
    for (k, step) in steps[..span.depth].iter().enumerate() {
        accumulate(simd, &mut acc, |i| rows[i][k], &step[col..]);
    }
    acc
}

/// The accumulators for a left-hand side whose columns are contiguous.
#[inline(always)]
fn by_cols<S: Simd, const R: usize, const V: usize>(
    simd: S,
    data: &[f32],
    stride: usize,
    span: Span,
    col: usize,
    strip: &[f32],
) -> [[S::f32s; V]; R] {
    let mut acc = [[S::f32s::splat(simd, 0.0); V]; R];
    let columns = data[span.start * stride + span.row..].chunks(stride);
    let (steps, _) = strip.as_chunks::<COLS>();
    for (step, column) in steps[..span.depth].iter().zip(columns) {
        if let Some(column) = column.first_chunk::<R>() {
            accumulate(simd, &mut acc, |i| column[i], &step[col..]);
        }
    }
    acc
}

/// One step of the depth: every row's factor times the strip's vectors. Factors are fetched one by
/// one, so that they do not compete with the sums for registers.
#[inline(always)]
fn accumulate<S: Simd, const R: usize, const V: usize>(
    simd: S,
    acc: &mut [[S::f32s; V]; R],
    factor: impl Fn(usize) -> f32,
    step: &[f32],
) {
    let width = S::f32s::LEN;
    let vectors: [S::f32s; V] = std::array::from_fn(|j| S::f32s::from_slice(simd, &step[j * width..(j + 1) * width]));
    for (i, row) in acc.iter_mut().enumerate() {
        let factor = S::f32s::splat(simd, factor(i));
        for (sum, vector) in row.iter_mut().zip(&vectors) {
            *sum = factor.mul_add(*vector, *sum);
        }
    }
}

/// Runs `work` with the vector code for this machine.
macro_rules! vectorized {
    ($simd:ident => $work:expr) => {
        fearless_simd::dispatch!($crate::kernels::tile::level(), $simd => $work)
    };
}
pub(super) use vectorized;
