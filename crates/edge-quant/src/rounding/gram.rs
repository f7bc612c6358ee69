//! Products of a layer's inputs with one another.

use rayon::prelude::*;

/// `X^T X` of all rows `X` that were added.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    size: usize,
    /// The whole matrix, row by row.
    sums: Vec<f64>,
}

impl Gram {
    /// Zero, for a layer with `size` inputs.
    pub fn new(size: usize) -> Self {
        Self { size, sums: vec![0.0; size * size] }
    }

    /// The number of inputs of the layer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds rows of `size` numbers each, one after the other; what is left over is not read. The order of additions does
    /// not depend on the number of threads.
    pub fn add(&mut self, rows: &[f32]) {
        let size = self.size.max(1);
        self.sums.par_chunks_mut(size).enumerate().for_each(|(i, sums)| {
            for row in rows.chunks_exact(size) {
                let factor = f64::from(row[i]);
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * f64::from(*x));
            }
        });
    }

    /// The sum for inputs `i` and `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.sums[i * self.size + j]
    }

    /// `e^T (X^T X) e`.
    pub fn error(&self, e: &[f64]) -> f64 {
        let row = |(i, factor): (usize, &f64)| {
            let sums = &self.sums[i * self.size..][..self.size];
            factor * sums.iter().zip(e).map(|(sum, e)| sum * e).sum::<f64>()
        };
        e.iter().enumerate().filter(|(_, e)| **e != 0.0).map(row).sum()
    }
}
