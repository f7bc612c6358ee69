//! The factor by which GPTQ spreads errors.

use rayon::prelude::*;

/// For a symmetric positive matrix `a` of `n` rows: the upper triangular `u` with `u^T u = a^-1`, row by row; `None` if
/// `a` is not positive.
///
/// With rows and columns in reverse order, `a = l l^T` gives `a^-1 = l^-T l^-1`, and `l^-1` in reverse order again is
/// upper triangular: no inverse of `a` is formed.
pub(super) fn inverse_factor(a: impl Fn(usize, usize) -> f64, n: usize) -> Option<Vec<f64>> {
    let mut l: Vec<Vec<f64>> = (0..n).map(|i| (0..=i).map(|j| a(n - 1 - i, n - 1 - j)).collect()).collect();
    for j in 0..n {
        let (above, below) = l.split_at_mut(j);
        let (pivot, below) = below.split_first_mut()?;
        debug_assert_eq!(above.len(), j);
        let square = pivot[j] - dot(&pivot[..j], &pivot[..j]);
        if square.is_nan() || square <= 0.0 {
            return None;
        }
        pivot[j] = square.sqrt();
        let pivot = &*pivot;
        below.par_iter_mut().for_each(|row| row[j] = (row[j] - dot(&row[..j], &pivot[..j])) / pivot[j]);
    }
    // Column j of the inverse of l, from its diagonal on.
    let column = |j: usize| {
        let mut x: Vec<f64> = Vec::with_capacity(n - j);
        for (i, row) in l.iter().enumerate().skip(j) {
            let known = if i == j { 1.0 } else { 0.0 };
            x.push((known - dot(&row[j..i], &x)) / row[i]);
        }
        x
    };
    let columns: Vec<Vec<f64>> = (0..n).into_par_iter().map(column).collect();
    let mut u = vec![0.0; n * n];
    for (j, column) in columns.iter().enumerate() {
        for (offset, value) in column.iter().enumerate() {
            u[(n - 1 - j - offset) * n + (n - 1 - j)] = *value;
        }
    }
    Some(u)
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
    fn the_factor_squares_to_the_inverse() {
        const N: usize = 21;
        let at = |i: usize, j: usize| {
            let d = i.abs_diff(j);
            if d == 0 { 3.0 } else { 1.0 / f64::from(u32::try_from(d * d + 1).unwrap()) }
        };
        let u = inverse_factor(at, N).unwrap();
        assert!((0..N).all(|i| (0..i).all(|j| u[i * N + j] == 0.0)));
        // a (u^T u) must be the identity.
        for i in 0..N {
            for j in 0..N {
                let square = |k: usize| (0..N).map(|m| u[m * N + k] * u[m * N + j]).sum::<f64>();
                let found: f64 = (0..N).map(|k| at(i, k) * square(k)).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((found - expected).abs() < 1e-12, "{i} {j}: {found}");
            }
        }
        assert_eq!(inverse_factor(|_, _| 1.0, 2), None);
        assert_eq!(inverse_factor(|_, _| f64::NAN, 2), None);
    }
}
