//! Arithmetic with broadcasting, functions of one number, casts.

use edge_ir::{DType, Data, TensorType};

use super::Constant;

/// `float` for `float32`, `int` for `int64`, which gives nothing where it overflows.
pub(super) fn binary(
    inputs: &[Constant],
    outputs: &[TensorType],
    float: fn(f32, f32) -> f32,
    int: fn(i64, i64) -> Option<i64>,
) -> Option<Vec<Constant>> {
    let ([a, b], [ty]) = (inputs, outputs) else { return None };
    let pairs = || (0..count(ty)).map(|at| (source(at, &ty.shape, &a.ty.shape), source(at, &ty.shape, &b.ty.shape)));
    let data = match ty.dtype {
        DType::Float32 => {
            let (x, y) = (a.data.to_f32s(), b.data.to_f32s());
            Data::f32s(&pairs().map(|(i, j)| float(x[i], y[j])).collect::<Vec<_>>())
        }
        DType::Int64 => {
            let (x, y) = (a.data.to_i64s(), b.data.to_i64s());
            Data::i64s(&pairs().map(|(i, j)| int(x[i], y[j])).collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    };
    Some(vec![Constant { ty: ty.clone(), data }])
}

/// A function of each `float32` number, computed in `float64`.
#[expect(clippy::cast_possible_truncation, reason = "the result is rounded to the type of the tensor")]
pub(super) fn unary(inputs: &[Constant], function: fn(f64) -> f64) -> Option<Vec<Constant>> {
    let x = inputs.first().filter(|x| x.ty.dtype == DType::Float32)?;
    let numbers: Vec<f32> = x.data.to_f32s().iter().map(|v| function(f64::from(*v)) as f32).collect();
    Some(vec![Constant { ty: x.ty.clone(), data: Data::f32s(&numbers) }])
}

/// Between floating-point types as a view; of `int64` and `int32` to `float32`.
#[expect(clippy::cast_precision_loss, reason = "a cast rounds")]
pub(super) fn cast(inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let ([x], [ty]) = (inputs, outputs) else { return None };
    let data = match (x.ty.dtype, ty.dtype) {
        (DType::Int64, DType::Float32) => Data::f32s(&x.data.to_i64s().iter().map(|v| *v as f32).collect::<Vec<_>>()),
        (DType::Int32, DType::Float32) => {
            let bytes = x.data.bytes();
            let (numbers, _) = bytes.as_chunks::<4>();
            Data::f32s(&numbers.iter().map(|b| i32::from_le_bytes(*b) as f32).collect::<Vec<_>>())
        }
        (from, to) => x.data.clone().cast(from, to)?,
    };
    Some(vec![Constant { ty: ty.clone(), data }])
}

fn count(ty: &TensorType) -> usize {
    ty.shape.iter().product()
}

/// The index in a tensor of shape `from` that is stretched to `to`, for an index in the latter.
fn source(mut at: usize, to: &[usize], from: &[usize]) -> usize {
    let (mut index, mut stride) = (0, 1);
    for (place, extent) in to.iter().enumerate().rev() {
        let digit = at % extent;
        at /= extent;
        if let Some(own) = (place + from.len()).checked_sub(to.len()).map(|i| from[i]) {
            index += if own == 1 { 0 } else { digit * stride };
            stride *= own;
        }
    }
    index
}
