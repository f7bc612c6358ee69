//! `EdgeLayerNorm`: layer normalization over the last axis of x with gamma and beta of its length.
//!
//! Attribute `epsilon`, default 1e-5.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::kernels::norm::layer_norm;

/// The attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LayerNorm {
    /// Added to the variance.
    pub(super) epsilon: f32,
}

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    built(LayerNorm { epsilon: node.get_attr_opt("epsilon")?.unwrap_or(1e-5) })
}

impl Kernel for LayerNorm {
    const NAME: &'static str = "EdgeLayerNorm";
    const INPUTS: (usize, usize) = (3, 3);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        let width = *inputs[0].last().context("expected an input of rank 1 or more")?;
        for constant in &inputs[1..] {
            ensure!(**constant == [width], "expected constants [{width}], got {constant:?}");
        }
        Ok(inputs[0].into())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let (x, gamma, beta) = (numbers(&inputs[0])?, numbers(&inputs[1])?, numbers(&inputs[2])?);
        filled(inputs[0].shape(), |y| layer_norm(self.epsilon, x, gamma, beta, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn each_row_has_mean_zero() {
        let x = (vec![2, 2], vec![1.0, 3.0, 10.0, 30.0]);
        let constants = (vec![2], vec![1.0, 1.0]);
        let (_, y) = run(LayerNorm { epsilon: 0.0 }, &[x, constants.clone(), constants]);
        assert_eq!(y, [0.0, 2.0, 0.0, 2.0]);
    }
}
