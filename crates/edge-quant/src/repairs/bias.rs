//! Biases give back what rounded weights take from the mean of a layer's outputs: `E[W x] - E[Wq x] = (W - Wq) E[x]`
//! (Nagel et al., arXiv 1906.04721, section 4.2, with means that were seen).

use edge_ir::{Checked, Data, Graph, TensorType, Value, ValueId};
use rayon::prelude::*;

use crate::insert::fold_casts;
use crate::layers::{Layer, layers};
use crate::{Error, Inputs, Settings, SharedWeights};

/// Outputs that one thread looks at together.
const TOGETHER: usize = 64;

/// The graph with the biases that suit its weights in integers, and the number of layers that have one now. A
/// convolution without bias gets one; a product without is left alone.
///
/// # Errors
/// If a weight is not finite.
pub fn correct_biases(
    graph: &Checked<Graph>,
    settings: &Settings,
    inputs: &Inputs,
    shared: &mut SharedWeights<'_>,
) -> Result<(Checked<Graph>, usize), Error> {
    let mut graph = fold_casts(graph);
    let mut rounded = Vec::new();
    for layer in layers(&graph) {
        let tensor = &graph.value(layer.input).name;
        let Some(moments) = inputs.moments(&graph.name, tensor, &layer.patches) else { continue };
        let Some(place) = Place::of(&graph, &layer) else { continue };
        let Some(weight) = Rounded::of(&graph, &layer, settings, shared)? else { continue };
        rounded.push((place, layer, weight, moments));
    }
    let lost: Vec<Vec<f64>> =
        rounded.par_iter().map(|(_, layer, weight, moments)| weight.lost(layer, &moments.means())).collect();
    let count = rounded.len();
    for ((place, layer, ..), lost) in rounded.into_iter().zip(lost) {
        place.add(&mut graph, &layer, &lost);
    }
    graph.prune();
    Ok((graph.check()?, count))
}

/// Where a layer's bias stands.
enum Place {
    /// An input of a node, which is this constant.
    Constant(usize, usize, ValueId),
    /// It has none yet.
    Nowhere,
}

impl Place {
    fn of(graph: &Graph, layer: &Layer) -> Option<Self> {
        let node = &graph.nodes[layer.node];
        let is_float = |id: &ValueId| graph.value(*id).data.is_some() && graph.ty(*id).dtype == edge_ir::DType::Float32;
        if node.op.name != "MatMul" {
            return match node.inputs.get(2).copied().flatten() {
                Some(bias) => is_float(&bias).then_some(Self::Constant(layer.node, 2, bias)),
                None => Some(Self::Nowhere),
            };
        }
        let outputs = *graph.ty(layer.weight).shape.get(layer.axis)?;
        let made = node.outputs[0];
        let consumers = graph.consumers();
        let [reader] = consumers[graph.index_of(made)][..] else { return None };
        let add = graph.nodes.get(reader).filter(|n| n.op.name == "Add" && !graph.outputs.contains(&made))?;
        let index = usize::from(add.inputs[0] == Some(made));
        let bias = add.inputs[index].filter(is_float)?;
        let shape = &graph.ty(bias).shape;
        let is_row = shape.last() == Some(&outputs) && graph.ty(bias).elements() == outputs as u64;
        is_row.then_some(Self::Constant(reader, index, bias))
    }

    fn add(self, graph: &mut Graph, layer: &Layer, lost: &[f64]) {
        #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
        let sum = |(lost, there): (&f64, f32)| (f64::from(there) + lost) as f32;
        let (node, index, name, ty, there) = match self {
            Self::Constant(node, index, id) => {
                let Value { name, ty, data } = graph.value(id).clone();
                (node, index, name, ty, data.map_or(Vec::new(), |data| data.to_f32s()))
            }
            Self::Nowhere => {
                let weight = &graph.value(layer.weight).name;
                let name =
                    weight.strip_suffix("weight").map_or(format!("{weight}_bias"), |start| format!("{start}bias"));
                let ty = TensorType::new(edge_ir::DType::Float32, [lost.len()]);
                (layer.node, 2, name, ty, vec![0.0; lost.len()])
            }
        };
        let numbers: Vec<f32> = lost.iter().zip(there).map(sum).collect();
        let taken = |name: &str| graph.values().any(|(_, value)| value.name == name);
        let name = format!("{name}_corrected");
        let mut unique = name.clone();
        let mut n = 1;
        while taken(&unique) {
            n += 1;
            unique = format!("{name}_{n}");
        }
        let new = graph.add_value(Value { name: unique, ty, data: Some(Data::f32s(&numbers)) });
        let inputs = &mut graph.nodes[node].inputs;
        inputs.resize(inputs.len().max(index + 1), None);
        inputs[index] = Some(new);
    }
}

/// A weight, and the numbers that its integers stand for.
struct Rounded {
    outputs: usize,
    old: Data,
    new: Data,
}

impl Rounded {
    /// `None` if the weight stays in float.
    fn of(
        graph: &Graph,
        layer: &Layer,
        settings: &Settings,
        shared: &mut SharedWeights<'_>,
    ) -> Result<Option<Self>, Error> {
        let Value { name, ty, data } = graph.value(layer.weight);
        let scheme = settings.weight_of(&graph.nodes[layer.node], &ty.shape, layer.axis);
        let (Some(scheme), Some(data)) = (scheme, data) else { return Ok(None) };
        let not_finite = || Error::NotFinite { component: graph.name.clone(), tensor: name.clone() };
        let found = shared.encode(name, data, ty, scheme, None).ok_or_else(not_finite)?;
        let new = found.integers.dequantize(&ty.shape, found.encoding).ok_or_else(not_finite)?;
        Ok(Some(Self { outputs: ty.shape[layer.axis], old: data.clone(), new }))
    }

    /// What the mean of each output loses, for inputs with these means.
    fn lost(&self, layer: &Layer, means: &[f64]) -> Vec<f64> {
        let (old, new, outputs) = (self.old.to_f32s(), self.new.to_f32s(), self.outputs);
        let columns = old.len() / outputs.max(1);
        let each = outputs / layer.patches.groups();
        let mut lost = vec![0.0; outputs];
        lost.par_chunks_mut(TOGETHER).enumerate().for_each(|(index, lost)| {
            let first = index * TOGETHER;
            // Where weights lie output by output, and where they lie input by input.
            if layer.axis == 0 {
                for (output, lost) in (first..).zip(lost) {
                    let weights = old[output * columns..].iter().zip(&new[output * columns..]);
                    let means = &means[output / each * columns..][..columns];
                    *lost =
                        weights.zip(means).map(|((old, new), mean)| (f64::from(*old) - f64::from(*new)) * mean).sum();
                }
            } else {
                for (column, mean) in means.iter().enumerate() {
                    let weights = old[column * outputs + first..].iter().zip(&new[column * outputs + first..]);
                    let more = weights.map(|(old, new)| (f64::from(*old) - f64::from(*new)) * mean);
                    lost.iter_mut().zip(more).for_each(|(lost, more)| *lost += more);
                }
            }
        });
        lost
    }
}
