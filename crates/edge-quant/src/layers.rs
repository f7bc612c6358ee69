//! The layers of a graph that have a weight, and how they take their inputs.

use std::ops::Range;

use edge_ir::{Graph, Node, ValueId};

use crate::rules::{Operand, Rule};

/// A layer with a constant weight.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Its place among the graph's nodes.
    pub(crate) node: usize,
    /// What it reads.
    pub(crate) input: ValueId,
    /// Its weight.
    pub(crate) weight: ValueId,
    /// The weight's axis of outputs.
    pub(crate) axis: usize,
    /// How it reads.
    pub(crate) patches: Patches,
}

/// What of a tensor meets the weights of one output: one row of numbers after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Patches {
    /// The tensor's rows, of so many numbers.
    Rows(usize),
    /// Pieces of planes.
    Planes(Planes),
}

/// How a convolution reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planes {
    /// Of the input: channels, height and width.
    pub(crate) shape: [usize; 3],
    /// Groups of channels.
    pub(crate) groups: usize,
    /// Height and width of the kernel.
    kernel: [usize; 2],
    strides: [usize; 2],
    /// Rows above, columns to the left.
    pads: [usize; 2],
    dilations: [usize; 2],
    /// Height and width of the output.
    out: [usize; 2],
}

/// All layers with a weight, in order.
pub(crate) fn layers(graph: &Graph) -> Vec<Layer> {
    let layer = |(index, node): (usize, &Node)| {
        let (input, weight) = ((*node.inputs.first()?)?, (*node.inputs.get(1)?)?);
        let Operand::Weight(axis) = Rule::of(node)?.operand(graph, node, 1)? else { return None };
        graph.value(weight).data.as_ref()?;
        let patches = Patches::of(graph, node, input, weight)?;
        Some(Layer { node: index, input, weight, axis, patches })
    };
    graph.nodes.iter().enumerate().filter_map(layer).collect()
}

impl Patches {
    fn of(graph: &Graph, node: &Node, input: ValueId, weight: ValueId) -> Option<Self> {
        let (shape, weight) = (&graph.ty(input).shape, &graph.ty(weight).shape);
        if node.op.name != "Conv" {
            return (node.int("transA", 0) == 0).then_some(Self::Rows(*shape.last()?));
        }
        let (&[_, channels, height, width], &[_, _, rows, columns]) = (&shape[..], &weight[..]) else { return None };
        let &[_, _, out_height, out_width] = &graph.ty(*node.outputs.first()?).shape[..] else { return None };
        let pair = |name: &str, default: usize| {
            let numbers = node.ints(name).unwrap_or_default();
            [0, 1].map(|k| numbers.get(k).and_then(|n| usize::try_from(*n).ok()).unwrap_or(default))
        };
        Some(Self::Planes(Planes {
            shape: [channels, height, width],
            groups: usize::try_from(node.int("group", 1)).ok()?.max(1),
            kernel: [rows, columns],
            strides: pair("strides", 1),
            pads: pair("pads", 0),
            dilations: pair("dilations", 1),
            out: [out_height, out_width],
        }))
    }

