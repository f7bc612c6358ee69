//! Channels of activations become alike: what is taken from one by the layer or norm that makes it is put on the weights
//! of the layers that read it (`SmoothQuant`, arXiv 2211.10438). The float graph computes the same.
//!
//! Makers are the gains of layer norms, and layers between which and the next there are but moves and products by other
//! tensors: the affine part of a group norm as a convolution, and the value branch of a GEGLU. How far the factors go is
//! chosen for each maker by the noise that integers will make, of which greatest magnitudes and mean squares tell enough.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::encoding::limits;
use edge_ir::{Checked, DType, Graph, ValueId};

use super::reach::layers_behind;
use crate::insert::fold_casts;
use crate::layers::{Layer, layers};
use crate::{Error, Inputs, Settings};

/// Shares of an activation's extremes that go to the weights, among which is chosen; 0 is no change.
const SHARES: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Factors are within this and its reciprocal.
const MOST: f64 = 64.0;
/// A change is worth it where it leaves at most this share of the noise.
const WORTH: f64 = 0.95;

/// What makes channels, and what reads them.
struct Pair {
    makers: BTreeSet<usize>,
    /// Constants of the makers: each has the channels along its first axis.
    made_by: BTreeSet<ValueId>,
    /// Layers that read them, by their places.
    readers: BTreeSet<usize>,
    channels: usize,
}

/// Smooths the graphs of one folder, which share weights. Gives the graphs and how many makers were changed in the
/// first.
///
/// # Errors
/// None that sound graphs have.
pub fn smooth(
    graphs: &[Checked<Graph>],
    folder: &str,
    settings: &Settings,
    inputs: &Inputs,
) -> Result<(Vec<Checked<Graph>>, usize), Error> {
    // The factors of makers that other graphs have too.
    let mut known: BTreeMap<String, Option<Vec<f64>>> = BTreeMap::new();
    let mut done = Vec::new();
    for graph in graphs {
        let mut graph = fold_casts(graph);
        let layers = layers(&graph);
        for pair in pairs(&graph, &layers) {
            let name = pair.made_by.first().map(|id| graph.value(*id).name.clone()).unwrap_or_default();
            let factors =
                known.entry(name).or_insert_with(|| factors(&graph, &layers, &pair, folder, settings, inputs));
            if let Some(factors) = factors {
                apply(&mut graph, &layers, &pair, factors);
            }
        }
        done.push(graph.check()?);
    }
    Ok((done, known.values().flatten().count()))
}

/// All makers that can be changed, in order.
fn pairs(graph: &Graph, layers: &[Layer]) -> Vec<Pair> {
    let consumers = graph.consumers();
    let mut pairs: Vec<Pair> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let is_layer = layers.iter().any(|layer| layer.node == index && layer.axis == 0);
        if node.op.name != "LayerNormalization" && !is_layer {
            continue;
        }
        let shape = &graph.ty(node.outputs[0]).shape;
        let axis = if node.op.name == "Conv" { 1 } else { shape.len() - 1 };
        let has = |id: &ValueId| {
            let value = graph.value(*id);
            value.data.is_some() && value.ty.dtype == DType::Float32 && value.ty.shape.first() == Some(&shape[axis])
        };
        let constants: Vec<ValueId> = node.inputs.iter().skip(1).flatten().copied().collect();
        let Some(readers) = layers_behind(graph, layers, &consumers, (node.outputs[0], axis)) else { continue };
        if constants.is_empty() || !constants.iter().all(has) {
            continue;
        }
        // What has a constant in common is one.
        let there = pairs.iter().position(|pair| constants.iter().any(|id| pair.made_by.contains(id)));
        let at = there.unwrap_or(pairs.len());
        if there.is_none() {
            let none = BTreeSet::new;
            pairs.push(Pair { makers: none(), made_by: BTreeSet::new(), readers: none(), channels: shape[axis] });
        }
        pairs[at].makers.insert(index);
        pairs[at].made_by.extend(constants);
        pairs[at].readers.extend(readers);
    }
    // Nothing else may read what is changed.
    pairs.retain(|pair| {
        let only = |id: ValueId, by: &dyn Fn(usize) -> bool| consumers[graph.index_of(id)].iter().all(|node| by(*node));
        let reads = |node: usize| pair.readers.iter().any(|at| layers[*at].node == node);
        pair.made_by.iter().all(|id| only(*id, &|node| pair.makers.contains(&node)))
            && pair.readers.iter().all(|at| only(layers[*at].weight, &reads))
    });
    pairs
}

