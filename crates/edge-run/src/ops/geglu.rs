//! `EdgeGeglu`: `a * gelu(b)`, where the last axis of the input is a and then b; it is halved.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::kernels::elementwise::geglu;

/// The operator, which has no attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Geglu;

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, _node: &NodeProto) -> Built {
    built(Geglu)
}

impl Kernel for Geglu {
    const NAME: &'static str = "EdgeGeglu";
    const INPUTS: (usize, usize) = (1, 1);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        let (last, rows) = inputs[0].split_last().context("expected an input of rank 1 or more")?;
        ensure!(last % 2 == 0, "expected an even last axis, got {last}");
        Ok(rows.iter().copied().chain([last / 2]).collect())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let shape = self.shape(&[inputs[0].shape()])?;
        let width = shape.last().copied().unwrap_or(0);
        let x = numbers(&inputs[0])?;
        filled(&shape, |y| geglu(x, width, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn the_second_half_gates_the_first() {
        let (shape, y) = run(Geglu, &[(vec![1, 4], vec![2.0, 3.0, 0.0, 40.0])]);
        assert_eq!((shape, y), (vec![1, 2], vec![0.0, 120.0]));
    }
}
