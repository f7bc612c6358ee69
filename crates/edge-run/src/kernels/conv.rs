//! Two-dimensional convolution in NCHW, one group, no dilation.
//!
//! ONNX `Conv` <https://onnx.ai/onnx/operators/onnx__Conv.html>: the weights `[O, I, kh, kw]` are
//! a matrix `[O, I * kh * kw]`, the input becomes columns `[I * kh * kw, pixels]` that exist only
//! strip by strip (implicit im2col).

use std::ops::Range;

use fearless_simd::Simd;

use super::gemm::Columns;
use super::matmul::{Bias, Product, Rhs, chunk, multiply};
use super::tile::{COLS, Lhs};
use super::{KernelError, check};

/// The shape of a convolution.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ConvShape {
    /// Batch size.
    pub(crate) batch: usize,
    /// Input channels, height and width.
    pub(crate) input: [usize; 3],
    /// Output channels.
    pub(crate) outputs: usize,
    /// Kernel height and width.
    pub(crate) kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub(crate) strides: [usize; 2],
    /// Rows above, columns to the left, rows below, columns to the right: ONNX's order.
    pub(crate) pads: [usize; 4],
}

impl ConvShape {
    /// Output height and width; an error where the kernel does not fit the padded input.
    pub(crate) fn output(&self) -> Result<[usize; 2], KernelError> {
        let mut sizes = [0; 2];
        for (axis, size) in sizes.iter_mut().enumerate() {
            let padded = self.input[axis + 1] + self.pads[axis] + self.pads[axis + 2];
            let (kernel, stride) = (self.kernel[axis], self.strides[axis]);
            if kernel == 0 || stride == 0 || padded < kernel {
                let what = "convolution kernel in the padded input";
                return Err(KernelError { what, expected: padded, got: kernel });
            }
            *size = (padded - kernel) / stride + 1;
        }
        Ok(sizes)
    }

    /// Whether each output pixel sees only the input pixel at its place.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0; 4]
    }
}

/// Convolves `x` `[B, I, H, W]` with `w` `[O, I, kh, kw]` to `y` `[B, O, oh, ow]`.
pub(crate) fn conv2d(
    shape: &ConvShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let output = shape.output()?;
    let depth = shape.input[0] * shape.kernel[0] * shape.kernel[1];
    let (image, pixels) = (shape.input.iter().product::<usize>(), output[0] * output[1]);
    check("input of a convolution", shape.batch * image, x.len())?;
    check("weight of a convolution", shape.outputs * depth, w.len())?;
    check("bias of a convolution", shape.outputs, bias.map_or(shape.outputs, <[f32]>::len))?;
    check("output of a convolution", shape.batch * shape.outputs * pixels, y.len())?;
    if x.is_empty() || y.is_empty() {
        return Ok(());
    }
    let (lhs, bias) = (Lhs::Rows { data: w, stride: depth }, bias.map_or(Bias::None, Bias::PerRow));
    for (x, y) in x.chunks_exact(image).zip(y.chunks_exact_mut(shape.outputs * pixels)) {
        if shape.is_pointwise() {
            let rhs = &Columns { data: x, cols: pixels };
            multiply(&Product { lhs, rhs, bias, depth, cols: pixels, chunk: chunk(depth, 1) }, y);
        } else {
            let rhs = &Patches { shape, output, x };
            let chunk = chunk(depth, shape.kernel[0] * shape.kernel[1]);
            multiply(&Product { lhs, rhs, bias, depth, cols: pixels, chunk }, y);
        }
    }
    Ok(())
}

/// One image as the matrix whose columns are the patches that the kernel sees.
struct Patches<'a> {
    shape: &'a ConvShape,
    output: [usize; 2],
    x: &'a [f32],
}

/// Output pixels of a strip that lie in one row.
#[derive(Clone, Copy)]
struct Run {
    /// Which strip.
    strip: usize,
    /// First column in the strip.
    col: usize,
    /// Pixels.
    len: usize,
    /// Row of the padded input where the kernel's first row lies.
    top: usize,
    /// Column of the padded input where the kernel's first column lies for the first pixel.
    left: usize,
}

