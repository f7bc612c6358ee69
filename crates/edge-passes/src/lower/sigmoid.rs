//! The logistic function by `Tanh`: `sigmoid(x) = 0.5 + 0.5 tanh(x / 2)`, exactly. SiLU and quick GELU are products with
//! it.

use edge_ir::{Error, Graph, Rewritten, rewrite};

use super::tool;
use crate::Pass;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct SigmoidAsTanh;

impl Pass for SigmoidAsTanh {
    fn name(&self) -> &'static str {
        "sigmoid-as-tanh"
    }

    fn about(&self) -> &'static str {
        "Sigmoid, in SiLU and quick GELU, is written with Tanh"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(node) = view.node(index, "Sigmoid") else { return Ok(None) };
            let Some(x) = node.inputs[0] else { return Ok(None) };
            let half = tool::scalar(b, 0.5);
            let step = |step: &str| format!("{}/{step}", node.module());
            let less = b.node("Mul", &step("Mul.halved"), &[x, half], &[])?;
            let tanh = b.node("Tanh", &step("Tanh"), &[less], &[])?;
            let scaled = b.node("Mul", &step("Mul.tanh"), &[tanh, half], &[])?;
            Ok(Some(vec![b.node("Add", &step("Add.half"), &[scaled, half], &[])?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check};
    use super::*;

    #[test]
    fn silu() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[6, 8]);
                let gate = b.node("Sigmoid", "silu/Sigmoid", &[x], &[]).expect("a gate");
                b.node("Mul", "silu/Mul", &[x, gate], &[]).expect("a product")
            },
            SigmoidAsTanh,
            EXACT,
            &[("Sigmoid", 0), ("Tanh", 1)],
        );
    }
}
