//! `EdgeAttention`: `softmax(q * k^T * scale + mask) * v`, inputs q, k, v and, optionally, mask.
//!
//! q is `[B, H, S, D]`, k and v are `[B, H, T, D]`, or k is `[B, H, D, T]` with `k_transposed = 1`. With
//! `heads_last = 1`, q is `[B, S, H, D]`, k and v are `[B, T, H, D]`: no transposition is needed around it. The mask,
//! `[S, T]` with any number of leading ones, is added to the scores of every head. `scale` is 1 over the root of D by
//! default. `scores` is the name under which the scores, before a mask, are shown to an observer, part by part.

use std::sync::{Mutex, PoisonError};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::Error;
use crate::kernels::attention::{AttentionShape, Layout, Operands, attention};
use crate::observe::Shown;

/// The attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    /// Factor of the scores.
    pub(super) scale: Option<f32>,
    /// Whether keys are `[B, H, D, T]`.
    pub(super) k_transposed: bool,
    /// Whether heads follow the length.
    pub(super) heads_last: bool,
    /// The scores' name, if somebody wants to see them.
    pub(super) scores: Option<String>,
    /// Who sees them.
    pub(super) shown: Option<Shown>,
}

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let attention = Attention {
        scale: node.get_attr_opt("scale")?,
        k_transposed: node.get_attr_opt::<i64>("k_transposed")?.unwrap_or(0) != 0,
        heads_last: node.get_attr_opt::<i64>("heads_last")?.unwrap_or(0) != 0,
        scores: node.get_attr_opt("scores")?,
        shown: None,
    };
    ensure!(!(attention.k_transposed && attention.heads_last), "`k_transposed` and `heads_last` exclude each other");
    built(attention)
}

impl Attention {
    /// The shape of the attention.
    #[expect(clippy::cast_precision_loss, reason = "a head is at most some hundred wide")]
    fn attention_shape(&self, inputs: &[&[usize]]) -> TractResult<AttentionShape> {
        let &[batch, a, b, width] = inputs[0] else { bail!("expected queries of rank 4, got {:?}", inputs[0]) };
        let (queries, heads) = if self.heads_last { (a, b) } else { (b, a) };
        let axis = if self.heads_last { 1 } else { 2 };
        let keys = *inputs[2].get(axis).context("values of too low a rank")?;
        let (values, transposed, layout) = if self.heads_last {
            ([batch, keys, heads, width], None, Layout::HeadsLast)
        } else if self.k_transposed {
            ([batch, heads, keys, width], Some([batch, heads, width, keys]), Layout::KeysTransposed)
        } else {
            ([batch, heads, keys, width], None, Layout::HeadsFirst)
        };
        ensure!(inputs[2] == values, "expected values {values:?}, got {:?}", inputs[2]);
        let expected = transposed.unwrap_or(values);
        ensure!(inputs[1] == expected, "expected keys {expected:?}, got {:?}", inputs[1]);
        if let Some(mask) = inputs.get(3) {
            let leading = mask.len().saturating_sub(2);
            let fits = mask[..leading].iter().all(|size| *size == 1) && mask[leading..] == [queries, keys];
            ensure!(fits, "expected a mask [{queries}, {keys}], got {mask:?}");
        }
        let scale = self.scale.unwrap_or_else(|| 1.0 / (width as f32).sqrt());
        Ok(AttentionShape { batch, heads, queries, keys, width, scale, layout })
    }
}

impl Kernel for Attention {
    const NAME: &'static str = "EdgeAttention";
    const INPUTS: (usize, usize) = (3, 4);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        self.attention_shape(inputs)?;
        Ok(inputs[0].into())
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let shapes: TVec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let shape = self.attention_shape(&shapes)?;
        let operands = Operands {
            q: numbers(&inputs[0])?,
            k: numbers(&inputs[1])?,
            v: numbers(&inputs[2])?,
            mask: inputs.get(3).map(numbers).transpose()?,
        };
        let (Some(tensor), Some(Shown(to))) = (&self.scores, &self.shown) else {
            return filled(shapes[0], |y| attention(&shape, operands, None, y));
        };
        let failure = Mutex::new(None);
        let see = |scores: &[f32]| {
            if let Err(error) = to.see(tensor, scores) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        let y = filled(shapes[0], |y| attention(&shape, operands, Some(&see), y))?;
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(Error::Observer(error).into()),
            None => Ok(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn a_mask_selects_the_value() {
        let attention = Attention { scale: None, k_transposed: false, heads_last: true, scores: None, shown: None };
        let ones = (vec![1, 2, 2, 1], vec![1.0; 4]);
        let v = (vec![1, 2, 2, 1], vec![1.0, 2.0, 3.0, 4.0]);
        let mask = (vec![1, 1, 2, 2], vec![0.0, f32::NEG_INFINITY, 0.0, 0.0]);
        let (shape, y) = run(attention, &[ones.clone(), ones, v, mask]);
        assert_eq!((shape, y), (vec![1, 2, 2, 1], vec![1.0, 2.0, 2.0, 3.0]));
    }
}
