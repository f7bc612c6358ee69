//! Scales of weights that several graphs have: each is quantized once.

use std::collections::BTreeMap;

use edge_ir::{Data, Encoding, TensorType};

use crate::inputs::Inputs;
use crate::rounding::{Rounding, round};
use crate::weights::{WeightScheme, encode};

/// What is known of the weights of graphs that are quantized one after the other.
#[derive(Debug, Default)]
pub struct SharedWeights<'a> {
    known: BTreeMap<String, Vec<Known>>,
    rounding: Rounding,
    /// What the inputs of the weights are, and the folder of their graphs.
    inputs: Option<(&'a Inputs, &'a str)>,
}

#[derive(Debug)]
struct Known {
    data: Data,
    scheme: WeightScheme,
    /// Whether the scales are the best, and not raised for a bias.
    best: bool,
    encoding: Encoding,
    integers: Data,
}

/// A weight in integers.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) encoding: Encoding,
    pub(crate) integers: Data,
    /// How many others its name has had before.
    pub(crate) other: usize,
}

impl<'a> SharedWeights<'a> {
    /// Weights of the graphs of one folder, which are rounded for these inputs. What needs inputs and has none is rounded
    /// to the nearest.
    pub fn rounded(rounding: Rounding, inputs: Option<&'a Inputs>, folder: &'a str) -> Self {
        Self { known: BTreeMap::new(), rounding, inputs: inputs.map(|inputs| (inputs, folder)) }
    }

    /// A weight in integers. `least` are the smallest scales with which the biases of the channels fit into 32 bits.
    pub(crate) fn encode(
        &mut self,
        name: &str,
        data: &Data,
        ty: &TensorType,
        scheme: WeightScheme,
        least: Option<&[f32]>,
    ) -> Option<Found> {
        let known = self.known.get(name).map_or(&[][..], Vec::as_slice);
        let is_same = |k: &&Known| k.scheme == scheme && k.data.is_same(data);
        let best = known.iter().filter(is_same).find(|k| k.best).map(|k| k.encoding.clone());
        let mut made = None;
        let best = if let Some(best) = best {
            best
        } else {
            let free = encode(data, ty, scheme, self.rounding != Rounding::MinMax)?;
            made.insert(self.make(name, data, ty, scheme, free, false)?).0.clone()
        };
        let raised = least.map_or_else(|| best.clone(), |least| raise(&best, least));
        let there = known.iter().position(|k| is_same(&k) && k.encoding == raised);
        if let Some(other) = there {
            return Some(Found { encoding: raised, integers: known[other].integers.clone(), other });
        }
        let is_best = raised == best;
        let (encoding, integers) = match made.filter(|_| is_best) {
            Some(made) => made,
            None => self.make(name, data, ty, scheme, raised, true)?,
        };
        let known = self.known.entry(name.to_owned()).or_default();
        let new = Known { data: data.clone(), scheme, best: is_best, encoding: encoding.clone(), integers };
        let integers = new.integers.clone();
        known.push(new);
        Some(Found { encoding, integers, other: known.len() - 1 })
    }

    /// Integers of a weight, with the scales of this encoding if they are `fixed`, and the encoding that they have.
    fn make(
        &self,
        name: &str,
        data: &Data,
        ty: &TensorType,
        scheme: WeightScheme,
        encoding: Encoding,
        fixed: bool,
    ) -> Option<(Encoding, Data)> {
        let outputs = *ty.shape.get(scheme.axis)?;
        let parts = self.inputs.map_or(Vec::new(), |(inputs, folder)| inputs.parts(folder, name, outputs));
        if self.rounding.needs_products()
            && !parts.is_empty()
            && let Some(rounded) = round(data, ty, scheme, &encoding, &parts, self.rounding, fixed)
        {
            return Some(rounded);
        }
        let integers = data.quantize(&ty.shape, encoding.clone())?;
        Some((encoding, integers))
    }
}

/// No scale is less than that of `least` at its place.
fn raise(encoding: &Encoding, least: &[f32]) -> Encoding {
    let floor = |(index, scale): (usize, &f32)| least.get(index).map_or(*scale, |least| scale.max(*least));
    let scales = encoding.scales.iter().enumerate().map(floor).collect();
    Encoding { scales, ..encoding.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ir::DType;

    #[test]
    fn a_weight_is_quantized_once_and_differs_only_for_a_bias() {
        let mut shared = SharedWeights::default();
        let scheme = WeightScheme { dtype: DType::Int8, axis: 0, block: None };
        let data = Data::f32s(&[1.0, -127.0]);
        let ty = TensorType::new(DType::Float32, [2, 1]);
        let mut encode = |data: &Data, least: Option<&[f32]>| {
            let found = shared.encode("w", data, &ty, scheme, least).expect("finite");
            (found.encoding, found.other)
        };
        let (first, at) = encode(&data, None);
        assert_eq!((encode(&data, Some(&[0.0, 0.0])), at), ((first.clone(), 0), 0));
        let (raised, at) = encode(&data, Some(&[0.5, 0.0]));
        assert_eq!((raised.scales.to_vec(), at), (vec![0.5, first.scales[1]], 1));
        assert_eq!(encode(&data, None).1, 0);
        assert_eq!(encode(&Data::f32s(&[3.0, 4.0]), None).1, 2);
    }
}
