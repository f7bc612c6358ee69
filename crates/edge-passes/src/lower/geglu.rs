//! Gated layers: the projection to both halves becomes two, whose weights are halves of a view.

use edge_ir::{Attribute, Error, Graph, Rewritten, rewrite};

use super::linear::Layer;
use super::tool;
use crate::Pass;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct GegluAsTwo;

impl Pass for GegluAsTwo {
    fn name(&self) -> &'static str {
        "geglu-as-two-projections"
    }

    fn about(&self) -> &'static str {
        "a linear layer whose result is split becomes one layer for each part"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let found = || {
                let split = view.node(index, "Split").filter(|n| tool::is_axis(n.int("axis", 0), 1, 2))?;
                let (_, gemm) = view.only_maker((*split.inputs.first()?)?, "Gemm")?;
                let mut start = 0;
                let layer = Layer::of(view, gemm)?;
                let part = |(index, id): (usize, &edge_ir::ValueId)| {
                    let (len, suffix) = (view.shape(*id)[1], format!("part{index}"));
                    start += len;
                    let bias = layer.bias.as_ref().map(|bias| bias.part(0, start - len, len, &suffix));
                    let weights = [Some(layer.weight.part(0, start - len, len, &suffix)), bias];
                    Some((
                        weights.into_iter().flatten().collect::<Option<Vec<_>>>()?,
                        format!("{}/{suffix}", gemm.name),
                    ))
                };
                let parts = split.outputs.iter().enumerate().map(part).collect::<Option<Vec<_>>>()?;
                Some((layer.x, parts))
            };
            let Some((x, parts)) = found() else { return Ok(None) };
            let mut results = Vec::with_capacity(parts.len());
            for (weights, name) in parts {
                let mut inputs = vec![x];
                for weight in weights {
                    inputs.push(weight.add(b)?);
                }
                results.push(b.node("Gemm", &name, &inputs, &[("transB", Attribute::Int(1))])?);
            }
            Ok(Some(results))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, gelu, linear};
    use super::*;

    #[test]
    fn both_halves() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[6, 8]);
                let both = linear(b, "proj", x, 24);
                let halves = tool::split(b, "split", both, 1, &[12, 12]).expect("halves");
                let gate = gelu(b, "gelu", halves[1]);
                b.node("Mul", "gated", &[halves[0], gate], &[]).expect("a product")
            },
            GegluAsTwo,
            EXACT,
            &[("Gemm", 2), ("Split", 0)],
        );
    }
}
