//! `EdgeSilu`, `EdgeGelu`, `EdgeQuickGelu`: activations, element by element. They have no attributes.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, activated, built};
use crate::kernels::elementwise::Activation;

/// The operators: `Activate<I>` is row `I`.
const TABLE: [(&str, Activation); 3] =
    [("EdgeSilu", Activation::Silu), ("EdgeGelu", Activation::Gelu), ("EdgeQuickGelu", Activation::QuickGelu)];

/// Row of `x * sigmoid(x)`.
pub(super) const SILU: usize = 0;
/// Row of `x / 2 * (1 + erf(x / sqrt 2))`.
pub(super) const GELU: usize = 1;
/// Row of `x * sigmoid(1.702 x)`.
pub(super) const QUICK_GELU: usize = 2;

/// The operator of one row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Activate<const ROW: usize>;

/// Reads a node.
pub(super) fn build<const ROW: usize>(_context: &ParsingContext, _node: &NodeProto) -> Built {
    built(Activate::<ROW>)
}

impl<const ROW: usize> Kernel for Activate<ROW> {
    const NAME: &'static str = TABLE[ROW].0;
    const INPUTS: (usize, usize) = (1, 1);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        Ok(inputs[0].into())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        activated(TABLE[ROW].1, inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    fn check(kernel: impl Kernel, at_one: f32) {
        let (shape, y) = run(kernel, &[(vec![1, 2], vec![0.0, 1.0])]);
        assert_eq!(shape, [1, 2]);
        assert!(y[0] == 0.0 && (y[1] - at_one).abs() < 1e-6, "{y:?}");
    }

    #[test]
    fn values_and_shape() {
        check(Activate::<SILU>, 0.731_058_6);
        check(Activate::<GELU>, 0.841_344_7);
        check(Activate::<QUICK_GELU>, 0.845_795_8);
    }
}
