//! The weight of a layer, as a tensor of integers.

use edge_ir::encoding::pack;
use edge_ir::{Data, Encoding, Granularity, TensorType};
use rayon::prelude::*;

use super::{Integers, Part, Rounding, Scales, gptq, nearest, sequential_mse};
use crate::WeightScheme;

/// Rounds a `float32` weight. It has the scales of this encoding if they are `fixed`; else the rounding may choose others.
/// Gives its encoding and integers; `None` if the type is not for this, the scheme does not fit, or inputs were not finite.
///
/// Memory use is a few times that of the weight.
pub(crate) fn round(
    data: &Data,
    ty: &TensorType,
    scheme: WeightScheme,
    encoding: &Encoding,
    parts: &[Part<'_>],
    rounding: Rounding,
    fixed: bool,
) -> Option<(Encoding, Data)> {
    let integers = Integers::of(scheme.dtype)?;
    let weight = Matrix::of(data, ty, scheme.axis)?;
    let columns = weight.columns;
    let block = scheme.block.unwrap_or(columns).min(columns);
    let mut scales = Scales { columns, block, values: weight.in_rows(&encoding.scales, columns.div_ceil(block)) };
    if !fixed && rounding == Rounding::SequentialMse {
        scales = sequential_mse(&weight.numbers, columns, block, parts, integers);
    }
    let mut rounded = nearest(&weight.numbers, &scales, integers);
    let parts = if rounding == Rounding::Gptq { parts } else { &[] };
    // Each has columns of its own, and scales that are known: none waits for another.
    let found: Option<Vec<Vec<i8>>> = parts.par_iter().map(|part| weight.gptq(&scales, part, integers)).collect();
    for (part, found) in parts.iter().zip(found?) {
        for (row, found) in part.outputs.clone().zip(found.chunks(part.columns.len())) {
            rounded[row * columns..][part.columns.clone()].copy_from_slice(found);
        }
    }
    let granularity = match scheme.block {
        None => Granularity::Axis(scheme.axis),
        Some(size) => Granularity::Blocks { axis: 1 - scheme.axis, size },
    };
    let scales = weight.in_place(&scales.values, columns.div_ceil(block));
    let encoding = Encoding::symmetric(scheme.dtype, granularity, scales);
    let mut bytes = Vec::new();
    pack(&weight.in_place(&rounded, columns).into_iter().map(i32::from).collect::<Vec<_>>(), scheme.dtype, &mut bytes);
    Some((encoding, data.computed(bytes)))
}

/// A weight, in rows of one output each.
struct Matrix {
    numbers: Vec<f32>,
    rows: usize,
    columns: usize,
    /// Whether its tensor has an output in each column.
    transposed: bool,
}

impl Matrix {
    fn of(data: &Data, ty: &TensorType, axis: usize) -> Option<Self> {
        let rows = *ty.shape.get(axis)?;
        let columns = usize::try_from(ty.elements()).ok()? / rows.max(1);
        let transposed = axis > 0;
        if transposed && ty.shape.len() != 2 {
            return None;
        }
        let numbers = if transposed { data.transpose(columns, rows, 4)?.to_f32s() } else { data.to_f32s() };
        (numbers.len() == rows * columns && columns > 0).then_some(Self { numbers, rows, columns, transposed })
    }

    /// A part of it in integers.
    fn gptq(&self, scales: &Scales, part: &Part<'_>, integers: Integers) -> Option<Vec<i8>> {
        let row = |row: usize| &self.numbers[row * self.columns..][part.columns.clone()];
        let numbers: Vec<f32> = part.outputs.clone().flat_map(row).copied().collect();
        gptq(&numbers, &scales.part(part.outputs.clone(), part.columns.clone()), part.gram, integers)
    }

    /// Values in the tensor's order, of which each output has `each`, in rows.
    fn in_rows<T: Copy>(&self, values: &[T], each: usize) -> Vec<T> {
        if !self.transposed {
            return values.to_vec();
        }
        (0..self.rows).flat_map(|row| (0..each).map(move |k| values[k * self.rows + row])).collect()
    }

    /// Values in rows, in the tensor's order.
    fn in_place<T: Copy>(&self, values: &[T], each: usize) -> Vec<T> {
        if !self.transposed {
            return values.to_vec();
        }
        (0..each).flat_map(|k| (0..self.rows).map(move |row| values[row * each + k])).collect()
    }
}
