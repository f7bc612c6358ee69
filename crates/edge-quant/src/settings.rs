//! How a network is quantized: a scheme in a target's types.

use std::collections::BTreeMap;

use edge_ir::{DType, Node};
use edge_spec::{Biases, Precision, Scheme};

use crate::WeightScheme;

/// What is computed with activations of 16 bits where others have 8: the scheduler's step multiplies every error of the
/// latents.
const FINE_PARTS: &[&str] = &["scheduler"];
/// What has weights of 8 bits where those of others have 4: what enters and leaves the network passes it.
const WIDE_PARTS: &[&str] = &["conv_in", "conv_out"];

/// Modules that stay in float: angles of several turns, of which the sine is taken.
const FLOAT_MODULES: &[&str] = &["time_proj"];

/// How a graph is quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Type of activations; float if absent.
    pub activations: Option<DType>,
    /// Type of activations of 16 bits, where 8 are too few.
    pub fine: DType,
    /// Type of weights; float if absent.
    pub weights: Option<DType>,
    /// Inputs that share a scale of 4-bit weights; all of a channel if absent.
    pub block: Option<usize>,
    /// Whether biases are `int32`.
    pub integer_biases: bool,
    /// Type of the second operand of a product of two activations of 16 bits, if it is another.
    pub second: Option<DType>,
    /// Type of the weights of depthwise convolutions between activations of 16 bits, if it is another.
    pub depthwise: Option<DType>,
    /// Types of gains, by operator.
    pub gains: BTreeMap<String, DType>,
    /// Modules and operators with activations of 16 bits, where 8 are too few for others.
    pub fine_parts: Vec<String>,
    /// Modules and operators with weights of 8 bits, where 4 are too few for others.
    pub wide_parts: Vec<String>,
    /// ONNX opset.
    pub opset: u32,
}

impl Settings {
    /// A scheme for a target. `None` if weights and activations both stay in float.
    pub fn of(scheme: Scheme, precision: &Precision, opset: u32) -> Option<Self> {
        let dtype = |integer: edge_spec::Integer| DType::from_name(integer.name());
        let fine = dtype(precision.activations_16)?;
        let (weights, activations) = match scheme {
            Scheme::W8a16 => (DType::Int8, Some(fine)),
            Scheme::W8a8 => (DType::Int8, Some(dtype(precision.activations_8)?)),
            Scheme::W4a16 => (DType::Int4, Some(fine)),
            Scheme::W8 => (DType::Int8, None),
            Scheme::Fp16 => return None,
        };
        Some(Self {
            activations,
            fine,
            weights: Some(weights),
            block: precision.block,
            integer_biases: precision.biases == Biases::Int32,
            second: precision.matmul_second_16.and_then(dtype),
            depthwise: precision.depthwise_16.and_then(dtype),
            gains: precision.gains.iter().filter_map(|(op, ty)| Some((op.clone(), dtype(*ty)?))).collect(),
            fine_parts: FINE_PARTS.iter().map(|part| (*part).to_owned()).collect(),
            wide_parts: WIDE_PARTS.iter().map(|part| (*part).to_owned()).collect(),
            opset,
        })
    }

    /// The type of the activations of a node that can be quantized.
    pub(crate) fn activations_of(&self, node: &Node) -> Option<DType> {
        if FLOAT_MODULES.iter().any(|module| is_part(node, module)) {
            return None;
        }
        let fine = self.fine_parts.iter().any(|part| is_part(node, part));
        self.activations.map(|ty| if fine { self.fine } else { ty })
    }

    /// How the weight of a node is quantized, which has this shape and its output channels on this axis.
    pub(crate) fn weight_of(&self, node: &Node, shape: &[usize], axis: usize) -> Option<WeightScheme> {
        let dtype = self.weights?;
        let depthwise = node.int("group", 1) > 1;
        if let Some(dtype) = self.depthwise.filter(|_| depthwise && self.activations_of(node) == Some(self.fine)) {
            return Some(WeightScheme { dtype, axis, block: None });
        }
        let wide = self.wide_parts.iter().any(|part| is_part(node, part)) || depthwise;
        let dtype = if dtype == DType::Int4 && wide { DType::Int8 } else { dtype };
        // Blocks of a convolution over several pixels would have a scale for each of them.
        let matrix = shape.iter().skip(2).all(|d| *d == 1);
        let block = self.block.filter(|_| dtype == DType::Int4 && matrix);
        Some(WeightScheme { dtype, axis, block })
    }

    /// The type of the gain of a norm: as wide as its activations, if nothing else is said.
    pub(crate) fn gain_of(&self, node: &Node, activations: DType) -> DType {
        self.gains.get(node.op.name).copied().unwrap_or(activations)
    }
}

/// Whether a node is of an operator, or of a module, named by its path or a part of it.
fn is_part(node: &Node, part: &str) -> bool {
    node.op.name == part || format!(".{}.", node.module()).contains(&format!(".{part}."))
}
