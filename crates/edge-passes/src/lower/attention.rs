//! Attention by parts: each head by itself, and some rows of queries at a time. A head's keys come transposed from the
//! importer, so that its scores are one product; a part of the queries needs no other part, so both are exact.

use edge_ir::{Attribute, Builder, Error, Graph, Rewritten, ValueId, View, pair, rewrite};

use super::tool;
use super::tool::Weight;
use crate::Pass;

/// `softmax(q k + mask) v`.
struct Core {
    /// `[b,heads,s,d]`, scaled.
    queries: ValueId,
    /// `[b,heads,d,t]`.
    keys: ValueId,
    /// `[b,heads,t,d]`.
    values: ValueId,
    /// `[1,1,s,t]`.
    mask: Option<ValueId>,
    /// Names of the scores, the masked scores, the shares and the mix.
    names: [String; 4],
}

impl Core {
    /// The attention whose last product is the node at `index`.
    fn of(view: &View<'_>, index: usize) -> Option<Self> {
        let mix = view.node(index, "MatMul")?;
        let (shares, values) = pair(mix)?;
        let (_, softmax) = view.only_maker(shares, "Softmax")?;
        if !tool::is_axis(softmax.int("axis", -1), 3, 4) || view.shape(values).len() != 4 {
            return None;
        }
        let mut scores = (*softmax.inputs.first()?)?;
        let (mut mask, mut masked) = (None, String::new());
        if let Some((_, add)) = view.only_maker(scores, "Add") {
            let (a, b) = pair(add)?;
            masked.clone_from(&add.name);
            (scores, mask) = (a, Some(b).filter(|m| view.shape(*m)[..2] == [1, 1]));
            mask?;
        }
        let (_, product) = view.only_maker(scores, "MatMul")?;
        let (queries, keys) = pair(product)?;
        let names = [product.name.clone(), masked, softmax.name.clone(), mix.name.clone()];
        let alike =
            view.shape(queries)[..2] == view.shape(values)[..2] && view.shape(keys)[..2] == view.shape(values)[..2];
        alike.then_some(Self { queries, keys, values, mask, names })
    }

    /// The same on other tensors, with a suffix to all names.
    fn part(
        &self,
        b: &mut Builder,
        suffix: &str,
        [q, k, v]: [ValueId; 3],
        mask: Option<ValueId>,
    ) -> Result<ValueId, Error> {
        let [product, masked, shares, mix] = self.names.each_ref().map(|name| format!("{name}.{suffix}"));
        let mut scores = b.node("MatMul", &product, &[q, k], &[])?;
        if let Some(mask) = mask {
            scores = b.node("Add", &masked, &[scores, mask], &[])?;
        }
        let shares = b.node("Softmax", &shares, &[scores], &[("axis", Attribute::Int(-1))])?;
        b.node("MatMul", &mix, &[shares, v], &[])
    }

    fn module(&self) -> &str {
        self.names[3].split('/').next().unwrap_or_default()
    }
}

/// The pass that separates heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionPerHead;

impl Pass for AttentionPerHead {
    fn name(&self) -> &'static str {
        "attention-per-head"
    }

    fn about(&self) -> &'static str {
        "each head attends by itself, in products of one matrix each"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(core) = Core::of(view, index) else { return Ok(None) };
            let heads = view.shape(core.values)[1];
            if heads == 1 {
                return Ok(None);
            }
            let module = core.module().to_owned();
            let parts = |b: &mut Builder, name: &str, x| {
                tool::split(b, &format!("{module}/Split.{name}"), x, 1, &vec![1; heads])
            };
            let (q, k, v) = (parts(b, "q", core.queries)?, parts(b, "k", core.keys)?, parts(b, "v", core.values)?);
            let mut mixed = Vec::with_capacity(heads);
            for head in 0..heads {
                mixed.push(core.part(b, &format!("head{head}"), [q[head], k[head], v[head]], core.mask)?);
            }
            Ok(Some(vec![tool::concat(b, &format!("{module}/Concat.heads"), &mixed, 1)?]))
        })
    }
}

/// The pass that takes some rows of queries at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionInChunks {
    /// Rows of queries at a time.
    pub(super) rows: usize,
}

