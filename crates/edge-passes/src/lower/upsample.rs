//! Upsampling by two without `Resize`: four copies of the channels, which `DepthToSpace` puts beside one another.

use edge_ir::{Attribute, Error, Graph, Rewritten, rewrite};

use super::tool;
use crate::Pass;

/// The pass. An upsampling to another size, one less than twice, stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpsampleAsDepthToSpace;

impl Pass for UpsampleAsDepthToSpace {
    fn name(&self) -> &'static str {
        "upsample-as-depth-to-space"
    }

    fn about(&self) -> &'static str {
        "upsampling by two is Concat and DepthToSpace instead of Resize"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(node) = view.node(index, "Resize") else { return Ok(None) };
            let (Some(Some(x)), [out]) = (node.inputs.first(), &node.outputs[..]) else { return Ok(None) };
            let [n, c, h, w] = view.shape(*x)[..] else { return Ok(None) };
            if view.shape(*out) != [n, c, 2 * h, 2 * w] {
                return Ok(None);
            }
            let copies = tool::concat(b, &format!("{}.Concat", node.name), &[*x; 4], 1)?;
            let attributes = [("blocksize", Attribute::Int(2)), ("mode", Attribute::String("DCR".to_owned()))];
            Ok(Some(vec![b.node("DepthToSpace", &node.name, &[copies], &attributes)?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::check;
    use super::*;

    #[test]
    fn by_two() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[2, 3, 4, 5]);
                let text = |v: &str| Attribute::String(v.to_owned());
                let attributes = [
                    ("mode", text("nearest")),
                    ("coordinate_transformation_mode", text("asymmetric")),
                    ("nearest_mode", text("floor")),
                ];
                let scales = b.floats("twice", &[4], &[1.0, 1.0, 2.0, 2.0]);
                b.nodes("Resize", "up", vec![Some(x), None, Some(scales)], &attributes).expect("an image")[0]
            },
            UpsampleAsDepthToSpace,
            0.0,
            &[("Resize", 0), ("DepthToSpace", 1), ("Concat", 1)],
        );
    }
}
