//! The operator table: one row declares an operator; codec, checker, builder and statistics read the rows.
//!
//! Semantics are ONNX's (<https://onnx.ai/onnx/operators/>). A family of operators is a file of this folder.

mod conv;
mod elementwise;
mod linear;
mod norm;
pub mod quantize;
mod resize;
mod shape;

use crate::graph::{Attribute, TensorType};
use crate::{DType, Data, Node};

/// One operator.
#[derive(Debug)]
pub struct Operator {
    /// ONNX's name.
    pub name: &'static str,
    /// Empty for the ONNX standard.
    pub domain: &'static str,
    /// First opset that has it in the form used here.
    pub since: u32,
    /// Least and greatest number of inputs.
    pub inputs: (usize, usize),
    /// Attributes and whether each must be given.
    pub attributes: &'static [(&'static str, Kind, Need)],
    /// Output types from input types; the error is a reason in words.
    pub infer: fn(&Context<'_>) -> Result<Vec<TensorType>, String>,
    /// Multiply-accumulates, from inputs and outputs.
    pub macs: fn(&Context<'_>, &[TensorType]) -> u64,
}

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ONNX `INT`.
    Int,
    /// ONNX `FLOAT`.
    Float,
    /// ONNX `STRING`.
    String,
    /// ONNX `INTS`.
    Ints,
}

/// Whether an attribute may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Must be given.
    Required,
    /// Has the default of the ONNX specification.
    Optional,
}

/// What inference sees of a node.
pub struct Context<'a> {
    /// The node; its outputs are not yet known.
    pub node: &'a Node,
    /// Types of the inputs; `None` where an optional one is left out.
    pub types: Vec<Option<&'a TensorType>>,
    /// Contents of the inputs that are constants.
    pub data: Vec<Option<&'a Data>>,
}

/// All rows.
pub static OPERATORS: &[&[Operator]] = &[
    elementwise::OPERATORS,
    conv::OPERATORS,
    linear::OPERATORS,
    norm::OPERATORS,
    shape::OPERATORS,
    resize::OPERATORS,
    quantize::OPERATORS,
];

/// The operator with this name in this domain.
pub fn find(domain: &str, name: &str) -> Option<&'static Operator> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    OPERATORS.iter().flat_map(|family| family.iter()).find(|op| op.name == name && op.domain == domain)
}

impl Attribute {
    /// The attribute's type, for the table's check; `None` for a type that no row uses.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Int(_) => Some(Kind::Int),
            Self::Float(_) => Some(Kind::Float),
            Self::String(_) => Some(Kind::String),
            Self::Ints(_) => Some(Kind::Ints),
            Self::Floats(_) => None,
        }
    }
}

impl Context<'_> {
    /// The type of input `index`, which must be there.
    pub fn ty(&self, index: usize) -> Result<&TensorType, String> {
        self.types.get(index).copied().flatten().ok_or_else(|| format!("input {index} is missing"))
    }

    /// The shape of input `index`.
    pub fn shape(&self, index: usize) -> Result<&[usize], String> {
        self.ty(index).map(|t| t.shape.as_slice())
    }

    /// The shape of input `index`, which must have `N` dimensions.
    pub fn dims<const N: usize>(&self, index: usize) -> Result<[usize; N], String> {
        let shape = self.shape(index)?;
        shape.try_into().map_err(|_| format!("input {index} must have {N} dimensions, got {shape:?}"))
    }

    /// The `int64` content of input `index`, which must be a constant.
    pub fn constant_ints(&self, index: usize) -> Result<Vec<i64>, String> {
        if self.ty(index)?.dtype != DType::Int64 {
            return Err(format!("input {index} must be int64, got {}", self.ty(index)?.dtype));
        }
        let data = self.data.get(index).copied().flatten();
        data.map(Data::to_i64s).ok_or_else(|| format!("input {index} must be a constant"))
    }

    /// An error unless inputs `0..n` that are there have one element type; that type otherwise.
    pub fn same_dtype(&self, n: usize) -> Result<DType, String> {
        let first = self.ty(0)?.dtype;
        for (index, ty) in self.types.iter().enumerate().take(n) {
            if let Some(ty) = ty
                && ty.dtype != first
            {
                return Err(format!("input {index} must be {first} as input 0 is, got {}", ty.dtype));
            }
        }
        Ok(first)
    }

    /// The output of an operator that keeps type and shape of its first input.
    pub fn same_as_first(&self) -> Result<Vec<TensorType>, String> {
        Ok(vec![self.ty(0)?.clone()])
    }
}

/// For operators that multiply nothing, or where multiplications are not what costs.
pub fn no_macs(_: &Context<'_>, _: &[TensorType]) -> u64 {
    0
}

/// An axis attribute in `-rank..rank` as an index.
fn axis(value: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).map_err(|e| e.to_string())?;
    let positive = if value < 0 { value + signed } else { value };
    usize::try_from(positive)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| format!("axis {value} is out of range for {rank} dimensions"))
}
