//! The layers of a graph that have a weight, and how they take their inputs.

use std::ops::Range;

use edge_ir::{Graph, Node, ValueId};
use rayon::prelude::*;

use crate::rules::{Operand, Rule};

/// Rows or channels that one thread takes at a time.
const TOGETHER: usize = 128;

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
                let mut out = vec![0.0; rows.len() * range.len()];
                out.par_chunks_mut(range.len().max(1)).zip(rows).for_each(|(out, row)| {
                    out.copy_from_slice(&values[row * channels..][range.clone()]);
                });
                out
            }
            Self::Planes(planes) => planes.take(values, rows, range),
        }
    }

    /// The greatest magnitude of each channel.
    pub(crate) fn greatest(&self, values: &[f32], so_far: &mut [f32]) {
        match self {
            Self::Rows(channels) => {
                so_far.par_chunks_mut(TOGETHER).enumerate().for_each(|(index, so_far)| {
                    for row in values.chunks_exact((*channels).max(1)) {
                        let row = &row[index * TOGETHER..];
                        so_far.iter_mut().zip(row).for_each(|(most, v)| *most = most.max(v.abs()));
                    }
                });
            }
            Self::Planes(planes) => {
                let [channels, height, width] = planes.shape;
                so_far.par_iter_mut().enumerate().for_each(|(channel, so_far)| {
                    for image in values.chunks_exact((channels * height * width).max(1)) {
                        let plane = &image[channel * height * width..][..height * width];
                        *so_far = plane.iter().fold(*so_far, |most, v| most.max(v.abs()));
                    }
                });
            }
        }
    }
}

impl Planes {
    fn take(&self, values: &[f32], rows: &[usize], range: Range<usize>) -> Vec<f32> {
        let [channels, height, width] = self.shape;
        let each = self.kernel.iter().product::<usize>();
        let length = range.len() * each;
        let per_image = self.out[0] * self.out[1];
        let mut out = vec![0.0; rows.len() * length];
        out.par_chunks_mut((TOGETHER * length).max(1)).zip(rows.par_chunks(TOGETHER)).for_each(|(out, rows)| {
            let places: Vec<Option<usize>> = rows.iter().flat_map(|row| self.places(row % per_image)).collect();
            // Plane by plane, so that one is read while it is near.
            for (at, channel) in range.clone().enumerate() {
                for ((row, out), places) in rows.iter().zip(out.chunks_exact_mut(length)).zip(places.chunks(each)) {
                    let plane = &values[(row / per_image * channels + channel) * height * width..][..height * width];
                    let seen = places.iter().map(|place| place.map_or(0.0, |place| plane[place]));
                    out[at * each..].iter_mut().zip(seen).for_each(|(out, v)| *out = v);
                }
            }
        });
        out
    }

    /// Where in a plane the kernel's numbers fall for one number of the output, if within.
    fn places(&self, at: usize) -> impl Iterator<Item = Option<usize>> {
        let [_, height, width] = self.shape;
        let (y, x) = (at / self.out[1], at % self.out[1]);
        let place = move |axis: usize, at: usize, offset: usize, limit: usize| {
            (at * self.strides[axis] + offset * self.dilations[axis])
                .checked_sub(self.pads[axis])
                .filter(|place| *place < limit)
        };
        let offsets = (0..self.kernel[0]).flat_map(|row| (0..self.kernel[1]).map(move |column| (row, column)));
        offsets.map(move |(row, column)| Some(place(0, y, row, height)? * width + place(1, x, column, width)?))
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