    /// Channels of the input.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::Rows(channels) => *channels,
            Self::Planes(planes) => planes.shape[0],
        }
    }

    /// Groups of channels that have outputs of their own.
    pub(crate) fn groups(&self) -> usize {
        match self {
            Self::Rows(_) => 1,
            Self::Planes(planes) => planes.groups,
        }
    }

    /// Numbers of a row that one channel has.
    pub(crate) fn each(&self) -> usize {
        match self {
            Self::Rows(_) => 1,
            Self::Planes(planes) => planes.kernel.iter().product(),
        }
    }

    /// How many rows a tensor of so many numbers has.
    pub(crate) fn rows(&self, numbers: usize) -> usize {
        match self {
            Self::Rows(channels) => numbers / (*channels).max(1),
            Self::Planes(planes) => {
                numbers / planes.shape.iter().product::<usize>().max(1) * planes.out.iter().product::<usize>()
            }
        }
    }

    /// The channels `range` of rows, one row after the other.
    pub(crate) fn take(&self, values: &[f32], rows: &[usize], range: Range<usize>) -> Vec<f32> {
        match self {
            Self::Rows(channels) => {
                let row = |row: &usize| &values[row * channels..][range.clone()];
                rows.iter().flat_map(row).copied().collect()
            }
            Self::Planes(planes) => planes.take(values, rows, range),
        }
    }

    /// The greatest magnitude of each channel.
    pub(crate) fn greatest(&self, values: &[f32], so_far: &mut [f32]) {
        let wider = |most: &mut f32, values: &[f32]| *most = values.iter().fold(*most, |m, v| m.max(v.abs()));
        match self {
            Self::Rows(channels) => {
                for row in values.chunks_exact((*channels).max(1)) {
                    so_far.iter_mut().zip(row).for_each(|(most, v)| *most = most.max(v.abs()));
                }
            }
            Self::Planes(planes) => {
                let [channels, height, width] = planes.shape;
                for (index, plane) in values.chunks_exact((height * width).max(1)).enumerate() {
                    wider(&mut so_far[index % channels], plane);
                }
            }
        }
    }
}

impl Planes {
    fn take(&self, values: &[f32], rows: &[usize], range: Range<usize>) -> Vec<f32> {
        let [channels, height, width] = self.shape;
        let [kernel_rows, kernel_columns] = self.kernel;
        let each = kernel_rows * kernel_columns;
        let length = range.len() * each;
        let mut out = vec![0.0; rows.len() * length];
        // Where an offset of the kernel falls on one axis, if within the plane.
        let place = |axis: usize, at: usize, offset: usize, limit: usize| {
            (at * self.strides[axis] + offset * self.dilations[axis])
                .checked_sub(self.pads[axis])
                .filter(|place| *place < limit)
        };
        let per_image = self.out[0] * self.out[1];
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(length.max(1))) {
            let (image, at) = (row / per_image, row % per_image);
            let (y, x) = (at / self.out[1], at % self.out[1]);
            for offset in 0..each {
                let y = place(0, y, offset / kernel_columns, height);
                let x = place(1, x, offset % kernel_columns, width);
                let (Some(y), Some(x)) = (y, x) else { continue };
                let first = (image * channels + range.start) * height * width + y * width + x;
                let planes = values[first..].iter().step_by(height * width);
                out.iter_mut().skip(offset).step_by(each).zip(planes).for_each(|(out, v)| *out = *v);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, DType};

    use super::*;

    #[test]
    fn rows_of_a_convolution_are_what_its_kernel_meets() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[2, 2, 3, 3]);
        let w = b.floats("w", &[4, 2, 2, 2], &[0.5; 32]);
        let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
        let attributes = [
            ("kernel_shape", ints(&[2, 2])),
            ("strides", ints(&[2, 1])),
            ("pads", ints(&[1, 0, 0, 1])),
            ("dilations", ints(&[1, 1])),
        ];
        let y = b.node("Conv", "conv", &[x, w], &attributes).unwrap();
        b.output("y", y);
        let graph = b.finish().unwrap();
        let layers = layers(&graph);
        let patches = &layers[0].patches;
        let values: Vec<f32> = (0..36_u8).map(f32::from).collect();
        assert_eq!((patches.rows(36), patches.channels(), patches.each()), (12, 2, 4));
        // Above the first row there is nothing, nor to the right of the last column.
        assert_eq!(patches.take(&values, &[0], 0..2), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 9.0, 10.0]);
        assert_eq!(patches.take(&values, &[5], 1..2), [14.0, 0.0, 17.0, 0.0]);
        assert_eq!(patches.take(&values, &[7, 6], 0..1), [0.0, 0.0, 19.0, 20.0, 0.0, 0.0, 18.0, 19.0]);
        let mut greatest = vec![0.0; 2];
        patches.greatest(&values, &mut greatest);
        assert_eq!(greatest, [26.0, 35.0]);
    }

    #[test]
    fn rows_of_a_matrix_are_its_own() {
        let patches = Patches::Rows(3);
        assert_eq!(patches.take(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[1], 1..3), [4.0, 5.0]);
        assert_eq!(patches.rows(6), 2);
    }
}