impl Rhs for Patches<'_> {
    #[inline(always)]
    fn pack<S: Simd>(&self, simd: S, depth: Range<usize>, strip: usize, out: &mut [f32]) {
        simd.vectorize(
            #[inline(always)]
            || self.pack_runs(depth, strip, out),
        );
    }
}

impl Patches<'_> {
    /// Packs strips channel by channel, so that the input is read in order; `depth` begins and ends
    /// with whole channels.
    #[inline(always)]
    fn pack_runs(&self, depth: Range<usize>, strip: usize, out: &mut [f32]) {
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        let plane = self.shape.input[1] * self.shape.input[2];
        let channels = &self.x[depth.start / taps * plane..depth.end / taps * plane];
        let length = depth.len() * COLS;
        let (first, last) = (strip * COLS, strip * COLS + out.len() / depth.len());
        let end = last.min(self.output[0] * self.output[1]);
        if end < last {
            let full = (end - first) / COLS * length;
            out[full..].fill(0.0);
        }
        let runs = self.runs(first, end);
        for (c, plane) in channels.chunks_exact(plane).enumerate() {
            for run in &runs {
                let start = run.strip * length + c * taps * COLS;
                let out = &mut out[start..start + taps * COLS];
                match run.len {
                    COLS => self.pack_plane::<COLS>(plane, *run, out),
                    16 => self.pack_plane::<16>(plane, *run, out),
                    _ => self.pack_plane::<0>(plane, *run, out),
                }
            }
        }
    }

    /// The runs that cover the pixels from `first`, where a strip begins, to `end`.
    fn runs(&self, first: usize, end: usize) -> Vec<Run> {
        let width = self.output[1];
        let mut runs = Vec::new();
        let mut pixel = first;
        while pixel < end {
            let (row, col, place) = (pixel / width, pixel % width, pixel - first);
            let len = (width - col).min(end - pixel).min(COLS - place % COLS);
            runs.push(Run {
                strip: place / COLS,
                col: place % COLS,
                len,
                top: row * self.shape.strides[0],
                left: col * self.shape.strides[1],
            });
            pixel += len;
        }
        runs
    }

    /// Packs one channel of a run: a row of the strip for every tap of the kernel.
    ///
    /// `LEN` is the run's length where it is a common one, and otherwise 0.
    #[inline(always)]
    fn pack_plane<const LEN: usize>(&self, plane: &[f32], run: Run, out: &mut [f32]) {
        let [_, height, width] = self.shape.input;
        let [rows, cols] = self.shape.kernel;
        let (pad, stride) = (self.shape.pads[1], self.shape.strides[1]);
        for (i, out) in out.chunks_exact_mut(cols * COLS).take(rows).enumerate() {
            let line = (run.top + i).checked_sub(self.shape.pads[0]).filter(|row| *row < height);
            let line = line.map_or(&[][..], |row| &plane[row * width..(row + 1) * width]);
            for (j, out) in out.chunks_exact_mut(COLS).enumerate() {
                let out = &mut out[run.col..run.col + run.len];
                let source = (run.left + j).checked_sub(pad).and_then(|first| line.get(first..));
                if stride == 1
                    && LEN > 0
                    && let Some(from) = source.and_then(<[f32]>::first_chunk::<LEN>)
                    && let Some(to) = out.first_chunk_mut::<LEN>()
                {
                    *to = *from;
                } else {
                    copy_padded(line, run.left + j, pad, stride, out);
                }
            }
        }
    }
}

