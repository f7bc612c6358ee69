//! Linear layers: how a `Gemm` of rows with a weight is recognized, and written as `MatMul` and `Add`.

use edge_ir::{Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use super::tool::Weight;
use crate::Pass;

/// `x w^T + bias` with constant weights.
pub(super) struct Layer {
    /// `[rows,in]`.
    pub(super) x: ValueId,
    /// `[out,in]`.
    pub(super) weight: Weight,
    /// `[out]`.
    pub(super) bias: Option<Weight>,
}

impl Layer {
    /// The layer that this node is.
    pub(super) fn of(view: &View<'_>, node: &Node) -> Option<Self> {
        let one = |name| super::tool::is(node.float(name, 1.0), 1.0);
        let plain = node.op.name == "Gemm" && node.int("transA", 0) == 0 && node.int("transB", 0) == 1;
        if !plain || !one("alpha") || !one("beta") {
            return None;
        }
        let weight = Weight::of(view, (*node.inputs.get(1)?)?)?;
        let bias = match node.inputs.get(2).copied().flatten() {
            Some(id) => Some(Weight::of(view, id).filter(|b| b.ty.shape == weight.ty.shape[..1])?),
            None => None,
        };
        Some(Self { x: (*node.inputs.first()?)?, weight, bias })
    }
}

/// The pass. The weight is transposed while it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearAsMatmul;

impl Pass for LinearAsMatmul {
    fn name(&self) -> &'static str {
        "linear-as-matmul"
    }

    fn about(&self) -> &'static str {
        "a linear layer is MatMul and Add instead of Gemm"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let node = &view.graph.nodes[index];
            let Some(layer) = Layer::of(view, node) else { return Ok(None) };
            let Some(weight) = layer.weight.transpose() else { return Ok(None) };
            let weight = weight.add(b)?;
            let product = b.node("MatMul", &node.name, &[layer.x, weight], &[])?;
            let Some(bias) = layer.bias else { return Ok(Some(vec![product])) };
            let bias = bias.add(b)?;
            Ok(Some(vec![b.node("Add", &format!("{}/Add.bias", node.name), &[product, bias], &[])?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, linear, weight};
    use super::*;

    #[test]
    fn with_and_without_bias() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[6, 8]);
                let x = linear(b, "a", x, 5);
                let w = weight(b, "b.weight", &[7, 5]);
                b.node("Gemm", "b", &[x, w], &[("transB", edge_ir::Attribute::Int(1))]).expect("a layer")
            },
            LinearAsMatmul,
            EXACT,
            &[("Gemm", 0), ("MatMul", 2), ("Add", 1), ("Transpose", 0)],
        );
    }
}
