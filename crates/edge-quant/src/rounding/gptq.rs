//! GPTQ (Frantar et al., arXiv 2210.17323): weights are rounded column by column, and what rounding one column does to
//! the layer's output is made up for by the columns that are not rounded yet.
//!
//! With `X^T X = R^T R` for an upper triangular `R`, the square error of the output is that of `R e`, where `e` are the
//! weights' errors. From the last row of `R` on, each row has one weight that is not rounded yet, which is chosen to make
//! the row's product least: Babai's nearest plane, which is the same method (Chen et al., arXiv 2507.18553) without an
//! inverse.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use rayon::prelude::*;

use super::cholesky::factor;
use super::{Gram, Integers, Scales};

/// What is added to the diagonal of `X^T X`, as a share of its mean: without it, inputs that go together make weights
/// grow.
const DAMPING: f64 = 0.01;

/// Outputs that are rounded together, in the lanes of vectors.
const LANES: usize = 16;

/// Columns that are rounded before their errors reach the columns after them.
const PANEL: usize = 32;

/// Rows of the factor that meet the errors together.
const ROWS: usize = 8;

/// A number of each output.
type Lanes = [f32; LANES];

/// Rounds a matrix of weights, each row the weights of one output, for inputs with these products. Columns are rounded in
/// the order of their inputs' power, the strongest first. Inputs that are always zero have weight zero.
///
/// `None` if `gram` has not a column for each of the matrix, or numbers that are not finite.
pub fn gptq(weights: &[f32], scales: &Scales, gram: &Gram, integers: Integers) -> Option<Vec<i8>> {
    let n = gram.size();
    let fits = n > 0 && scales.columns == n && weights.len().is_multiple_of(n);
    if !fits || (0..n).any(|i| !gram.at(i, i).is_finite()) {
        return None;
    }
    let mut order: Vec<usize> = (0..n).filter(|i| gram.at(*i, *i) > 0.0).collect();
    order.sort_by(|a, b| gram.at(*a, *a).total_cmp(&gram.at(*b, *b)).then(b.cmp(a)));
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no last digit")]
    let damping = DAMPING * order.iter().map(|i| gram.at(*i, *i)).sum::<f64>() / order.len().max(1) as f64;
    let damped = |i: usize, j: usize| gram.at(order[i], order[j]) + if i == j { damping } else { 0.0 };
    let factor = factor(damped, order.len())?;
    let mut rounded = vec![0; weights.len()];
    let level = Level::new();
    let groups = rounded.par_chunks_mut(LANES * n).zip(weights.par_chunks(LANES * n)).enumerate();
    groups.for_each(|(index, (rounded, weights))| {
        let group = Group { weights, scales, first: index * LANES, order: &order, factor: &factor, integers };
        dispatch!(level, simd => group.round(simd, rounded));
    });
    Some(rounded)
}

/// Some outputs.
struct Group<'a> {
    weights: &'a [f32],
    scales: &'a Scales,
    /// The number of the first among all.
    first: usize,
    /// The columns, the last to be rounded first.
    order: &'a [usize],
    /// The upper triangle, row by row, divided by the diagonal.
    factor: &'a [f32],
    integers: Integers,
}

