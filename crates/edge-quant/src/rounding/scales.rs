//! Scales of symmetric integers, and rounding to the nearest of them.

use std::ops::Range;

use edge_ir::DType;
use edge_ir::encoding::limits;
use rayon::prelude::*;

use super::Part;

/// The integers to round to. Zero is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    /// The least: -7 or -8 for 4 bits.
    pub least: i8,
    /// The greatest: 7 for 4 bits.
    pub greatest: i8,
}

impl Integers {
    /// Those of a type; `None` if it is not signed, or has more than 8 bits.
    pub fn of(dtype: DType) -> Option<Self> {
        let (least, greatest) = limits(dtype).filter(|(low, _)| *low < 0)?;
        Some(Self { least: least.try_into().ok()?, greatest: greatest.try_into().ok()? })
    }

    /// The integer that stands for a number, ties to even.
    #[inline(always)]
    pub(super) fn round(self, number: f32, scale: f32) -> i8 {
        // A sum that leaves no digits behind the point, as numbers of this size have none. Larger ones are cut before.
        const ROUND: f32 = 12_582_912.0;
        let (least, greatest) = (f32::from(self.least), f32::from(self.greatest));
        let share = if scale > 0.0 { number / scale } else { 0.0 };
        let rounded = (share.max(least).min(greatest) + ROUND) - ROUND;
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

    /// The scales of a part of the matrix.
    pub(super) fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let whole = self.block >= self.columns;
        let (block, step) = if whole { (columns.len().max(1), columns.len().max(1)) } else { (1, 1) };
        let row = |row: usize| columns.clone().step_by(step).map(move |column| self.at(row, column));
        Self { columns: columns.len(), block, values: rows.flat_map(row).collect() }
    }
}

/// Rounds each weight to the nearest integer.
pub fn nearest(weights: &[f32], scales: &Scales, integers: Integers) -> Vec<i8> {
    let mut rounded = vec![0; weights.len()];
    let columns = scales.columns.max(1);
    let rows = rounded.par_chunks_mut(columns).zip(weights.par_chunks(columns));
    rows.zip(scales.values.par_chunks(columns.div_ceil(scales.block))).for_each(|((rounded, weights), scales_of)| {
        let blocks = rounded.chunks_mut(scales.block).zip(weights.chunks(scales.block));
        for ((rounded, weights), scale) in blocks.zip(scales_of) {
            rounded.iter_mut().zip(weights).for_each(|(integer, w)| *integer = integers.round(*w, *scale));
        }
    });
    rounded
}

/// Shares of the full range among which a scale is chosen.
const CANDIDATES: u8 = 32;

/// Chooses scales, block after block of each row, by the error of what the layer gives when weights are rounded to the
/// nearest integer. Blocks that were chosen before take part with their error. Inputs of which no part speaks do not
/// count.
///
/// # Panics
/// If a part has columns that the matrix has not.
pub fn sequential_mse(weights: &[f32], columns: usize, block: usize, parts: &[Part<'_>], integers: Integers) -> Scales {
    let mut scales = Scales::of_extremes(weights, columns, block, integers);
    let per_row = columns.div_ceil(block);
    scales.values.par_chunks_mut(per_row).zip(weights.par_chunks(columns)).enumerate().for_each(
        |(row, (own, weights))| {
            let parts: Vec<&Part<'_>> = parts.iter().filter(|part| part.outputs.contains(&row)).collect();
            let mut errors = vec![0.0; columns];
            for (index, scale) in own.iter_mut().enumerate() {
                let range = index * block..columns.min((index + 1) * block);
                // Errors of other parts are as they are.
                let parts = parts.iter().filter(|p| p.columns.start < range.end && range.start < p.columns.end);
                let mut try_out = |candidate: f32| {
                    for column in range.clone() {
                        let rounded = f32::from(integers.round(weights[column], candidate)) * candidate;
                        errors[column] = f64::from(weights[column]) - f64::from(rounded);
                    }
                    parts.clone().map(|part| part.gram.error(&errors[part.columns.clone()])).sum::<f64>()
                };
                let mut best = (f64::INFINITY, *scale);
                for share in (CANDIDATES / 3..=CANDIDATES).rev() {
                    let candidate = *scale * (f32::from(share) / f32::from(CANDIDATES));
                    let error = try_out(candidate);
                    if error < best.0 {
                        best = (error, candidate);
                    }
                }
                *scale = best.1;
                try_out(*scale);
            }
        },
    );
    scales
}
