//! The factor by which GPTQ makes up for errors.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use rayon::prelude::*;

/// Columns that are worked off together.
const PANEL: usize = 64;

/// Rows that the rest of a panel is taken from together.
const ROWS: usize = 4;

/// Columns of such rows.
const TILE: usize = 16;

/// For a symmetric positive matrix `a` of `n` rows: the upper triangular `r` with `r^T r = a`, each row divided by its
/// element on the diagonal, row by row; `None` if `a` is not positive.
pub(super) fn factor(a: impl Fn(usize, usize) -> f64 + Sync, n: usize) -> Option<Vec<f32>> {
    let level = Level::new();
    // The rows of `r^T`, to their diagonals.
    let mut rows: Vec<Vec<f64>> = (0..n).into_par_iter().map(|i| (0..=i).map(|j| a(i, j)).collect()).collect();
    for start in (0..n).step_by(PANEL) {
        let end = n.min(start + PANEL);
        for j in start..end {
            let (above, rest) = rows.split_at_mut(j);
            let row = rest.first_mut()?;
            solve(row, &above[start..], start, j);
            let square = row[j] - dot(&row[start..j], &row[start..j]);
            if square.is_nan() || square <= 0.0 {
                return None;
            }
            row[j] = square.sqrt();
        }
        let (done, below) = rows.split_at_mut(end);
        let panel = &done[start..];
        below.par_iter_mut().for_each(|row| dispatch!(level, simd => solve_all(simd, row, panel, start, end)));
        let (width, count) = (end - start, below.len().next_multiple_of(TILE));
        // The panel's columns of all rows below, the rows of each side by side.
        let mut across = vec![0.0; width * count];
        for (place, row) in below.iter().enumerate() {
            row[start..end].iter().enumerate().for_each(|(k, v)| across[k * count + place] = *v);
        }
        below.par_chunks_mut(ROWS).enumerate().for_each(|(index, rows)| {
            dispatch!(level, simd => take(simd, rows, &across, count, index * ROWS, end));
        });
    }
    let mut upper = vec![0.0; n * n];
    upper.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, line)| {
        let diagonal = rows[i][i];
        #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
        line[i..].iter_mut().zip(&rows[i..]).for_each(|(out, row)| *out = (row[i] / diagonal) as f32);
    });
    Some(upper)
}

/// Finds the elements `start..end` of a row, from those rows that have their diagonals there.
#[inline(always)]
fn solve(row: &mut [f64], panel: &[Vec<f64>], start: usize, end: usize) {
    for (j, other) in (start..end).zip(panel) {
        row[j] = (row[j] - dot(&row[start..j], &other[start..j])) / other[j];
    }
}

/// [`solve`], with the processor's widest vectors.
#[inline(always)]
fn solve_all<S: Simd>(simd: S, row: &mut [f64], panel: &[Vec<f64>], start: usize, end: usize) {
    simd.vectorize(
        #[inline(always)]
        || solve(row, panel, start, end),
    );
}

/// Takes from rows below a panel, the first of which is the `first`, what the panel's columns have of their products with
/// the rows `across`, of which each column has `count` numbers.
#[inline(always)]
fn take<S: Simd>(simd: S, rows: &mut [Vec<f64>], across: &[f64], count: usize, first: usize, end: usize) {
    simd.vectorize(
        #[inline(always)]
        || {
            let width = S::f64s::LEN.min(TILE);
            let own = |k: usize, row: usize| across[k * count + (first + row).min(count - 1)];
            for column in (0..first + rows.len()).step_by(width) {
                let mut sums = [S::f64s::splat(simd, 0.0); ROWS];
                for (k, line) in across.chunks_exact(count).enumerate() {
                    let others = S::f64s::from_slice(simd, &line[column..column + width]);
                    for (row, sum) in sums.iter_mut().enumerate() {
                        *sum = S::f64s::splat(simd, own(k, row)).mul_add(others, *sum);
                    }
                }
                for (row, sum) in rows.iter_mut().zip(sums) {
                    let mut parts = [0.0; TILE];
                    sum.store_slice(&mut parts[..width]);
                    row[end..].iter_mut().skip(column).zip(&parts[..width]).for_each(|(v, part)| *v -= part);
                }
            }
        },
    );
}

/// The sum of products, in an order that depends on the length alone.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_and_its_diagonal_square_to_the_matrix() {
        const N: usize = 150;
        let at = |i: usize, j: usize| {
            let d = i.abs_diff(j);
            if d == 0 { 3.0 } else { 1.0 / f64::from(u32::try_from(d * d + 1).unwrap()) }
        };
        let r = factor(at, N).unwrap();
        assert!((0..N).all(|i| (0..i).all(|j| r[i * N + j] == 0.0)));
        // What the rows were divided by, squared, as the diagonal has it.
        let mut squares: Vec<f64> = Vec::new();
        for i in 0..N {
            let above: f64 = squares.iter().enumerate().map(|(k, s)| s * f64::from(r[k * N + i]).powi(2)).sum();
            squares.push(at(i, i) - above);
        }
        for i in 0..N {
            for j in 0..N {
                let found: f64 = (0..N).map(|k| squares[k] * f64::from(r[k * N + i]) * f64::from(r[k * N + j])).sum();
                assert!((found - at(i, j)).abs() < 1e-6, "{i} {j}: {found}");
            }
        }
        assert_eq!(factor(|_, _| 1.0, 2), None);
        assert_eq!(factor(|_, _| f64::NAN, 2), None);
    }
}
