//! The decoder takes the sampler's latent as it is, and gives a picture: `1 / scaling_factor` goes into its first
//! convolution, the map from [-1, 1] to [0, 1], or to [0, 255], into its last.

use std::collections::BTreeMap;

use edge_ir::{Attribute, Builder, Checked, DType, Data, Graph, Scope, TensorType, Value, ValueId};

use super::error::FoldError;
use super::known::numbers;

/// The decoder's output after folding.
pub const IMAGE: &str = "image";

/// How the picture lies in memory, and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `float32` `[n,3,h,w]`, 0 to 1.
    Nchw,
    /// `float32` `[n,h,w,3]`, 0 to 1.
    Nhwc,
    /// `uint8` `[n,3,h,w]`.
    NchwU8,
    /// `uint8` `[n,h,w,3]`.
    NhwcU8,
}

impl Layout {
    /// Whether a pixel's colours are together.
    pub fn channels_last(self) -> bool {
        matches!(self, Self::Nhwc | Self::NhwcU8)
    }

    /// Whether the picture has 8-bit values.
    pub fn bytes(self) -> bool {
        matches!(self, Self::NchwU8 | Self::NhwcU8)
    }
}

/// The decoder for latents that are not yet divided by `scaling_factor`.
pub(super) fn fold(decoder: &Graph, scaling_factor: f32, layout: Layout) -> Result<Checked<Graph>, FoldError> {
    let missing = |what: &str| FoldError::Missing { what: format!("{what} of `{}`", decoder.name) };
    let mut graph = decoder.clone();
    let input = *graph.inputs.first().ok_or_else(|| missing("input"))?;
    let (name, ty) = (graph.value(input).name.clone(), graph.ty(input).clone());
    let scaled = is_one(scaling_factor) || scale_first(&mut graph, input, 1.0 / f64::from(scaling_factor));
    let full = if layout.bytes() { 255.0 } else { 1.0 };
    let mapped = map_last(&mut graph, full / 2.0);

    let mut b = Builder::new(&graph.name);
    let mut latent = b.input(&name, ty.dtype, &ty.shape);
    if !scaled {
        let factor = b.floats("latent_factor", &[1], &[1.0 / scaling_factor]);
        latent = b.node("Mul", "latent/Mul", &[latent, factor], &[])?;
    }
    let outputs = b.inline(&graph, Scope::default(), &BTreeMap::from([(name, latent)]))?;
    let mut image = outputs.into_values().next().ok_or_else(|| missing("output"))?;
    if !mapped {
        let half = b.floats("image_half", &[1], &[to_f32(full / 2.0)]);
        let product = b.node("Mul", "image/Mul", &[image, half], &[])?;
        image = b.node("Add", "image/Add", &[product, half], &[])?;
    }
    let image = finish(&mut b, image, layout, to_f32(full))?;
    b.output(IMAGE, image);
    Ok(b.finish()?)
}

/// Cuts to the range, rounds, turns and casts.
fn finish(b: &mut Builder, image: ValueId, layout: Layout, full: f32) -> Result<ValueId, FoldError> {
    let (low, high) = (b.floats("image_low", &[], &[0.0]), b.floats("image_high", &[], &[full]));
    let mut image = b.node("Clip", "image/Clip", &[image, low, high], &[])?;
    if layout.bytes() {
        image = b.node("Round", "image/Round", &[image], &[])?;
        let to = Attribute::Int(i64::from(DType::Uint8.onnx()));
        image = b.node("Cast", "image/Cast", &[image], &[("to", to)])?;
    }
    if layout.channels_last() {
        let perm = Attribute::Ints(vec![0, 2, 3, 1]);
        image = b.node("Transpose", "image/Transpose", &[image], &[("perm", perm)])?;
    }
    Ok(image)
}

/// Multiplies the input by a factor inside of the convolution or the division that alone reads it; false if another
/// operator does.
fn scale_first(graph: &mut Graph, input: ValueId, factor: f64) -> bool {
    let readers = graph.consumers();
    let [reader] = readers[graph.index_of(input)][..] else { return false };
    match graph.nodes[reader].op.name {
        "Conv" => replace(graph, reader, 1, |v| v * factor),
        "Div" if graph.nodes[reader].inputs[0] == Some(input) => replace(graph, reader, 1, |v| v / factor),
        _ => false,
    }
}

/// The output `x` becomes `half * x + half` inside of the convolution that makes it, or of the product and difference
/// with constants that do; false if other operators do, and nothing is changed.
fn map_last(graph: &mut Graph, half: f64) -> bool {
    let [output] = graph.outputs[..] else { return false };
    let Some(last) = maker(graph, Some(output)) else { return false };
    match graph.nodes[last].op.name {
        "Conv" if constant(graph, last, 1).is_some() && constant(graph, last, 2).is_some() => {
            replace(graph, last, 1, |v| v * half) && replace(graph, last, 2, |v| v * half + half)
        }
        // `a x - b` becomes `half a x - (half b - half)`.
        "Sub" => {
            let product = maker(graph, graph.nodes[last].inputs[0]).filter(|i| graph.nodes[*i].op.name == "Mul");
            let constants = product.and_then(|p| Some([constant(graph, p, 1)?, constant(graph, last, 1)?]));
            let (Some(product), Some([factor, offset])) = (product, constants) else { return false };
            // Where nothing is left to do, nothing is done.
            let [factor, offset] = [factor * half, offset * half - half];
            let done = match ((factor - 1.0).abs() < f64::EPSILON, offset == 0.0) {
                (true, true) => graph.nodes[product].inputs[0],
                (false, true) => graph.nodes[last].inputs[0],
                _ => Some(output),
            };
            graph.outputs = vec![done.unwrap_or(output)];
            replace(graph, product, 1, |_| factor) && replace(graph, last, 1, |_| offset)
        }
        _ => false,
    }
}

/// The index of the node that makes a value.
fn maker(graph: &Graph, id: Option<ValueId>) -> Option<usize> {
    graph.nodes.iter().position(|node| node.outputs.first().copied() == id)
}

/// The first number of a node's constant input.
fn constant(graph: &Graph, node: usize, place: usize) -> Option<f64> {
    let id = graph.nodes[node].inputs.get(place).copied().flatten()?;
    numbers(graph, id)?.first().map(|v| f64::from(*v))
}

/// Puts new numbers in the place of a node's constant input; false if it is none.
fn replace(graph: &mut Graph, node: usize, place: usize, f: impl Fn(f64) -> f64) -> bool {
    let Some(id) = graph.nodes[node].inputs.get(place).copied().flatten() else { return false };
    let Some(numbers) = numbers(graph, id) else { return false };
    let values: Vec<f32> = numbers.iter().map(|v| to_f32(f(f64::from(*v)))).collect();
    let name = format!("{}_folded", graph.value(id).name);
    let ty = TensorType::new(DType::Float32, graph.ty(id).shape.clone());
    let folded = graph.add_value(Value { name, ty, data: Some(Data::f32s(&values)) });
    graph.nodes[node].inputs[place] = Some(folded);
    true
}

fn is_one(number: f32) -> bool {
    number.to_bits() == 1.0_f32.to_bits()
}

#[expect(clippy::cast_possible_truncation, reason = "constants of the graph are `float32`")]
fn to_f32(value: f64) -> f32 {
    value as f32
}
