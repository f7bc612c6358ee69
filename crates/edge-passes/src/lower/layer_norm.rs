//! Layer norms as means, differences and a root.

use edge_ir::{Builder, Error, Graph, Node, Rewritten, ValueId, View, rewrite};

use super::tool::{self, Weight};
use crate::Pass;

/// A layer norm of rows `[rows,c]`.
pub(super) struct Norm {
    pub(super) x: ValueId,
    gain: Weight,
    shift: Weight,
    epsilon: f32,
}

impl Norm {
    /// The norm that this node is.
    pub(super) fn of(view: &View<'_>, node: &Node) -> Option<Self> {
        let [Some(x), Some(gain), Some(shift)] = node.inputs[..] else { return None };
        let shape = view.shape(x);
        let last =
            node.op.name == "LayerNormalization" && tool::is_axis(node.int("axis", -1), shape.len() - 1, shape.len());
        let epsilon = node.float("epsilon", 1e-5);
        last.then_some(Self { x, gain: Weight::of(view, gain)?, shift: Weight::of(view, shift)?, epsilon })
    }

    /// The norm of `x` over one axis, where gain and shift have the shape `affine`.
    pub(super) fn decomposed(
        self,
        b: &mut Builder,
        name: &str,
        (x, axis): (ValueId, usize),
        affine: &[usize],
    ) -> Result<ValueId, Error> {
        let normal = tool::normalize(b, name, x, &[axis], self.epsilon)?;
        let (gain, shift) = (self.gain.reshape(affine).add(b)?, self.shift.reshape(affine).add(b)?);
        let scaled = b.node("Mul", &format!("{name}/Mul"), &[normal, gain], &[])?;
        b.node("Add", &format!("{name}/Add"), &[scaled, shift], &[])
    }
}

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerNormDecomposed;

impl Pass for LayerNormDecomposed {
    fn name(&self) -> &'static str {
        "layer-norm-decomposed"
    }

    fn about(&self) -> &'static str {
        "a layer norm is ReduceMean, Sub, Mul, Sqrt and Div"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let node = &view.graph.nodes[index];
            let Some(norm) = Norm::of(view, node) else { return Ok(None) };
            let (x, shape) = (norm.x, view.shape(norm.x));
            let axis = shape.len() - 1;
            Ok(Some(vec![norm.decomposed(b, &node.name, (x, axis), &shape[axis..])?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, layer_norm};
    use super::*;

    #[test]
    fn of_rows() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[6, 16]);
                layer_norm(b, "norm", x)
            },
            LayerNormDecomposed,
            EXACT,
            &[("LayerNormalization", 0), ("ReduceMean", 2), ("Sqrt", 1)],
        );
    }
}
