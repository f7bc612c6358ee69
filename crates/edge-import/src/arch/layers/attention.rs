//! Multi-head attention over rows.

use edge_ir::{Attribute, ValueId};

use crate::Error;
use crate::net::Net;

/// What distinguishes one attention from another.
pub(crate) struct Attention<'a> {
    /// Names of the projections to queries, keys, values and out, below the module.
    pub(crate) projections: [&'a str; 4],
    /// Whether the projections to queries, keys and values have a bias; the one out always does.
    pub(crate) bias: bool,
    /// Images or prompts in the rows.
    pub(crate) batch: usize,
    /// Number of heads; the width of a head is channels / heads.
    pub(crate) heads: usize,
    /// Added to the scores, `[1,1,rows,rows]`.
    pub(crate) mask: Option<ValueId>,
}

impl Net<'_> {
    /// `softmax(q k^T / sqrt d) v`: queries from `x` `[batch*s,c]`, keys and values from `context` `[batch*t,c']`.
    pub(crate) fn attention(
        &mut self,
        name: &str,
        x: ValueId,
        context: ValueId,
        spec: &Attention<'_>,
    ) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let width = channels / spec.heads;
        let [to_q, to_k, to_v, to_out] = spec.projections.map(|p| format!("{name}.{p}"));
        let q = self.linear(&to_q, x, channels, spec.bias)?;
        let k = self.linear(&to_k, context, channels, spec.bias)?;
        let v = self.linear(&to_v, context, channels, spec.bias)?;
        let q = self.heads(&to_q, q, spec, [0, 2, 1, 3])?;
        let k = self.heads(&to_k, k, spec, [0, 2, 3, 1])?;
        let v = self.heads(&to_v, v, spec, [0, 2, 1, 3])?;
        #[expect(clippy::cast_precision_loss, reason = "a head has far fewer than 2^24 channels")]
        let scale = 1.0 / (width as f32).sqrt();
        let q = self.scale(&format!("{name}/Mul.scale"), q, scale)?;
        let mut scores = self.b.node("MatMul", &format!("{name}/MatMul.scores"), &[q, k], &[])?;
        if let Some(mask) = spec.mask {
            scores = self.add(&format!("{name}/Add.mask"), scores, mask)?;
        }
        let shares = self.b.node("Softmax", &format!("{name}/Softmax"), &[scores], &[("axis", Attribute::Int(-1))])?;
        let mixed = self.b.node("MatMul", &format!("{name}/MatMul.values"), &[shares, v], &[])?;
        let rows = self.b.shape(x)[0];
        let joined = self.transpose(&format!("{name}/Transpose"), mixed, [0, 2, 1, 3])?;
        let joined = self.reshape(&format!("{name}/Reshape"), joined, &[rows, channels])?;
        self.linear(&to_out, joined, channels, true)
    }

    /// `[batch*s,c]` as `[batch,s,heads,c/heads]`, then permuted.
    fn heads(&mut self, name: &str, x: ValueId, spec: &Attention<'_>, perm: [usize; 4]) -> Result<ValueId, Error> {
        let [rows, channels] = [self.b.shape(x)[0], self.b.shape(x)[1]];
        let split = [spec.batch, rows / spec.batch, spec.heads, channels / spec.heads];
        let x = self.reshape(&format!("{name}/Reshape"), x, &split)?;
        self.transpose(&format!("{name}/Transpose"), x, perm)
    }
}
