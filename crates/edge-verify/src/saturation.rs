//! Saturation: numbers that lie outside of the range of the integers that stand for them, and are cut to its ends.
//!
//! It is counted before `QuantizeLinear`: a number that is the range's end without being cut is none.

use edge_ir::encoding::limits;
use edge_ir::ops::quantize::encoding;
use edge_ir::{Granularity, Graph, Node, ValueId, View};

use crate::metrics::rounded;
use crate::place::{Place, place};

/// A place at which activations become integers with one scale.
#[derive(Clone, Debug)]
pub struct Quantizer {
    /// Where what becomes integers is made, or, of a graph's input, the first place that it becomes integers at.
    pub place: Place,
    /// What becomes integers.
    pub input: ValueId,
    /// The least and the greatest number that is not cut, half a quantum beyond the last integer's.
    pub range: [f32; 2],
}

/// What came to one place in one step: the share of elements that are cut, and how much of the range is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Saturation {
    /// The component.
    pub component: String,
    /// The node that makes what is cut.
    pub node: String,
    /// The step's index, if it is of a step.
    pub step: Option<usize>,
    /// Numbers that came.
    pub count: u64,
    /// How many of them are cut.
    pub cut: u64,
    /// The least and the greatest number that is not cut.
    pub range: [f32; 2],
    /// The least and the greatest number that came.
    pub seen: [f32; 2],
}

impl Saturation {
    /// Nothing came yet.
    pub fn new(quantizer: &Quantizer, step: Option<usize>) -> Self {
        let Place { component, node, step: own, .. } = quantizer.place.clone();
        let seen = [f32::INFINITY, f32::NEG_INFINITY];
        Self { component, node, step: own.or(step), count: 0, cut: 0, range: quantizer.range, seen }
    }

    /// These numbers came.
    pub fn add(&mut self, numbers: &[f32]) {
        let (inside, [low, high]) = (self.range[0]..=self.range[1], &mut self.seen);
        self.count += numbers.len() as u64;
        for v in numbers {
            self.cut += u64::from(!inside.contains(v));
            if v.is_finite() {
                (*low, *high) = (low.min(*v), high.max(*v));
            }
        }
    }

    /// The share of the numbers that are cut.
    #[expect(clippy::cast_precision_loss, reason = "a share, shown to six digits")]
    pub fn share(&self) -> f64 {
        rounded(self.cut as f64 / self.count.max(1) as f64)
    }

    /// The part of the range that the numbers span: 1 for all of it, and at most.
    pub fn range_use(&self) -> f64 {
        let width = |[low, high]: [f32; 2]| f64::from(high) - f64::from(low);
        let [low, high] = self.range;
        let seen = self.seen.map(|v| v.clamp(low, high));
        rounded((width(seen) / width(self.range)).clamp(0.0, 1.0))
    }
}

/// The places of a component's graph at which activations become integers.
pub fn quantizers(component: &str, graph: &Graph) -> Vec<Quantizer> {
    let view = View::new(graph);
    let found = graph.nodes.iter().filter(|node| node.op.name == "QuantizeLinear").filter_map(|node| {
        let input = node.inputs.first().copied().flatten().filter(|id| graph.value(*id).data.is_none())?;
        let encoding = encoding(graph, node).filter(|e| e.granularity == Granularity::Tensor)?;
        let (low, high) = limits(encoding.dtype)?;
        let (scale, zero) = (encoding.scales.first()?, encoding.zero_points.first()?);
        #[expect(clippy::cast_precision_loss, reason = "at most 17 bits")]
        let at = |q: i32, half: f32| ((q - zero) as f32 + half) * scale;
        let range = [at(low, -0.5), at(high, 0.5)];
        Some(Quantizer { place: place(component, &maker(&view, node).name), input, range })
    });
    found.collect()
}

/// The node that makes what a `QuantizeLinear` reads, before it became integers for the first time.
fn maker<'a>(view: &View<'a>, quantize: &'a Node) -> &'a Node {
    let mut found = quantize;
    while let Some((_, node)) = found.inputs.first().copied().flatten().and_then(|id| view.any_maker(id)) {
        found = node;
        if !["QuantizeLinear", "DequantizeLinear"].contains(&node.op.name) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, DType, Data, TensorType};

    use super::*;

    #[test]
    fn what_is_cut_is_counted_before_it_is_cut() {
        let mut b = Builder::new("unet");
        let x = b.input("x", DType::Float32, &[1, 8]);
        let y = b.node("Relu", "act", &[x], &[]).expect("a node");
        let scale = b.floats("scale", &[], &[0.1]);
        let zero = b.weight("zero", TensorType::new(DType::Uint8, []), Data::owned(vec![10]));
        let q = b.node("QuantizeLinear", "act/Quantize", &[y, scale, zero], &[]).expect("a node");
        let z = b.node("DequantizeLinear", "act/Dequantize", &[q, scale, zero], &[]).expect("a node");
        b.output("out", z);
        let graph = b.finish().expect("a graph");
        let found = quantizers("unet", &graph);
        assert_eq!((found.len(), found[0].place.node.as_str(), found[0].input), (1, "act", y));
        let [low, high] = found[0].range;
        assert!((low + 1.05).abs() < 1e-5 && (high - 24.55).abs() < 1e-5, "{low} {high}");
        let numbers = [-2.0, -1.04, 0.0, 1.0, 24.5, 24.6, f32::NAN, 3.0];
        let mut place = Saturation::new(&found[0], Some(1));
        place.add(&numbers);
        assert!((place.share() - 0.375).abs() < 1e-9);
        place.add(&[1.0; 8]);
        assert!((place.share() - 0.1875).abs() < 1e-9);
        assert_eq!((place.seen, place.step), ([-2.0, 24.6], Some(1)));
        assert!((place.range_use() - 1.0).abs() < 1e-9);
        let mut half = Saturation::new(&found[0], None);
        half.add(&[1.0, 13.8]);
        assert!((half.range_use() - 0.5).abs() < 1e-5, "{}", half.range_use());
    }
}