impl Group<'_> {
    #[inline(always)]
    fn round<S: Simd>(&self, simd: S, rounded: &mut [i8]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let alive = self.order.len();
                let mut errors = vec![[0.0; LANES]; alive];
                for start in (0..alive).step_by(PANEL).rev() {
                    let end = alive.min(start + PANEL);
                    let mut owed = [[0.0; LANES]; PANEL];
                    for row in (start..end).step_by(ROWS) {
                        // Past the last row, it is computed once more: nobody reads that.
                        let lines =
                            std::array::from_fn(|k| &self.factor[(row + k).min(end - 1) * alive..][..alive][end..]);
                        sum_up::<S>(simd, lines, &errors[end..], &mut owed[row - start..]);
                    }
                    for at in (start..end).rev() {
                        let line = &self.factor[at * alive..][..alive];
                        let mut owed = owed[at - start];
                        for (factor, errors) in line[at + 1..end].iter().zip(&errors[at + 1..end]) {
                            owed.iter_mut().zip(errors).for_each(|(sum, error)| *sum += factor * error);
                        }
                        errors[at] = self.column(self.order[at], &owed, rounded);
                    }
                }
            },
        );
    }

    /// Rounds the weights of one column, to each of which something is owed. Gives the errors.
    #[inline(always)]
    fn column(&self, column: usize, owed: &Lanes, rounded: &mut [i8]) -> Lanes {
        let columns = self.scales.columns;
        let (mut weights, mut scales) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..self.weights.len() / columns {
            weights[lane] = self.weights[lane * columns + column];
            scales[lane] = self.scales.at(self.first + lane, column);
        }
        let integers: [i8; LANES] = std::array::from_fn(|k| self.integers.round(weights[k] + owed[k], scales[k]));
        rounded.chunks_mut(columns).zip(integers).for_each(|(row, integer)| row[column] = integer);
        std::array::from_fn(|k| weights[k] - f32::from(integers[k]) * scales[k])
    }
}

