//! `EdgeConv`: two-dimensional convolution, the inputs as ONNX `Conv` (x, w, optionally b).
//!
//! Attributes `kernel_shape`, `strides` (default 1, 1) and `pads` (default 0) as in ONNX
//! <https://onnx.ai/onnx/operators/onnx__Conv.html>; one group, no dilation, no `auto_pad`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, filled, numbers};
use crate::kernels::conv::{ConvShape, conv2d};

/// The attributes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conv {
    /// Kernel height and width; taken from the weights where absent.
    pub(super) kernel: Option<[usize; 2]>,
    /// Vertical and horizontal stride.
    pub(super) strides: [usize; 2],
    /// Above, left, below, right.
    pub(super) pads: [usize; 4],
}

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let refused = [("group", 1), ("dilations", 1)];
    for (name, only) in refused {
        let values = match name {
            "group" => node.get_attr_opt(name)?.into_iter().collect(),
            _ => node.get_attr_opt_vec::<i64>(name)?.unwrap_or_default(),
        };
        ensure!(values.iter().all(|value| *value == only), "`{name}`: expected {only}, got {values:?}");
    }
    let padding = node.get_attr_opt::<String>("auto_pad")?.unwrap_or_else(|| "NOTSET".into());
    ensure!(padding == "NOTSET", "`auto_pad`: expected NOTSET, got {padding}");
    built(Conv {
        kernel: sizes(node, "kernel_shape")?,
        strides: sizes(node, "strides")?.unwrap_or([1; 2]),
        pads: sizes(node, "pads")?.unwrap_or([0; 4]),
    })
}

/// An attribute of `N` sizes.
fn sizes<const N: usize>(node: &NodeProto, name: &str) -> TractResult<Option<[usize; N]>> {
    let Some(values) = node.get_attr_opt_vec::<usize>(name)? else { return Ok(None) };
    let sizes = values.try_into();
    Ok(Some(sizes.map_err(|values| format_err!("`{name}`: expected {N} values, got {values:?}"))?))
}

impl Conv {
    /// The shape of the convolution.
    fn conv_shape(&self, x: &[usize], w: &[usize]) -> TractResult<ConvShape> {
        let (&[batch, channels, height, width], &[outputs, depth, rows, cols]) = (x, w) else {
            bail!("expected inputs of rank 4")
        };
        ensure!(channels == depth, "expected {channels} channels in the weights, got {depth}");
        let kernel = [rows, cols];
        ensure!(self.kernel.is_none_or(|named| named == kernel), "`kernel_shape` is not that of the weights");
        let (strides, pads) = (self.strides, self.pads);
        Ok(ConvShape { batch, input: [channels, height, width], outputs, kernel, strides, pads })
    }
}

impl Kernel for Conv {
    const NAME: &'static str = "EdgeConv";
    const INPUTS: (usize, usize) = (2, 3);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        let shape = self.conv_shape(inputs[0], inputs[1])?;
        if let Some(bias) = inputs.get(2) {
            ensure!(**bias == [shape.outputs], "expected a bias [{}], got {bias:?}", shape.outputs);
        }
        let [height, width] = shape.output()?;
        Ok(tvec!(shape.batch, shape.outputs, height, width))
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor> {
        let shape = self.conv_shape(inputs[0].shape(), inputs[1].shape())?;
        let [height, width] = shape.output()?;
        let bias = inputs.get(2).map(numbers).transpose()?;
        let (x, w) = (numbers(&inputs[0])?, numbers(&inputs[1])?);
        filled(&[shape.batch, shape.outputs, height, width], |y| conv2d(&shape, x, w, bias, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::run;

    #[test]
    fn a_box_filter_counts_its_pixels() {
        let conv = Conv { kernel: Some([3, 3]), strides: [2, 1], pads: [1, 0, 0, 1] };
        let ones = |shape: &[usize]| (shape.to_vec(), vec![1.0; shape.iter().product()]);
        let (shape, y) = run(conv, &[ones(&[1, 2, 3, 4]), ones(&[1, 2, 3, 3]), ones(&[1])]);
        assert_eq!(shape, [1, 1, 1, 3]);
        assert_eq!(y, [13.0, 13.0, 9.0]);
    }
}