/// What the channels are to be divided by; `None` if it would not pay.
fn factors(
    graph: &Graph,
    layers: &[Layer],
    pair: &Pair,
    folder: &str,
    settings: &Settings,
    inputs: &Inputs,
) -> Option<Vec<f64>> {
    let mut seen = (vec![0.0_f64; pair.channels], vec![0.0_f64; pair.channels]);
    let mut weights = Weights { greatest: vec![0.0; pair.channels], rows: Vec::new() };
    let mut steps = (f64::INFINITY, 1.0_f64);
    for at in &pair.readers {
        let layer = &layers[*at];
        let node = &graph.nodes[layer.node];
        let value = graph.value(layer.weight);
        let scheme = settings.weight_of(node, &value.ty.shape, layer.axis)?;
        let levels = |dtype: DType| limits(dtype).map(|(low, high)| f64::from(high) - f64::from(low));
        steps.0 = steps.0.min(settings.activations_of(graph, node).and_then(levels).unwrap_or(f64::INFINITY));
        steps.1 = steps.1.max(levels(scheme.dtype)? / 2.0);
        let (greatest, squares) = inputs.channels(folder, &value.name)?;
        for (channel, (most, square)) in greatest.iter().zip(squares).enumerate() {
            seen.0[channel] = seen.0[channel].max(f64::from(*most));
            seen.1[channel] = seen.1[channel].max(square);
        }
        weights.add(&value.data.as_ref()?.to_f32s(), &value.ty.shape, layer);
    }
    let noise = |factors: &[f64]| weights.noise(factors, &seen.0, &seen.1, steps);
    let with = |share: f64| -> Vec<f64> {
        let factor = |(x, w): (&f64, &f64)| {
            let factor = if *x > 0.0 && *w > 0.0 { libm::pow(*x, share) / libm::pow(*w, 1.0 - share) } else { 1.0 };
            if share > 0.0 { factor } else { 1.0 }
        };
        let raw: Vec<f64> = seen.0.iter().zip(&weights.greatest).map(factor).collect();
        // Only their relations count.
        let mean = raw.iter().map(|f| libm::log(*f)).sum::<f64>()
            / libm::fmax(1.0, f64::from(u32::try_from(raw.len()).unwrap_or(1)));
        raw.iter().map(|f| (f / libm::exp(mean)).clamp(1.0 / MOST, MOST)).collect()
    };
    let plain = noise(&with(0.0));
    let best = SHARES.iter().map(|share| with(*share)).map(|f| (noise(&f), f)).min_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 < WORTH * plain).then_some(best.1)
}

/// What weights that read the same channels are like.
struct Weights {
    /// The greatest magnitude for each channel.
    greatest: Vec<f64>,
    /// For each output, the greatest magnitude and the sum of squares for each channel.
    rows: Vec<Vec<(f64, f64)>>,
}

impl Weights {
    fn add(&mut self, numbers: &[f32], shape: &[usize], layer: &Layer) {
        let (channels, outputs) = (self.greatest.len(), shape[layer.axis]);
        let each = numbers.len() / (channels * outputs).max(1);
        for output in 0..outputs {
            let channel = |channel: usize| {
                let at = |k: usize| match layer.axis {
                    0 => (output * channels + channel) * each + k,
                    _ => channel * outputs + output,
                };
                (0..each).map(at).fold((0.0_f64, 0.0), |(most, sum), at| {
                    let w = f64::from(numbers[at]);
                    (most.max(w.abs()), sum + w * w)
                })
            };
            let row: Vec<(f64, f64)> = (0..channels).map(channel).collect();
            self.greatest.iter_mut().zip(&row).for_each(|(most, (w, _))| *most = most.max(*w));
            self.rows.push(row);
        }
    }

    /// The noise of all outputs, if channels are divided by these factors, and both sides are rounded to their greatest
    /// magnitudes divided by these numbers of steps.
    fn noise(&self, factors: &[f64], greatest: &[f64], squares: &[f64], steps: (f64, f64)) -> f64 {
        let most = greatest.iter().zip(factors).map(|(x, f)| x / f).fold(0.0, f64::max);
        let step = 2.0 * most / steps.0;
        let power: f64 = squares.iter().zip(factors).map(|(x, f)| x / (f * f)).sum();
        let row = |row: &Vec<(f64, f64)>| {
            let most = row.iter().zip(factors).map(|((w, _), f)| w * f).fold(0.0, f64::max);
            let sum: f64 = row.iter().zip(factors).map(|((_, square), f)| square * f * f).sum();
            step * step * sum + (most / steps.1) * (most / steps.1) * power
        };
        self.rows.iter().map(row).sum()
    }
}

fn apply(graph: &mut Graph, layers: &[Layer], pair: &Pair, factors: &[f64]) {
    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    let (up, down): (Vec<f32>, Vec<f32>) = factors.iter().map(|f| (*f as f32, (1.0 / f) as f32)).unzip();
    let mut scale = |id: ValueId, axis: usize, factors: &[f32]| {
        let shape = graph.ty(id).shape.clone();
        let value = graph.value_mut(id);
        if let Some(data) = value.data.as_ref().and_then(|data| data.scale_along(&shape, axis, factors)) {
            value.data = Some(data);
        }
    };
    pair.made_by.iter().for_each(|id| scale(*id, 0, &down));
    let weights: BTreeSet<(ValueId, usize)> =
        pair.readers.iter().map(|at| (layers[*at].weight, 1 - layers[*at].axis)).collect();
    for (id, axis) in weights {
        scale(id, axis, &up);
    }
}
