//! Scales of symmetric integers, and rounding to the nearest of them.

use rayon::prelude::*;

use super::Gram;

/// The integers to round to. Zero is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    /// The least: -7 or -8 for 4 bits.
    pub least: i8,
    /// The greatest: 7 for 4 bits.
    pub greatest: i8,
}

impl Integers {
    /// The integer that stands for a number, ties to even.
    pub(super) fn round(self, number: f32, scale: f32) -> i8 {
        if scale <= 0.0 {
            return 0;
        }
        let rounded = (number / scale).round_ties_even().clamp(f32::from(self.least), f32::from(self.greatest));
        #[expect(clippy::cast_possible_truncation, reason = "the number was cut to the integers")]
        let integer = rounded as i8;
        integer
    }
}

/// What one step between integers is worth: for each row of a matrix, for each block of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    /// Columns of a row.
    pub columns: usize,
    /// Columns that share a scale; the last block of a row may be shorter. At least 1.
    pub block: usize,
    /// The scales, row by row.
    pub values: Vec<f32>,
}

impl Scales {
    /// The greatest magnitude of each block becomes the greatest integer.
    pub fn of_extremes(weights: &[f32], columns: usize, block: usize, integers: Integers) -> Self {
        let scale =
            |block: &[f32]| block.iter().fold(0.0, |most: f32, w| most.max(w.abs())) / f32::from(integers.greatest);
        let row = |row| <[f32]>::chunks(row, block).map(scale);
        Self { columns, block, values: weights.chunks(columns).flat_map(row).collect() }
    }

    /// The scale of a weight.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.columns.div_ceil(self.block) + column / self.block]
    }
}

/// Rounds each weight to the nearest integer.
pub fn nearest(weights: &[f32], scales: &Scales, integers: Integers) -> Vec<i8> {
    let round =
        |(index, w): (usize, &f32)| integers.round(*w, scales.at(index / scales.columns, index % scales.columns));
    weights.iter().enumerate().map(round).collect()
}

/// Shares of the full range among which a scale is chosen.
const CANDIDATES: u8 = 32;

/// Chooses scales, block after block of each row, by the error of what the layer gives when weights are rounded to the
/// nearest integer. Blocks that were chosen before take part with their error.
///
/// # Panics
/// If the matrix has not as many columns as `gram`.
pub fn sequential_mse(weights: &[f32], block: usize, gram: &Gram, integers: Integers) -> Scales {
    let columns = gram.size();
    let mut scales = Scales::of_extremes(weights, columns, block, integers);
    let per_row = columns.div_ceil(block);
    scales.values.par_chunks_mut(per_row).zip(weights.par_chunks(columns)).for_each(|(scales, weights)| {
        let mut errors = vec![0.0; columns];
        for (index, scale) in scales.iter_mut().enumerate() {
            let range = index * block..columns.min((index + 1) * block);
            let mut best = (f64::INFINITY, *scale);
            for share in (CANDIDATES / 3..=CANDIDATES).rev() {
                let candidate = *scale * (f32::from(share) / f32::from(CANDIDATES));
                for column in range.clone() {
                    let rounded = f32::from(integers.round(weights[column], candidate)) * candidate;
                    errors[column] = f64::from(weights[column]) - f64::from(rounded);
                }
                let error = gram.error(&errors);
                if error < best.0 {
                    best = (error, candidate);
                }
            }
            *scale = best.1;
            for column in range {
                let rounded = f32::from(integers.round(weights[column], *scale)) * *scale;
                errors[column] = f64::from(weights[column]) - f64::from(rounded);
            }
        }
    });
    scales
}
