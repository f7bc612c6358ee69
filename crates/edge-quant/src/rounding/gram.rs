//! Products of a layer's inputs with one another.

use std::sync::Arc;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use rayon::prelude::*;

/// Inputs along each side of a tile.
const TILE: usize = 32;
/// Rows whose products are summed before they are added to the sums so far.
const DEPTH: usize = 256;

/// The products of inputs `32 * i..` and `32 * j..`.
type Tile = [f32; TILE * TILE];

/// `X^T X` of all rows `X` that were added.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    size: usize,
    /// Tiles on and below the diagonal, row by row.
    tiles: Vec<Tile>,
}

impl Gram {
    /// Zero, for a layer with `size` inputs. It takes two bytes for each pair of inputs.
    pub fn new(size: usize) -> Self {
        let side = size.div_ceil(TILE);
        Self { size, tiles: vec![[0.0; TILE * TILE]; side * (side + 1) / 2] }
    }

    /// The number of inputs of the layer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds rows of `size` numbers each, one after the other; what is left over is not read. The order of additions does
    /// not depend on the number of threads, nor on the width of vectors.
    pub fn add(&mut self, rows: &[f32]) {
        let size = self.size.max(1);
        let level = Level::new();
        for rows in rows.chunks(DEPTH * size) {
            let strips = strips(rows, size);
            let places: Arc<[(usize, usize)]> = (0..strips.len()).flat_map(|i| (0..=i).map(move |j| (i, j))).collect();
            self.tiles.par_iter_mut().zip(places.par_iter()).for_each(|(tile, (i, j))| {
                let mut sums = [0.0; TILE * TILE];
                dispatch!(level, simd => products(simd, &strips[*i], &strips[*j], &mut sums));
                tile.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            });
        }
    }

    /// The sum for inputs `i` and `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.max(j), i.min(j));
        let (row, column) = (i / TILE, j / TILE);
        f64::from(self.tiles[row * (row + 1) / 2 + column][i % TILE * TILE + j % TILE])
    }

    /// `e^T (X^T X) e`.
    pub fn error(&self, e: &[f64]) -> f64 {
        let side = self.size.div_ceil(TILE);
        let part = |index: usize| &e[index * TILE..self.size.min((index + 1) * TILE)];
        let mut total = 0.0;
        for row in 0..side {
            for column in 0..=row {
                let tile = &self.tiles[row * (row + 1) / 2 + column];
                let weight = if row == column { 1.0 } else { 2.0 };
                for (line, factor) in tile.chunks(TILE).zip(part(row)).filter(|(_, factor)| **factor != 0.0) {
                    total += weight
                        * factor
                        * line.iter().zip(part(column)).map(|(sum, e)| f64::from(*sum) * e).sum::<f64>();
                }
            }
        }
        total
    }
}

/// Columns of rows of `size` numbers, 32 at a time, filled up with zeros.
fn strips(rows: &[f32], size: usize) -> Vec<Vec<[f32; TILE]>> {
    let strip = |first: usize| {
        let width = TILE.min(size - first);
        let line = |row: &[f32]| {
            let mut line = [0.0; TILE];
            line[..width].copy_from_slice(&row[first..first + width]);
            line
        };
        rows.chunks_exact(size).map(line).collect()
    };
    (0..size).into_par_iter().step_by(TILE).map(strip).collect()
}

/// The sum over all rows of the products of `left`'s columns with `right`'s. Each is one chain of fused multiply-adds.
#[inline(always)]
fn products<S: Simd>(simd: S, left: &[[f32; TILE]], right: &[[f32; TILE]], out: &mut [f32; TILE * TILE]) {
    simd.vectorize(
        #[inline(always)]
        || {
            if S::f32s::LEN >= 16 { part::<S, 8>(simd, left, right, out) } else { part::<S, 4>(simd, left, right, out) }
        },
    );
}

/// [`products`], `R` of `left`'s columns and two vectors of `right`'s at a time, which stay in registers.
#[inline(always)]
fn part<S: Simd, const R: usize>(simd: S, left: &[[f32; TILE]], right: &[[f32; TILE]], out: &mut [f32; TILE * TILE]) {
    let width = S::f32s::LEN;
    for row in (0..TILE).step_by(R) {
        for column in (0..TILE).step_by(2 * width) {
            let mut sums = [[S::f32s::splat(simd, 0.0); 2]; R];
            for (left, right) in left.iter().zip(right) {
                let low = S::f32s::from_slice(simd, &right[column..column + width]);
                let high = S::f32s::from_slice(simd, &right[column + width..column + 2 * width]);
                for (sums, factor) in sums.iter_mut().zip(&left[row..row + R]) {
                    let factor = S::f32s::splat(simd, *factor);
                    sums[0] = factor.mul_add(low, sums[0]);
                    sums[1] = factor.mul_add(high, sums[1]);
                }
            }
            for (sums, out) in sums.iter().zip(out[row * TILE..].chunks_exact_mut(TILE)) {
                sums[0].store_slice(&mut out[column..column + width]);
                sums[1].store_slice(&mut out[column + width..column + 2 * width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_rows_on_any_number_of_threads() {
        const SIZE: usize = 71;
        let rows: Vec<f32> =
            (0..600 * SIZE).map(|i| f32::from(u8::try_from(i * i % 251).unwrap()) / 64.0 - 2.0).collect();
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut gram = Gram::new(SIZE);
            pool.install(|| rows.chunks(SIZE * 300).for_each(|rows| gram.add(rows)));
            gram
        };
        let gram = of(1);
        assert_eq!(gram, of(3));
        let sum = |i: usize, j: usize| rows.chunks(SIZE).map(|row| f64::from(row[i]) * f64::from(row[j])).sum::<f64>();
        for (i, j) in [(0, 0), (70, 3), (3, 70), (40, 40), (64, 63)] {
            assert!((gram.at(i, j) - sum(i, j)).abs() < 1e-5 * sum(i, i), "{i} {j}");
        }
        let e: Vec<f64> = (0..71_u32).map(|i| f64::from(i % 5) - 2.0).collect();
        let expected: f64 =
            (0..SIZE).flat_map(|i| (0..SIZE).map(move |j| (i, j))).map(|(i, j)| e[i] * e[j] * gram.at(i, j)).sum();
        assert!((gram.error(&e) - expected).abs() < 1e-9 * expected);
    }
}
