//! diffusers' `Transformer2DModel` with `BasicTransformerBlock`s.

use edge_ir::{Attribute, ValueId};

use super::Body;
use crate::Error;
use crate::arch::layers::Attention;

/// diffusers fixes these two for all transformers of a UNet.
const GROUP_NORM_EPSILON: f32 = 1e-6;
const LAYER_NORM_EPSILON: f32 = 1e-5;

impl Body<'_> {
    /// Norm, projection, blocks over the pixels as rows, projection; plus the input.
    pub(super) fn transformer(&mut self, name: &str, x: ValueId, level: usize) -> Result<ValueId, Error> {
        let shape = self.net.b.shape(x).to_vec();
        let channels = shape[1];
        let linear = self.config.use_linear_projection;
        let h = self.net.group_norm(&format!("{name}.norm"), x, self.config.norm_num_groups, GROUP_NORM_EPSILON)?;
        let proj_in = format!("{name}.proj_in");
        let mut h = if linear {
            let rows = self.net.rows_of(name, h)?;
            self.net.linear(&proj_in, rows, channels, true)?
        } else {
            let image = self.net.conv(&proj_in, h, channels, 1, 1, 0)?;
            self.net.rows_of(name, image)?
        };
        for index in 0..self.config.transformer_layers[level] {
            h = self.block(&format!("{name}.transformer_blocks.{index}"), h, self.config.heads[level])?;
        }
        let proj_out = format!("{name}.proj_out");
        let h = if linear {
            let rows = self.net.linear(&proj_out, h, channels, true)?;
            self.net.image_of(name, rows, &shape)?
        } else {
            let image = self.net.image_of(name, h, &shape)?;
            self.net.conv(&proj_out, image, channels, 1, 1, 0)?
        };
        self.net.add(&format!("{name}/Add"), h, x)
    }

    /// Self-attention, cross-attention, feed-forward, each after a norm and added to its input.
    fn block(&mut self, name: &str, x: ValueId, heads: usize) -> Result<ValueId, Error> {
        let projections = ["to_q", "to_k", "to_v", "to_out.0"];
        let spec = Attention { projections, bias: false, batch: self.batch, heads, mask: None };
        let h = self.net.layer_norm(&format!("{name}.norm1"), x, LAYER_NORM_EPSILON)?;
        let h = self.net.attention(&format!("{name}.attn1"), h, h, &spec)?;
        let x = self.net.add(&format!("{name}/Add.attn1"), h, x)?;
        let h = self.net.layer_norm(&format!("{name}.norm2"), x, LAYER_NORM_EPSILON)?;
        let h = self.net.attention(&format!("{name}.attn2"), h, self.context, &spec)?;
        let x = self.net.add(&format!("{name}/Add.attn2"), h, x)?;
        let h = self.net.layer_norm(&format!("{name}.norm3"), x, LAYER_NORM_EPSILON)?;
        let h = self.feed_forward(&format!("{name}.ff"), h)?;
        self.net.add(&format!("{name}/Add.ff"), h, x)
    }

    /// GEGLU: one projection to twice the inner width, one half of it gated by the GELU of the other.
    fn feed_forward(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        let channels = self.net.b.shape(x)[1];
        let inner = 4 * channels;
        let both = self.net.linear(&format!("{name}.net.0.proj"), x, 2 * inner, true)?;
        let half = i64::try_from(inner).unwrap_or(i64::MAX);
        let sizes = self.net.b.ints(&[half, half]);
        let split = format!("{name}.net.0/Split");
        let halves =
            self.net.b.nodes("Split", &split, vec![Some(both), Some(sizes)], &[("axis", Attribute::Int(1))])?;
        let gate = self.net.gelu(&format!("{name}.net.0.gelu"), halves[1])?;
        let gated = self.net.b.node("Mul", &format!("{name}.net.0/Mul"), &[halves[0], gate], &[])?;
        self.net.linear(&format!("{name}.net.2"), gated, channels, true)
    }
}
