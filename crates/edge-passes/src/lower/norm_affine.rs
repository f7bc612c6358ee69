//! Gain and shift of each channel as a convolution: 1x1, with as many groups as channels.

use edge_ir::{Error, Graph, Rewritten, pair, rewrite};

use super::tool::{self, Weight};
use crate::Pass;

/// The pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct AffineAsConv;

impl Pass for AffineAsConv {
    fn name(&self) -> &'static str {
        "affine-as-conv"
    }

    fn about(&self) -> &'static str {
        "gain and shift of a norm's channels are a depthwise 1x1 Conv instead of Mul and Add"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let found = || {
                let add = view.node(index, "Add")?;
                let (scaled, shift) = pair(add)?;
                let (x, gain) = pair(view.only_maker(scaled, "Mul")?.1)?;
                let [_, channels, _, _] = view.shape(x)[..] else { return None };
                let per_channel = |id| Weight::of(view, id).filter(|w| w.ty.shape == [1, channels, 1, 1]);
                Some((x, channels, per_channel(gain)?, per_channel(shift)?, add.module()))
            };
            let Some((x, channels, gain, shift, module)) = found() else { return Ok(None) };
            let weight = gain.reshape([channels, 1, 1, 1]).add(b)?;
            let bias = shift.reshape([channels]).add(b)?;
            let name = format!("{module}/Conv");
            Ok(Some(vec![b.node("Conv", &name, &[x, weight, bias], &tool::pointwise(channels))?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, group_norm};
    use super::*;

    #[test]
    fn of_a_group_norm() {
        let operators = [("InstanceNormalization", 1), ("Conv", 1), ("Mul", 0), ("Add", 0)];
        check(
            |b| {
                let x = b.input("x", DType::Float32, &[2, 8, 3, 5]);
                group_norm(b, "norm", x, 4)
            },
            AffineAsConv,
            EXACT,
            &operators,
        );
    }
}
