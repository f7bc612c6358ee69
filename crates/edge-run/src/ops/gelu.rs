//! `EdgeGelu`: the exact GELU, `x / 2 * (1 + erf(x / sqrt 2))`, element by element.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, activated, built};
use crate::kernels::elementwise::Activation;

/// The operator, which has no attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gelu;

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, _node: &NodeProto) -> Built {
    built(Gelu)
}

impl Kernel for Gelu {
    const NAME: &'static str = "EdgeGelu";
    const INPUTS: (usize, usize) = (1, 1);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        Ok(inputs[0].into())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        activated(Activation::Gelu, inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn values_and_shape() {
        let (shape, y) = run(Gelu, &[(vec![1, 2], vec![0.0, 1.0])]);
        assert_eq!(shape, [1, 2]);
        assert!(y[0] == 0.0 && (y[1] - 0.841_344_7).abs() < 1e-6, "{y:?}");
    }
}