impl Pass for AttentionInChunks {
    fn name(&self) -> &'static str {
        "attention-in-chunks"
    }

    fn about(&self) -> &'static str {
        "queries attend some rows at a time, so that the scores stay small"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some(core) = Core::of(view, index) else { return Ok(None) };
            let rows = view.shape(core.queries)[2];
            if rows <= self.rows {
                return Ok(None);
            }
            let whole = std::iter::repeat_n(self.rows, rows / self.rows);
            let sizes: Vec<usize> = whole.chain(Some(rows % self.rows).filter(|rest| *rest > 0)).collect();
            let name = core.names[3].clone();
            let q = tool::split(b, &format!("{name}.Split.q"), core.queries, 2, &sizes)?;
            let masks = match core.mask {
                Some(mask) => tool::split(b, &format!("{name}.Split.mask"), mask, 2, &sizes)?,
                None => Vec::new(),
            };
            let mut mixed = Vec::with_capacity(q.len());
            for (chunk, q) in q.into_iter().enumerate() {
                let mask = masks.get(chunk).copied();
                mixed.push(core.part(b, &format!("chunk{chunk}"), [q, core.keys, core.values], mask)?);
            }
            Ok(Some(vec![tool::concat(b, &format!("{name}.Concat.chunks"), &mixed, 2)?]))
        })
    }
}

/// The pass that scales the weights of the queries instead of the queries.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaleInWeights;

impl Pass for ScaleInWeights {
    fn name(&self) -> &'static str {
        "scale-in-weights"
    }

    fn about(&self) -> &'static str {
        "the factor on the queries goes into the weights of the layer that makes them"
    }

    fn run(&self, graph: Graph, limit: usize) -> Result<Rewritten, Error> {
        rewrite(graph, limit, &mut |view, index, b| {
            let Some((layer, found)) = scaled_layer(view, index) else { return Ok(None) };
            let weights = [Some(layer.weight), layer.bias].into_iter().flatten();
            let Some(scaled) = weights.map(|w| w.scale(found.factor)).collect::<Option<Vec<Weight>>>() else {
                return Ok(None);
            };
            let mut inputs = vec![layer.x];
            for weight in scaled {
                inputs.push(weight.add(b)?);
            }
            let rows = b.node("Gemm", found.names[0], &inputs, &[("transB", Attribute::Int(1))])?;
            let heads = tool::reshape(b, found.names[1], rows, view.shape(found.split))?;
            let perm = ("perm", Attribute::Ints(found.perm.to_vec()));
            Ok(Some(vec![b.node("Transpose", found.names[2], &[heads], &[perm])?]))
        })
    }
}

struct Scaled<'a> {
    factor: f32,
    /// The queries split into heads.
    split: ValueId,
    perm: &'a [i64],
    /// Names of the layer, the split and the transpose.
    names: [&'a str; 3],
}

/// For a `Mul` by a number: the linear layer before it, with a split into heads in between.
fn scaled_layer<'a>(view: &View<'a>, index: usize) -> Option<(super::linear::Layer, Scaled<'a>)> {
    let (queries, factor) = view.with_number(view.node(index, "Mul")?)?;
    let (_, transpose) = view.only_maker(queries, "Transpose")?;
    let split = (*transpose.inputs.first()?)?;
    let (_, reshape) = view.only_maker(split, "Reshape")?;
    let (_, gemm) = view.only_maker((*reshape.inputs.first()?)?, "Gemm")?;
    let names = [gemm.name.as_str(), reshape.name.as_str(), transpose.name.as_str()];
    let layer = super::linear::Layer::of(view, gemm)?;
    Some((layer, Scaled { factor, split, perm: transpose.ints("perm")?, names }))
}

#[cfg(test)]
mod tests {
    use edge_ir::DType;

    use super::super::testing::{EXACT, attention, check};
    use super::*;

    /// Two prompts of six tokens, four heads; with a causal mask if `masked`.
    fn build(b: &mut Builder, masked: bool) -> ValueId {
        let x = b.input("x", DType::Float32, &[12, 16]);
        let context = b.input("context", DType::Float32, &[12, 10]);
        let mask: Vec<f32> = (0..36).map(|i| if i % 6 > i / 6 { -10_000.0 } else { 0.0 }).collect();
        let mask = masked.then(|| b.floats("mask", &[1, 1, 6, 6], &mask));
        attention(b, "attn", [x, context], 2, 4, mask)
    }

    #[test]
    fn heads() {
        for masked in [false, true] {
            let operators =
                [("Softmax", 4), ("MatMul", 8), ("Split", 3), ("Concat", 1), ("Add", 4 * usize::from(masked))];
            check(|b| build(b, masked), AttentionPerHead, EXACT, &operators);
        }
    }

    #[test]
    fn chunks_and_a_rest() {
        for masked in [false, true] {
            let operators =
                [("Softmax", 2), ("MatMul", 4), ("Split", 1), ("Concat", 1), ("Add", 2 * usize::from(masked))];
            check(|b| build(b, masked), AttentionInChunks { rows: 4 }, EXACT, &operators);
        }
    }

    #[test]
    fn scale() {
        check(|b| build(b, true), ScaleInWeights, EXACT, &[("Mul", 0), ("Gemm", 4), ("Transpose", 4)]);
    }
}
