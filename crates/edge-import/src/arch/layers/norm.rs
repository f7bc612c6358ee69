//! Normalizations.

use edge_ir::{Attribute, ValueId};

use crate::Error;
use crate::net::Net;

impl Net<'_> {
    /// Group normalization of `[n,c,h,w]`, as `InstanceNormalization` of `[n,groups,c/groups,h*w]` and an affine step per
    /// channel: every runtime and compiler has these, and none needs more than four dimensions.
    pub(crate) fn group_norm(&mut self, name: &str, x: ValueId, groups: usize, epsilon: f32) -> Result<ValueId, Error> {
        let shape = self.b.shape(x).to_vec();
        let [n, c, h, w] = shape[..] else { return Ok(x) };
        let one = self.b.floats(&format!("ones_{groups}"), &[groups], &vec![1.0; groups]);
        let zero = self.b.floats(&format!("zeros_{groups}"), &[groups], &vec![0.0; groups]);
        let grouped = self.reshape(&format!("{name}/Reshape"), x, &[n, groups, c / groups, h * w])?;
        let step = format!("{name}/InstanceNormalization");
        let normal = self.b.node(
            "InstanceNormalization",
            &step,
            &[grouped, one, zero],
            &[("epsilon", Attribute::Float(epsilon))],
        )?;
        let image = self.reshape(&format!("{name}/Reshape.back"), normal, &shape)?;
        let gain = self.weight_as(&format!("{name}.weight"), &[c], &[1, c, 1, 1])?;
        let shift = self.weight_as(&format!("{name}.bias"), &[c], &[1, c, 1, 1])?;
        let scaled = self.b.node("Mul", &format!("{name}/Mul"), &[image, gain], &[])?;
        self.add(&format!("{name}/Add"), scaled, shift)
    }

    /// Layer normalization of the rows of `[rows,c]`.
    pub(crate) fn layer_norm(&mut self, name: &str, x: ValueId, epsilon: f32) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let gain = self.weight(&format!("{name}.weight"), &[channels])?;
        let shift = self.weight(&format!("{name}.bias"), &[channels])?;
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        Ok(self.b.node("LayerNormalization", name, &[x, gain, shift], &attributes)?)
    }
}
