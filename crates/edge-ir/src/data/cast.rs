//! Casts between the floating-point types in which weights are stored.

use half::{bf16, f16};

use crate::DType;

/// Whether both types are among `float32`, `float16` and `bfloat16`.
pub(super) fn possible(from: DType, to: DType) -> bool {
    let stored = |t| matches!(t, DType::Float32 | DType::Float16 | DType::BFloat16);
    stored(from) && stored(to)
}

/// Appends the numbers of `bytes` in the new type.
pub(super) fn cast(bytes: &[u8], from: DType, to: DType, out: &mut Vec<u8>) {
    match from {
        DType::Float16 => each::<2>(bytes, to, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::BFloat16 => each::<2>(bytes, to, out, |b| bf16::from_le_bytes(b).to_f32()),
        _ => each::<4>(bytes, to, out, f32::from_le_bytes),
    }
}

fn each<const N: usize>(bytes: &[u8], to: DType, out: &mut Vec<u8>, load: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    let numbers = elements.iter().map(|b| load(*b));
    match to {
        DType::Float16 => out.extend(numbers.flat_map(|v| f16::from_f32(v).to_le_bytes())),
        DType::BFloat16 => out.extend(numbers.flat_map(|v| bf16::from_f32(v).to_le_bytes())),
        _ => out.extend(numbers.flat_map(f32::to_le_bytes)),
    }
}
