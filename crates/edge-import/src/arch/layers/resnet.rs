//! diffusers' `ResnetBlock2D` (`models/resnet.py`).

use edge_ir::ValueId;

use crate::Error;
use crate::net::Net;

/// What distinguishes one ResNet block from another.
#[derive(Clone, Copy)]
pub(crate) struct Resnet {
    /// Output channels.
    pub(crate) out: usize,
    /// Groups of both norms.
    pub(crate) groups: usize,
    /// Added to variances.
    pub(crate) epsilon: f32,
    /// The activated time embedding, `[1 or n, width]`, if the block has one.
    pub(crate) time: Option<ValueId>,
}

impl Net<'_> {
    /// Norm, SiLU, convolution, time, norm, SiLU, convolution; plus the input, through a 1x1 convolution where the
    /// number of channels changes.
    pub(crate) fn resnet(&mut self, name: &str, x: ValueId, spec: Resnet) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let h = self.norm_silu(name, 1, x, spec)?;
        let mut h = self.conv(&format!("{name}.conv1"), h, spec.out, 3, 1, 1)?;
        if let Some(time) = spec.time {
            let module = format!("{name}.time_emb_proj");
            let bias = self.linear(&module, time, spec.out, true)?;
            let rows = self.b.shape(bias)[0];
            let bias = self.reshape(&format!("{module}/Reshape"), bias, &[rows, spec.out, 1, 1])?;
            h = self.add(&format!("{module}/Add"), h, bias)?;
        }
        let h = self.norm_silu(name, 2, h, spec)?;
        let h = self.conv(&format!("{name}.conv2"), h, spec.out, 3, 1, 1)?;
        let x =
            if channels == spec.out { x } else { self.conv(&format!("{name}.conv_shortcut"), x, spec.out, 1, 1, 0)? };
        self.add(&format!("{name}/Add"), x, h)
    }

    fn norm_silu(&mut self, name: &str, index: usize, x: ValueId, spec: Resnet) -> Result<ValueId, Error> {
        let normal = self.group_norm(&format!("{name}.norm{index}"), x, spec.groups, spec.epsilon)?;
        self.silu(&format!("{name}.nonlinearity{index}"), normal)
    }
}
