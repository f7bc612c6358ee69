//! The factor by which GPTQ makes up for errors.

use rayon::prelude::*;

/// Columns that are worked off together.
const PANEL: usize = 64;

/// For a symmetric positive matrix `a` of `n` rows: the upper triangular `r` with `r^T r = a`, row by row; `None` if `a`
/// is not positive.
pub(super) fn factor(a: impl Fn(usize, usize) -> f64 + Sync, n: usize) -> Option<Vec<f64>> {
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
        below.par_iter_mut().for_each(|row| solve(row, panel, start, end));
        let parts: Vec<Vec<f64>> = below.iter().map(|row| row[start..end].to_vec()).collect();
        below.par_iter_mut().enumerate().for_each(|(index, row)| {
            let own = &parts[index];
            row[end..].iter_mut().zip(&parts).for_each(|(sum, other)| *sum -= dot(own, other));
        });
    }
    let mut upper = vec![0.0; n * n];
    upper.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, line)| {
        line[i..].iter_mut().zip(&rows[i..]).for_each(|(out, row)| *out = row[i]);
    });
    Some(upper)
}

/// Finds the elements `start..end` of a row, from those rows that have their diagonals there.
fn solve(row: &mut [f64], panel: &[Vec<f64>], start: usize, end: usize) {
    for (j, other) in (start..end).zip(panel) {
        row[j] = (row[j] - dot(&row[start..j], &other[start..j])) / other[j];
    }
}

/// The sum of products, in an order that depends on the length alone.
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
    fn the_factor_squares_to_the_matrix() {
        const N: usize = 150;
        let at = |i: usize, j: usize| {
            let d = i.abs_diff(j);
            if d == 0 { 3.0 } else { 1.0 / f64::from(u32::try_from(d * d + 1).unwrap()) }
        };
        let r = factor(at, N).unwrap();
        assert!((0..N).all(|i| (0..i).all(|j| r[i * N + j] == 0.0)));
        for i in 0..N {
            for j in 0..N {
                let found: f64 = (0..N).map(|k| r[k * N + i] * r[k * N + j]).sum();
                assert!((found - at(i, j)).abs() < 1e-12, "{i} {j}: {found}");
            }
        }
        assert_eq!(factor(|_, _| 1.0, 2), None);
        assert_eq!(factor(|_, _| f64::NAN, 2), None);
    }
}
