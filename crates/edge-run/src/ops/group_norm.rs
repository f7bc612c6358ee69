//! `EdgeGroupNorm`: group normalization of x `[B, C, H, W]` with gamma `[C]` and beta `[C]`.
//!
//! Attributes `groups`, `epsilon` (default 1e-5) and `silu` (default 0): whether SiLU follows.
//! Gamma and beta may have further axes of length 1.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::kernels::norm::{GroupNormShape, group_norm};

/// The attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupNorm {
    /// Groups of channels.
    pub(super) groups: usize,
    /// Added to the variance.
    pub(super) epsilon: f32,
    /// Whether SiLU follows.
    pub(super) silu: bool,
}

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    built(GroupNorm {
        groups: node.get_attr("groups")?,
        epsilon: node.get_attr_opt("epsilon")?.unwrap_or(1e-5),
        silu: node.get_attr_opt::<i64>("silu")?.unwrap_or(0) != 0,
    })
}

impl Kernel for GroupNorm {
    const NAME: &'static str = "EdgeGroupNorm";
    const INPUTS: (usize, usize) = (3, 3);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        let &[_, channels, ..] = inputs[0] else { bail!("expected an input of rank 2 or more") };
        ensure!(channels.checked_rem(self.groups) == Some(0), "`groups`: {} do not divide {channels}", self.groups);
        for constant in &inputs[1..] {
            let length: usize = constant.iter().product();
            ensure!(length == channels, "expected {channels} constants, got {constant:?}");
        }
        Ok(inputs[0].into())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let x = inputs[0].shape();
        let (channels, pixels) = (x[1], x[2..].iter().product());
        let Self { groups, epsilon, silu } = *self;
        let shape = GroupNormShape { channels, pixels, groups, epsilon, silu };
        let (gamma, beta) = (numbers(&inputs[1])?, numbers(&inputs[2])?);
        let values = numbers(&inputs[0])?;
        filled(x, |y| group_norm(&shape, values, gamma, beta, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn each_group_has_mean_zero() {
        let norm = GroupNorm { groups: 2, epsilon: 0.0, silu: false };
        let x = (vec![1, 2, 1, 2], vec![1.0, 3.0, 10.0, 30.0]);
        let (shape, y) = run(norm, &[x, (vec![2, 1, 1], vec![1.0, 2.0]), (vec![2], vec![0.0, 5.0])]);
        assert_eq!((shape, y), (vec![1, 2, 1, 2], vec![-1.0, 1.0, 3.0, 7.0]));
    }
}