/// Every `stride`th pixel of a line from `start` of the padded line on; an empty line is all padding.
#[inline(always)]
fn copy_padded(line: &[f32], start: usize, pad: usize, stride: usize, out: &mut [f32]) {
    let before = pad.saturating_sub(start).div_ceil(stride).min(out.len());
    let (zeros, out) = out.split_at_mut(before);
    zeros.fill(0.0);
    let source = line.get((start + before * stride).saturating_sub(pad)..).unwrap_or_default();
    let (pixels, zeros) = out.split_at_mut(out.len().min(source.len().div_ceil(stride)));
    if stride == 1 {
        pixels.copy_from_slice(&source[..pixels.len()]);
    } else {
        for (to, from) in pixels.iter_mut().zip(source.iter().step_by(stride)) {
            *to = *from;
        }
    }
    zeros.fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, on_pools};

    /// The convolution by its definition, in `f64`.
    fn twin(shape: &ConvShape, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f64> {
        let [oh, ow] = shape.output().unwrap();
        let [channels, height, width] = shape.input;
        let [kh, kw] = shape.kernel;
        let mut y = Vec::new();
        for index in 0..shape.batch * shape.outputs * oh * ow {
            let (b, o) = (index / (ow * oh * shape.outputs), index / (ow * oh) % shape.outputs);
            let (row, col) = (index / ow % oh, index % ow);
            let mut sum = f64::from(bias[o]);
            for tap in 0..channels * kh * kw {
                let (c, i, j) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                let from_row = (row * shape.strides[0] + i).wrapping_sub(shape.pads[0]);
                let from_col = (col * shape.strides[1] + j).wrapping_sub(shape.pads[1]);
                if from_row < height && from_col < width {
                    let pixel = x[((b * channels + c) * height + from_row) * width + from_col];
                    sum += f64::from(pixel) * f64::from(w[o * channels * kh * kw + tap]);
                }
            }
            y.push(sum);
        }
        y
    }

    /// Compares with the twin: batch, input, outputs, kernel, strides, pads.
    fn check_conv(
        batch: usize,
        input: [usize; 3],
        outputs: usize,
        kernel: [usize; 2],
        strides: [usize; 2],
        pads: [usize; 4],
    ) {
        let shape = ConvShape { batch, input, outputs, kernel, strides, pads };
        let [oh, ow] = shape.output().unwrap();
        let x = numbers(1, batch * input.iter().product::<usize>());
        let w = numbers(2, outputs * input[0] * kernel[0] * kernel[1]);
        let bias = numbers(3, outputs);
        let got = on_pools(|| {
            let mut y = vec![f32::NAN; batch * outputs * oh * ow];
            conv2d(&shape, &x, &w, Some(&bias), &mut y).unwrap();
            y
        });
        assert_close(&got, &twin(&shape, &x, &w, &bias));
    }

    #[test]
    fn narrow_images() {
        check_conv(1, [3, 5, 7], 4, [3, 3], [1, 1], [1; 4]);
        check_conv(2, [70, 16, 16], 21, [3, 3], [1, 1], [1; 4]);
        check_conv(1, [50, 9, 32], 13, [3, 3], [1, 1], [1; 4]);
        check_conv(1, [3, 40, 33], 5, [3, 3], [1, 1], [0, 1, 2, 0]);
        check_conv(1, [2, 1, 1], 3, [3, 3], [1, 1], [1; 4]);
    }

    #[test]
    fn wide_images() {
        check_conv(1, [5, 64, 64], 3, [3, 3], [1, 1], [1; 4]);
        check_conv(1, [3, 67, 65], 14, [3, 3], [1, 1], [1; 4]);
    }

    #[test]
    fn strides() {
        check_conv(2, [6, 17, 23], 9, [3, 3], [2, 2], [1; 4]);
        check_conv(1, [6, 16, 16], 9, [3, 3], [2, 2], [0, 0, 1, 1]);
        check_conv(1, [4, 12, 90], 5, [1, 1], [2, 1], [0; 4]);
    }

    #[test]
    fn other_kernels() {
        check_conv(2, [33, 10, 13], 40, [1, 1], [1, 1], [0; 4]);
        check_conv(1, [3, 30, 20], 7, [5, 2], [1, 3], [2, 1, 0, 4]);
        check_conv(1, [1, 30, 50], 2, [25, 21], [1, 1], [3, 9, 2, 8]);
    }

    #[test]
    fn a_kernel_larger_than_the_image_is_refused() {
        let shape = ConvShape { batch: 1, input: [1, 2, 9], outputs: 1, kernel: [3, 3], strides: [1, 1], pads: [0; 4] };
        assert_eq!(
            shape.output().unwrap_err().to_string(),
            "convolution kernel in the padded input: expected 2, got 3"
        );
    }
}
