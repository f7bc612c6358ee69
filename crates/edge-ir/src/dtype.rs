//! Element types.

/// The type of a tensor's elements, with ONNX's names and codes (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary16.
    Float16,
    /// The upper half of a binary32.
    BFloat16,
    /// IEEE 754 binary64.
    Float64,
    /// Signed 64-bit integer.
    Int64,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 4-bit integer, two in a byte.
    Int4,
    /// Unsigned 16-bit integer.
    Uint16,
    /// Unsigned 8-bit integer.
    Uint8,
    /// Unsigned 4-bit integer, two in a byte.
    Uint4,
    /// One byte, 0 or 1.
    Bool,
}

/// type, name, ONNX code, bits of an element
const TABLE: &[(DType, &str, i32, u64)] = &[
    (DType::Float32, "float32", 1, 32),
    (DType::Float16, "float16", 10, 16),
    (DType::BFloat16, "bfloat16", 16, 16),
    (DType::Float64, "float64", 11, 64),
    (DType::Int64, "int64", 7, 64),
    (DType::Int32, "int32", 6, 32),
    (DType::Int16, "int16", 5, 16),
    (DType::Int8, "int8", 3, 8),
    (DType::Int4, "int4", 22, 4),
    (DType::Uint16, "uint16", 4, 16),
    (DType::Uint8, "uint8", 2, 8),
    (DType::Uint4, "uint4", 21, 4),
    (DType::Bool, "bool", 9, 8),
];

impl DType {
    /// The type with this ONNX code, if edgetool knows it.
    pub fn from_onnx(code: i32) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == code).map(|row| row.0)
    }

    /// The type with this name (`float32`, `int64`, ...).
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The ONNX code.
    pub fn onnx(self) -> i32 {
        self.row().2
    }

    /// The lower-case name, as numpy writes it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// How many bytes `elements` elements take, packed.
    pub fn bytes(self, elements: u64) -> u64 {
        elements.saturating_mul(self.row().3).div_ceil(8)
    }

    /// Whether the type is one of the floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float16 | Self::BFloat16 | Self::Float64)
    }

    fn row(self) -> &'static (Self, &'static str, i32, u64) {
        // Every variant has a row; the first is the fallback that the type system asks for.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_code_and_name() {
        for row in TABLE {
            assert_eq!(DType::from_onnx(row.0.onnx()), Some(row.0));
            assert_eq!(DType::from_name(row.0.name()), Some(row.0));
        }
        assert_eq!(DType::Int4.bytes(3), 2);
    }
}
