//! Group norms: how the importer's form is recognized (`Reshape`, `InstanceNormalization` with unit gain, `Reshape`,
//! `Mul`, `Add`), and its other forms: the operator of opset 21, and means.

use edge_ir::{Attribute, Builder, Error, Graph, Rewritten, ValueId, View, pair, rewrite};

use super::tool::{self, Weight};
use crate::Pass;

/// A group norm of an image.
struct Norm {
    x: ValueId,
    gain: Weight,
    shift: Weight,
    groups: usize,
    epsilon: f32,
    /// The module that it came from.
    module: String,
}

impl Norm {
    /// The norm whose last node is the `Add` at `index`.
    fn of(view: &View<'_>, index: usize) -> Option<Self> {
        let add = view.node(index, "Add")?;
        let (scaled, shift) = pair(add)?;
        let (_, mul) = view.only_maker(scaled, "Mul")?;
        let (image, gain) = pair(mul)?;
        let (_, back) = view.only_maker(image, "Reshape")?;
        let (_, norm) = view.only_maker((*back.inputs.first()?)?, "InstanceNormalization")?;
        let [Some(grouped), Some(ones), Some(zeros)] = norm.inputs[..] else { return None };
        let (_, split) = view.only_maker(grouped, "Reshape")?;
        let x = (*split.inputs.first()?)?;
        let shape = view.shape(x);
        if shape != view.shape(image) || shape.len() != 4 || !view.is_all(ones, 1.0) || !view.is_all(zeros, 0.0) {
            return None;
        }
        let per_channel = |id| Weight::of(view, id).filter(|w| w.ty.shape == [1, shape[1], 1, 1]);
        Some(Self {
            x,
            gain: per_channel(gain)?,
            shift: per_channel(shift)?,
            groups: view.shape(grouped)[1],
            epsilon: norm.float("epsilon", 1e-5),
            module: add.module().to_owned(),
        })
    }
}

/// The pass to the operator of opset 21.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupNormNative;

impl Pass for GroupNormNative {
    fn name(&self) -> &'static str {
        "group-norm-native"
    }

    fn about(&self) -> &'static str {
        "a group norm is one GroupNormalization"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(norm) = Norm::of(view, index) else { return Ok(None) };
            let channels = view.shape(norm.x)[1];
            let (gain, shift) = (norm.gain.reshape([channels]).add(b)?, norm.shift.reshape([channels]).add(b)?);
            let attributes = [
                ("num_groups", Attribute::Int(tool::signed(&[norm.groups])[0])),
                ("epsilon", Attribute::Float(norm.epsilon)),
            ];
            Ok(Some(vec![b.node("GroupNormalization", &norm.module, &[norm.x, gain, shift], &attributes)?]))
        })
    }
}

/// The pass to means, differences and a root.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupNormDecomposed;

impl Pass for GroupNormDecomposed {
    fn name(&self) -> &'static str {
        "group-norm-decomposed"
    }

    fn about(&self) -> &'static str {
        "a group norm is ReduceMean, Sub, Mul, Sqrt and Div"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b: &mut Builder| {
            let Some(Norm { x, gain, shift, groups, epsilon, module }) = Norm::of(view, index) else { return Ok(None) };
            let shape = view.shape(x);
            let split = [shape[0], groups, shape[1] / groups, shape[2] * shape[3]];
            let grouped = tool::reshape(b, &format!("{module}/Reshape"), x, &split)?;
            let normal = tool::normalize(b, &module, grouped, &[2, 3], epsilon)?;
            let image = tool::reshape(b, &format!("{module}/Reshape.back"), normal, shape)?;
            let (gain, shift) = (gain.add(b)?, shift.add(b)?);
            let scaled = b.node("Mul", &format!("{module}/Mul"), &[image, gain], &[])?;
            Ok(Some(vec![b.node("Add", &format!("{module}/Add"), &[scaled, shift], &[])?]))
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, check, group_norm};
    use super::*;

    fn build(b: &mut Builder) -> ValueId {
        let x = b.input("x", DType::Float32, &[2, 8, 3, 5]);
        group_norm(b, "norm", x, 4)
    }

    #[test]
    fn native() {
        check(build, GroupNormNative, EXACT, &[("GroupNormalization", 1), ("Reshape", 0), ("Mul", 0), ("Add", 0)]);
    }

    #[test]
    fn decomposed() {
        let operators = [("InstanceNormalization", 0), ("ReduceMean", 2), ("Sqrt", 1), ("Reshape", 2)];
        check(build, GroupNormDecomposed, EXACT, &operators);
    }
}
