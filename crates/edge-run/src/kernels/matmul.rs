//! The blocked product `y = lhs * rhs + bias`, parallel over blocks of `y`.
//!
//! The right-hand side is packed in strips (see [`tile`](super::tile)) for one chunk of the depth
//! at a time; each chunk's partial sum is added to `y`, which keeps rounding errors small. Wide
//! products pack in each task what that task needs. Narrow ones, with few column blocks, pack once
//! for all tasks and are then cut along the rows as well.

use std::ops::Range;

use fearless_simd::Simd;
use rayon::prelude::*;

use super::scratch;
use super::tile::{COLS, Lhs, ROWS, Span, step, tile, vectorized};

/// Columns of `y` that one task of a wide product computes.
const WIDE: usize = 256;
/// A product with at least so many blocks of [`WIDE`] columns is wide.
const MANY: usize = 16;
/// Rows of a task of a narrow product.
const TASK_ROWS: usize = 96;
/// Most columns of a task of a narrow product.
const TASK_COLS: usize = 320;
/// Floats that the shared panel of a narrow product may hold.
const PANEL: usize = 4 << 20;
/// Strips that a task packs for all.
const PACK_STRIPS: usize = 4;
/// Depth that a chunk does not exceed.
pub(super) const CHUNK: usize = 384;

/// A right-hand side that can be packed.
pub(super) trait Rhs: Sync {
    /// Packs the steps in `depth` of the columns from `strip * 32` on, strip after strip, each as
    /// `out[k * 32 + column]`.
    ///
    /// `out` is a whole number of strips; columns beyond the matrix become zero.
    fn pack<S: Simd>(&self, simd: S, depth: Range<usize>, strip: usize, out: &mut [f32]);
}

/// What is added to the product.
#[derive(Clone, Copy)]
pub(super) enum Bias<'a> {
    /// Nothing.
    None,
    /// One value per row of `y`.
    PerRow(&'a [f32]),
    /// One value per column of `y`.
    PerCol(&'a [f32]),
}

/// The shapes and operands of a product.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, R> {
    /// The matrix that is read in place, `[rows, depth]`.
    pub(super) lhs: Lhs<'a>,
    /// The matrix that is packed, `[depth, cols]`.
    pub(super) rhs: &'a R,
    /// What is added.
    pub(super) bias: Bias<'a>,
    /// Steps of the depth.
    pub(super) depth: usize,
    /// Columns of `y`.
    pub(super) cols: usize,
    /// Steps of a chunk of the depth.
    pub(super) chunk: usize,
}

/// The length of equal chunks of `depth` that are multiples of `unit` and, if possible, of at most
/// [`CHUNK`] steps.
pub(super) fn chunk(depth: usize, unit: usize) -> usize {
    let units = depth.div_ceil(unit).max(1);
    let most = (CHUNK / unit).max(1);
    units.div_ceil(units.div_ceil(most)) * unit
}

/// Computes the product into `y`, `[rows, cols]` row by row.
pub(super) fn multiply<R: Rhs>(product: &Product<R>, y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    if product.cols >= WIDE * MANY {
        let mut blocks = cut(y, product.cols, usize::MAX, WIDE);
        let strips = WIDE.min(product.cols).div_ceil(COLS);
        blocks.par_iter_mut().for_each(|block| {
            let (panel, sums) = (product.chunk * strips * COLS, block.rows.len() * strips * COLS);
            scratch::with(panel + sums, |buffer| {
                let (sums, panel) = buffer.split_at_mut(sums);
                vectorized!(simd => wide(simd, product, block, panel, sums));
            });
        });
    } else {
        narrow(product, y);
    }
}

/// A rectangle of `y`.
struct Block<'y> {
    /// Its first row in `y`.
    row: usize,
    /// Its first column in `y`.
    col: usize,
    /// Its rows.
    rows: Vec<&'y mut [f32]>,
}

impl Block<'_> {
    /// Rows and columns.
    fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.first().map_or(0, |row| row.len()))
    }
}

/// Cuts `y` into blocks of at most `height` rows and `width` columns.
fn cut(y: &mut [f32], cols: usize, height: usize, width: usize) -> Vec<Block<'_>> {
    let (across, rows) = (cols.div_ceil(width), y.len() / cols);
    let mut blocks: Vec<Block> = (0..rows.div_ceil(height) * across)
        .map(|i| Block {
            row: (i / across).saturating_mul(height),
            col: i % across * width,
            rows: Vec::with_capacity(rows.min(height)),
        })
        .collect();
    for (r, row) in y.chunks_mut(cols).enumerate() {
        for (b, piece) in row.chunks_mut(width).enumerate() {
            blocks[r / height * across + b].rows.push(piece);
        }
    }
    blocks
}

/// One block of a wide product: packs its own columns chunk by chunk.
#[inline(always)]
fn wide<S: Simd, R: Rhs>(simd: S, product: &Product<R>, block: &mut Block, panel: &mut [f32], sums: &mut [f32]) {
    let (rows, cols) = block.size();
    let strips = cols.div_ceil(COLS);
    let sums = &mut sums[..rows * strips * COLS];
    sums.fill(0.0);
    for start in (0..product.depth).step_by(product.chunk) {
        let depth = start..(start + product.chunk).min(product.depth);
        let panel = &mut panel[..strips * depth.len() * COLS];
        product.rhs.pack(simd, depth.clone(), block.col / COLS, panel);
        accumulate(simd, product.lhs, block.row, depth, panel, cols, sums);
    }
    write(product.bias, true, block, sums);
}

