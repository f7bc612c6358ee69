//! Packs rows as columns: 16 x 16 blocks are turned in registers by four rounds of interleaving.

use fearless_simd::{Simd, f32x16, prelude::*};

use super::tile::COLS;

/// Side of the square block that is turned at once.
const SIDE: usize = 16;

/// Writes up to 32 rows as the columns of a strip: `out[k * 32 + j] = data[j * stride + k]`.
///
/// `data` starts at the first row's first step; the strip has `out.len() / 32` steps. Columns from
/// `rows` on are zero.
#[inline(always)]
pub(super) fn strip<S: Simd>(simd: S, data: &[f32], stride: usize, rows: usize, out: &mut [f32]) {
    if rows < COLS {
        out.fill(0.0);
    }
    let depth = out.len() / COLS;
    let even = depth - depth % SIDE;
    for start in (0..even).step_by(SIDE) {
        let out = &mut out[start * COLS..(start + SIDE) * COLS];
        for first in (0..rows).step_by(SIDE) {
            if first + SIDE <= rows {
                square(simd, &data[first * stride + start..], stride, &mut out[first..]);
            } else {
                scalar(&data[first * stride + start..], stride, rows - first, SIDE, &mut out[first..]);
            }
        }
    }
    scalar(&data[even..], stride, rows, depth - even, &mut out[even * COLS..]);
}

/// Turns one full block.
#[inline(always)]
fn square<S: Simd>(simd: S, data: &[f32], stride: usize, out: &mut [f32]) {
    let mut block: [f32x16<S>; SIDE] = std::array::from_fn(|j| f32x16::from_slice(simd, &data[j * stride..][..SIDE]));
    for _ in 0..SIDE.ilog2() {
        let mut next = block;
        for i in 0..SIDE / 2 {
            (next[2 * i], next[2 * i + 1]) = block[i].interleave(block[i + SIDE / 2]);
        }
        block = next;
    }
    for (vector, out) in block.iter().zip(out.chunks_mut(COLS)) {
        vector.store_slice(&mut out[..SIDE]);
    }
}

/// Turns what is left at the edges, element by element.
#[inline(always)]
fn scalar(data: &[f32], stride: usize, rows: usize, depth: usize, out: &mut [f32]) {
    for j in 0..rows {
        for k in 0..depth {
            out[k * COLS + j] = data[j * stride + k];
        }
    }
}
