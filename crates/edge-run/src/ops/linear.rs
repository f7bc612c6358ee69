//! `EdgeLinear`: `y = x * w^T + b` for x `[..., K]`, w `[N, K]` and, optionally, b `[N]`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::kernels::gemm::{linear, matmul};

/// The attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Linear {
    /// Whether w is `[K, N]` instead.
    pub(super) plain: bool,
}

/// Reads a node: `transB`, by default 1.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    built(Linear { plain: node.get_attr_opt::<i64>("transB")?.unwrap_or(1) == 0 })
}

impl Linear {
    /// M, K and N.
    fn sizes(&self, x: &[usize], w: &[usize]) -> TractResult<[usize; 3]> {
        let (Some((&k, rows)), &[first, second]) = (x.split_last(), w) else {
            bail!("expected an input of rank 1 or more and a weight of rank 2")
        };
        let (n, depth) = if self.plain { (second, first) } else { (first, second) };
        ensure!(k == depth, "expected a weight of depth {k}, got {depth}");
        Ok([rows.iter().product(), k, n])
    }
}

impl Kernel for Linear {
    const NAME: &'static str = "EdgeLinear";
    const INPUTS: (usize, usize) = (2, 3);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        let [_, _, n] = self.sizes(inputs[0], inputs[1])?;
        if let Some(bias) = inputs.get(2) {
            ensure!(**bias == [n], "expected a bias [{n}], got {bias:?}");
        }
        let (_, rows) = inputs[0].split_last().context("expected an input of rank 1 or more")?;
        Ok(rows.iter().copied().chain([n]).collect())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let shapes: TVec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let (sizes, shape) = (self.sizes(shapes[0], shapes[1])?, self.shape(&shapes)?);
        let bias = inputs.get(2).map(numbers).transpose()?;
        let (x, w) = (numbers(&inputs[0])?, numbers(&inputs[1])?);
        let kernel = if self.plain { matmul } else { linear };
        filled(&shape, |y| kernel(x, w, bias, sizes, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn both_orders_of_the_weight() {
        let x = (vec![2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let w = (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let (shape, y) = run(Linear { plain: false }, &[x.clone(), w.clone(), (vec![2], vec![0.5, -0.5])]);
        assert_eq!((shape, y), (vec![2, 1, 2], vec![5.5, 10.5, 11.5, 24.5]));
        assert_eq!(run(Linear { plain: true }, &[x, w]).1, [7.0, 10.0, 15.0, 22.0]);
    }
}
