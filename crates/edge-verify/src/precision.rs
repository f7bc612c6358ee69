//! The kind of arithmetic of a graph, read off its operators and types.

use std::collections::BTreeMap;

use edge_ir::{DType, Graph};

/// A kind of arithmetic, the finest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// 32-bit floats, whatever the weights are stored as.
    Float32,
    /// The same, with functions in the place of others that are a little different: GELU by `Tanh`.
    Approximate,
    /// 16-bit floats, or weights that were made such.
    Float16,
    /// Weights of 8 bits or more in integers, activations in floats.
    W8,
    /// The same, and activations in 16-bit integers.
    W8A16,
    /// Weights of 4 bits, activations in floats or 16-bit integers.
    W4A16,
    /// Weights and activations in 8-bit integers.
    W8A8,
}

impl Precision {
    /// Its name.
    pub fn name(self) -> &'static str {
        edge_spec::PRECISIONS[self as usize]
    }

    /// The arithmetic of a graph: the width that most of its quantized activations and weights have.
    pub fn of(graph: &Graph) -> Self {
        let (mut weights, mut activations) = (BTreeMap::new(), BTreeMap::new());
        let mut half = false;
        for node in &graph.nodes {
            let Some(input) = node.inputs.first().copied().flatten() else { continue };
            let output = node.outputs.first().map(|id| graph.ty(*id));
            match node.op.name {
                "QuantizeLinear" => *activations.entry(output.map_or(8, |ty| ty.dtype.bytes(2) * 4)).or_insert(0) += 1,
                "DequantizeLinear" if graph.value(input).data.is_some() => {
                    *weights.entry(graph.ty(input).dtype.bytes(2) * 4).or_insert(0) += graph.ty(input).elements();
                }
                // A cast of something that is computed: of a weight it says how that is stored.
                "Cast" if graph.value(input).data.is_none() => {
                    half |= output.is_some_and(|ty| ty.dtype == DType::Float16);
                }
                _ => {}
            }
        }
        let most = |counts: &BTreeMap<u64, u64>| counts.iter().max_by_key(|(_, count)| **count).map(|(bits, _)| *bits);
        match (most(&weights), most(&activations)) {
            (None, None) if half => Self::Float16,
            (None, None) => Self::Float32,
            (_, Some(..=8)) => Self::W8A8,
            (Some(..=4), _) => Self::W4A16,
            (_, Some(_)) => Self::W8A16,
            (Some(_), None) => Self::W8,
        }
    }
}
