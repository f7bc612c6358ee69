//! Convolutions, linear layers, and the moves between images and tokens.

use edge_ir::{Attribute, ValueId};

use crate::Error;
use crate::net::Net;

impl Net<'_> {
    /// A 2-D convolution with bias, `padding` on all four sides.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        x: ValueId,
        out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<ValueId, Error> {
        self.conv_with(name, x, (out, kernel, stride), [padding; 4], true)
    }

    /// A 2-D convolution: output channels, kernel and stride; `pads` is top, left, bottom, right.
    pub(crate) fn conv_with(
        &mut self,
        name: &str,
        x: ValueId,
        (out, kernel, stride): (usize, usize, usize),
        pads: [usize; 4],
        bias: bool,
    ) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let mut inputs = vec![x, self.weight(&format!("{name}.weight"), &[out, channels, kernel, kernel])?];
        if bias {
            inputs.push(self.weight(&format!("{name}.bias"), &[out])?);
        }
        let ints = |values: &[usize]| Attribute::Ints(signed(values));
        let attributes = [("kernel_shape", ints(&[kernel; 2])), ("strides", ints(&[stride; 2])), ("pads", ints(&pads))];
        Ok(self.b.node("Conv", name, &inputs, &attributes)?)
    }

    /// A linear layer on rows: `[rows,in]` gives `[rows,out]`.
    pub(crate) fn linear(&mut self, name: &str, x: ValueId, out: usize, bias: bool) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let mut inputs = vec![x, self.weight(&format!("{name}.weight"), &[out, channels])?];
        if bias {
            inputs.push(self.weight(&format!("{name}.bias"), &[out])?);
        }
        Ok(self.b.node("Gemm", name, &inputs, &[("transB", Attribute::Int(1))])?)
    }

    /// `a + b`.
    pub(crate) fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, Error> {
        Ok(self.b.node("Add", name, &[a, b], &[])?)
    }

    /// `x * factor`.
    pub(crate) fn scale(&mut self, name: &str, x: ValueId, factor: f32) -> Result<ValueId, Error> {
        let factor = self.scalar(factor);
        Ok(self.b.node("Mul", name, &[x, factor], &[])?)
    }

    /// A constant of one number.
    pub(crate) fn scalar(&mut self, number: f32) -> ValueId {
        self.b.floats(&format!("scalar_{number}"), &[1], &[number])
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(&mut self, name: &str, x: ValueId, shape: &[usize]) -> Result<ValueId, Error> {
        let shape = self.b.ints(&signed(shape));
        Ok(self.b.node("Reshape", name, &[x, shape], &[])?)
    }

    /// The dimensions in another order.
    pub(crate) fn transpose(&mut self, name: &str, x: ValueId, perm: [usize; 4]) -> Result<ValueId, Error> {
        Ok(self.b.node("Transpose", name, &[x], &[("perm", Attribute::Ints(signed(&perm)))])?)
    }

    /// Pixels as rows: `[n,c,h,w]` gives `[n*h*w,c]`.
    pub(crate) fn rows_of(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        let (pixels, channels) = (self.b.shape(x).iter().product::<usize>() / self.b.shape(x)[1], self.b.shape(x)[1]);
        let x = self.transpose(&format!("{name}/ToRows.Transpose"), x, [0, 2, 3, 1])?;
        self.reshape(&format!("{name}/ToRows.Reshape"), x, &[pixels, channels])
    }

    /// Rows as pixels: the reverse of [`Net::rows_of`] for an image of this shape, but for its channels.
    pub(crate) fn image_of(&mut self, name: &str, x: ValueId, image: &[usize]) -> Result<ValueId, Error> {
        let channels = self.b.shape(x)[1];
        let x = self.reshape(&format!("{name}/ToImage.Reshape"), x, &[image[0], image[2], image[3], channels])?;
        self.transpose(&format!("{name}/ToImage.Transpose"), x, [0, 3, 1, 2])
    }

    /// Nearest-neighbour upsampling to `height` x `width`: the source pixel is `floor(i * in / out)`.
    pub(crate) fn upsample(&mut self, name: &str, x: ValueId, height: usize, width: usize) -> Result<ValueId, Error> {
        let shape = self.b.shape(x).to_vec();
        let text = |value: &str| Attribute::String(value.to_owned());
        let attributes = [
            ("mode", text("nearest")),
            ("coordinate_transformation_mode", text("asymmetric")),
            ("nearest_mode", text("floor")),
        ];
        let inputs = if (shape[2] * 2, shape[3] * 2) == (height, width) {
            vec![Some(x), None, Some(self.b.floats("twice", &[4], &[1.0, 1.0, 2.0, 2.0]))]
        } else {
            vec![Some(x), None, None, Some(self.b.ints(&signed(&[shape[0], shape[1], height, width])))]
        };
        let outputs = self.b.nodes("Resize", name, inputs, &attributes)?;
        Ok(outputs[0])
    }
}

/// Sizes as ONNX counts them.
pub(super) fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|s| i64::try_from(*s).unwrap_or(i64::MAX)).collect()
}