/// A product with few columns: packs once for all tasks, as much of the depth as [`PANEL`] holds.
fn narrow<R: Rhs>(product: &Product<R>, y: &mut [f32]) {
    let strips = product.cols.div_ceil(COLS);
    let across = product.cols.div_ceil(TASK_COLS);
    let width = strips.div_ceil(across) * COLS;
    let mut blocks = cut(y, product.cols, TASK_ROWS, width);
    let chunk_floats = product.chunk * strips * COLS;
    let group = (PANEL / chunk_floats).max(1) * product.chunk;
    scratch::with(group.min(product.depth) * strips * COLS, |panel| {
        for start in (0..product.depth).step_by(group) {
            let depth = start..(start + group).min(product.depth);
            pack_all(product, depth.clone(), strips, panel);
            blocks.par_iter_mut().for_each(|block| {
                let (rows, cols) = block.size();
                scratch::with(rows * cols.next_multiple_of(COLS), |sums| {
                    vectorized!(simd => {
                        shared(simd, product, block, depth.clone(), strips, panel, sums);
                    });
                });
            });
        }
    });
}

/// Packs every strip of every chunk in `depth`, chunk after chunk.
fn pack_all<R: Rhs>(product: &Product<R>, depth: Range<usize>, strips: usize, panel: &mut [f32]) {
    let panel = &mut panel[..depth.len() * strips * COLS];
    panel.par_chunks_mut(product.chunk * strips * COLS).enumerate().for_each(|(c, part)| {
        let start = depth.start + c * product.chunk;
        let steps = start..start + part.len() / (strips * COLS);
        let size = steps.len() * COLS * PACK_STRIPS;
        part.par_chunks_mut(size).enumerate().for_each(|(i, strips)| {
            vectorized!(simd => product.rhs.pack(simd, steps.clone(), i * PACK_STRIPS, strips));
        });
    });
}

/// One block of a narrow product, from the panel that all tasks share.
#[inline(always)]
fn shared<S: Simd, R: Rhs>(
    simd: S,
    product: &Product<R>,
    block: &mut Block,
    depth: Range<usize>,
    strips: usize,
    panel: &[f32],
    sums: &mut [f32],
) {
    let (_, cols) = block.size();
    sums.fill(0.0);
    for start in depth.clone().step_by(product.chunk) {
        let steps = start..(start + product.chunk).min(depth.end);
        let base = (start - depth.start) * strips * COLS;
        let first = base + block.col / COLS * steps.len() * COLS;
        let part = &panel[first..first + cols.next_multiple_of(COLS) * steps.len()];
        accumulate(simd, product.lhs, block.row, steps, part, cols, sums);
    }
    write(product.bias, depth.start == 0, block, sums);
}

/// Adds one chunk's products to `sums`, strip after strip, each `[rows, 32]`; `cols` columns count.
///
/// The sums lie together, apart from `y`, whose rows are often a power of two apart and then
/// compete for the same lines of the cache.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(
    simd: S,
    lhs: Lhs,
    first: usize,
    depth: Range<usize>,
    panel: &[f32],
    cols: usize,
    sums: &mut [f32],
) {
    let mut out = [0.0; ROWS * COLS];
    let strips = panel.len() / (depth.len() * COLS);
    let length = sums.len() / strips;
    let mut row = 0;
    while row < length / COLS {
        let rows = step(length / COLS - row);
        let pairs = panel.chunks_exact(depth.len() * COLS).zip(sums.chunks_exact_mut(length));
        for (i, (strip, sums)) in pairs.enumerate() {
            let cols = (cols - i * COLS).min(COLS);
            let span = Span { row: first + row, start: depth.start, depth: depth.len(), cols };
            tile(simd, lhs, rows, span, strip, &mut out);
            let sums = &mut sums[row * COLS..(row + rows) * COLS];
            for (sum, value) in sums.iter_mut().zip(&out) {
                *sum += value;
            }
        }
        row += rows;
    }
}

/// Writes a block's sums to `y`; the first time with the bias, later on top of what is there.
#[inline(always)]
fn write(bias: Bias, first: bool, block: &mut Block, sums: &[f32]) {
    let pitch = block.rows.len() * COLS;
    for (r, row) in block.rows.iter_mut().enumerate() {
        for (i, target) in row.chunks_mut(COLS).enumerate() {
            let sums = &sums[i * pitch + r * COLS..][..COLS];
            match bias {
                _ if !first => target.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                Bias::None => target.copy_from_slice(&sums[..target.len()]),
                Bias::PerRow(bias) => {
                    let bias = bias[block.row + r];
                    target.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum + bias);
                }
                Bias::PerCol(bias) => {
                    let values = sums.iter().zip(&bias[block.col + i * COLS..]);
                    target.iter_mut().zip(values).for_each(|(y, (sum, b))| *y = sum + b);
                }
            }
        }
    }
}