/// The products of some rows of the factor with the errors so far.
#[inline(always)]
fn sum_up<S: Simd>(simd: S, lines: [&[f32]; ROWS], errors: &[Lanes], out: &mut [Lanes]) {
    let width = S::f32s::LEN.min(LANES);
    for lane in (0..LANES).step_by(width) {
        let mut sums = [S::f32s::splat(simd, 0.0); ROWS];
        for (at, errors) in errors.iter().enumerate() {
            let errors = S::f32s::from_slice(simd, &errors[lane..lane + width]);
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = S::f32s::splat(simd, line[at]).mul_add(errors, *sum);
            }
        }
        for (sum, out) in sums.iter().zip(out.iter_mut()) {
            sum.store_slice(&mut out[lane..lane + width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Part, nearest, sequential_mse};
    use super::*;

    const INPUTS: usize = 80;
    const OUTPUTS: usize = 6;
    const INT4: Integers = Integers { least: -8, greatest: 7 };

    /// Evenly distributed between -1 and 1.
    fn random(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed | 1;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from(u16::try_from(state >> 48).unwrap()) / 32768.0 - 1.0
        };
        (0..count).map(|_| number()).collect()
    }

    /// 400 rows of inputs that go together, of different power; one is always zero.
    fn inputs() -> Vec<f32> {
        let own = random(1, 400 * INPUTS);
        let shared = random(2, 400);
        let value = |row: usize, i: usize| {
            let power = [0.2, 1.0, 3.0][i % 3];
            if i == 17 { 0.0 } else { power * (own[row * INPUTS + i] + 1.5 * shared[row]) }
        };
        (0..400 * INPUTS).map(|at| value(at / INPUTS, at % INPUTS)).collect()
    }

    fn gram() -> Gram {
        let mut gram = Gram::new(INPUTS);
        inputs().chunks(INPUTS * 64).for_each(|rows| gram.add(rows));
        gram
    }

    /// The square error of the outputs, from the inputs themselves.
    fn output_error(weights: &[f32], scales: &Scales, rounded: &[i8]) -> f64 {
        let row_error = |row: usize, x: &[f32]| {
            let part = |i: usize| {
                let at = row * INPUTS + i;
                f64::from(x[i]) * (f64::from(weights[at]) - f64::from(rounded[at]) * f64::from(scales.at(row, i)))
            };
            (0..INPUTS).map(part).sum::<f64>().powi(2)
        };
        inputs().chunks(INPUTS).map(|x| (0..OUTPUTS).map(|row| row_error(row, x)).sum::<f64>()).sum()
    }

    /// The method in its plain form: after each column, the inverse for the columns that are left is formed anew.
    fn plain(weights: &[f32], scales: &Scales, gram: &Gram) -> Vec<i8> {
        let mut order: Vec<usize> = (0..INPUTS).filter(|i| gram.at(*i, *i) > 0.0).collect();
        order.sort_by(|a, b| gram.at(*b, *b).total_cmp(&gram.at(*a, *a)).then(a.cmp(b)));
        let mean = order.iter().map(|i| gram.at(*i, *i)).sum::<f64>() / f64::from(u32::try_from(order.len()).unwrap());
        let mut rounded = vec![0; weights.len()];
        for row in 0..OUTPUTS {
            let mut w: Vec<f64> = weights[row * INPUTS..][..INPUTS].iter().map(|w| f64::from(*w)).collect();
            for (done, column) in order.iter().enumerate() {
                let left = &order[done..];
                let damped = |i: usize, j: usize| gram.at(left[i], left[j]) + if i == j { 0.01 * mean } else { 0.0 };
                let inverse = invert(damped, left.len());
                #[expect(clippy::cast_possible_truncation, reason = "as in the method under test")]
                let integer = INT4.round(w[*column] as f32, scales.at(row, *column));
                rounded[row * INPUTS + column] = integer;
                let error = w[*column] - f64::from(integer) * f64::from(scales.at(row, *column));
                for (i, other) in left.iter().enumerate() {
                    w[*other] -= error / inverse[0][0] * inverse[0][i];
                }
            }
        }
        rounded
    }

    /// Gauss and Jordan.
    fn invert(a: impl Fn(usize, usize) -> f64, n: usize) -> Vec<Vec<f64>> {
        let unit = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
        let mut m: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| a(i, j)).chain((0..n).map(|j| unit(i, j))).collect()).collect();
        for k in 0..n {
            let pivot: Vec<f64> = m[k].iter().map(|v| v / m[k][k]).collect();
            for (i, row) in m.iter_mut().enumerate() {
                let factor = if i == k { 0.0 } else { row[k] };
                row.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
            }
            m[k] = pivot;
        }
        m.into_iter().map(|row| row[n..].to_vec()).collect()
    }

    #[test]
    fn it_is_the_method_in_its_plain_form() {
        let (weights, gram) = (random(3, INPUTS * OUTPUTS), gram());
        for block in [INPUTS, 32] {
            let scales = Scales::of_extremes(&weights, INPUTS, block, INT4);
            assert_eq!(gptq(&weights, &scales, &gram, INT4).unwrap(), plain(&weights, &scales, &gram));
        }
    }

    #[test]
    fn outputs_come_nearer_than_by_rounding_to_the_nearest() {
        let (weights, gram) = (random(4, INPUTS * OUTPUTS), gram());
        for block in [INPUTS, 32] {
            let scales = Scales::of_extremes(&weights, INPUTS, block, INT4);
            let error = |scales: &Scales, rounded: &[i8]| output_error(&weights, scales, rounded);
            let plain = error(&scales, &nearest(&weights, &scales, INT4));
            let spread = error(&scales, &gptq(&weights, &scales, &gram, INT4).unwrap());
            assert!(spread < 0.5 * plain, "block {block}: {spread}, nearest {plain}");
            let whole = [Part { outputs: 0..OUTPUTS, columns: 0..INPUTS, gram: &gram }];
            let chosen = sequential_mse(&weights, INPUTS, block, &whole, INT4);
            let clipped = error(&chosen, &nearest(&weights, &chosen, INT4));
            assert!(clipped < 0.9 * plain, "block {block}: {clipped}, nearest {plain}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let weights = random(5, INPUTS * OUTPUTS);
        let scales = Scales::of_extremes(&weights, INPUTS, INPUTS, INT4);
        assert_eq!(gptq(&weights, &scales, &Gram::new(INPUTS - 1), INT4), None);
        let mut gram = Gram::new(INPUTS);
        gram.add(&[f32::NAN; INPUTS]);
        assert_eq!(gptq(&weights, &scales, &gram, INT4), None);
        // Inputs that are all zero.
        assert_eq!(gptq(&weights, &scales, &Gram::new(INPUTS), INT4), Some(vec![0; INPUTS * OUTPUTS]));
    }
}
