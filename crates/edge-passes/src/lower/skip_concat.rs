//! A convolution of joined tensors becomes one convolution for each, which are added: exact, and each tensor keeps its own
//! range when it is quantized.

use edge_ir::{Error, Graph, Rewritten, rewrite};

use super::tool::{self, Weight};
use crate::Pass;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkipConcatAsConvs;

impl Pass for SkipConcatAsConvs {
    fn name(&self) -> &'static str {
        "skip-concat-as-convs"
    }

    fn about(&self) -> &'static str {
        "a convolution of joined tensors becomes one for each, added"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let found = || {
                let conv = view.node(index, "Conv").filter(|n| n.int("group", 1) == 1)?;
                let (_, concat) = view.maker((*conv.inputs.first()?)?, "Concat")?;
                let joined = tool::is_axis(concat.int("axis", 0), 1, 4);
                let weight = Weight::of(view, (*conv.inputs.get(1)?)?)?;
                let parts: Vec<_> = concat.inputs.iter().copied().flatten().collect();
                joined.then_some((conv, parts, weight))
            };
            let Some((conv, parts, weight)) = found() else { return Ok(None) };
            let attributes: Vec<_> = conv.attributes.iter().map(|(k, v)| (*k, v.clone())).collect();
            let (mut start, mut sum) = (0, None);
            for (index, x) in parts.into_iter().enumerate() {
                let (channels, suffix) = (view.shape(x)[1], format!("part{index}"));
                let Some(part) = weight.part(1, start, channels, &suffix) else { return Ok(None) };
                start += channels;
                let mut inputs = vec![x, part.add(b)?];
                // The bias is added once.
                inputs.extend(conv.inputs.get(2).copied().flatten().filter(|_| sum.is_none()));
                let result = b.node("Conv", &format!("{}/{suffix}", conv.name), &inputs, &attributes)?;
                sum = Some(match sum {
                    Some(sum) => b.node("Add", &format!("{}/Add.{suffix}", conv.name), &[sum, result], &[])?,
                    None => result,
                });
            }
            Ok(sum.map(|sum| vec![sum]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, conv};
    use super::*;

    #[test]
    fn of_two_tensors() {
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[1, 3, 4, 5]);
                let y = b.input("y", DType::Float32, &[1, 6, 4, 5]);
                let joined = tool::concat(b, "join", &[x, y], 1).expect("joined");
                conv(b, "conv", joined, 7, 3)
            },
            SkipConcatAsConvs,
            EXACT,
            &[("Conv", 2), ("Concat", 0), ("Add", 1)],
        );
    }
}
