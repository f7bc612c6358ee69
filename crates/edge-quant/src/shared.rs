//! Scales of weights that several graphs have: each is quantized once.

use std::collections::BTreeMap;

use edge_ir::{Data, Encoding, TensorType};

use crate::weights::{WeightScheme, encode};

/// What is known of the weights of graphs that are quantized one after the other.
#[derive(Debug, Default)]
pub struct SharedWeights {
    known: BTreeMap<String, Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    data: Data,
    scheme: WeightScheme,
    /// Whether the scales are the best, and not raised for a bias.
    best: bool,
    encoding: Encoding,
}

impl SharedWeights {
    /// The encoding of a weight, and how many others its name has had in other graphs. `least` are the smallest scales
    /// with which the biases of the channels fit into 32 bits.
    pub(crate) fn encode(
        &mut self,
        name: &str,
        data: &Data,
        ty: &TensorType,
        scheme: WeightScheme,
        least: Option<&[f32]>,
    ) -> Option<(Encoding, usize)> {
        let known = self.known.entry(name.to_owned()).or_default();
        let is_same = |k: &Known| k.scheme == scheme && k.data.is_same(data);
        let best = known.iter().find(|k| k.best && is_same(k)).map(|k| k.encoding.clone());
        let best = match best {
            Some(best) => best,
            None => encode(data, ty, scheme)?,
        };
        let raised = least.map(|least| raise(&best, least)).unwrap_or_else(|| best.clone());
        let mut index = |encoding: &Encoding| {
            let there = known.iter().position(|k| is_same(k) && k.encoding == *encoding);
            there.unwrap_or_else(|| {
                let is_best = *encoding == best;
                known.push(Known { data: data.clone(), scheme, best: is_best, encoding: encoding.clone() });
                known.len() - 1
            })
        };
        let at = index(&raised);
        Some((raised, at))
    }
}

/// No scale is less than those of `least`, which are as many.
fn raise(encoding: &Encoding, least: &[f32]) -> Encoding {
    let scales: Vec<f32> = encoding.scales.iter().zip(least).map(|(s, l)| s.max(*l)).collect();
    if scales.len() == encoding.scales.len() {
        Encoding { scales: scales.into(), ..encoding.clone() }
    } else {
        encoding.clone()
    }
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
        let mut encode =
            |data: &Data, least: Option<&[f32]>| shared.encode("w", data, &ty, scheme, least).expect("finite");
        let (first, at) = encode(&data, None);
        assert_eq!((encode(&data, Some(&[0.0, 0.0])), at), ((first.clone(), 0), 0));
        let (raised, at) = encode(&data, Some(&[0.5, 0.0]));
        assert_eq!((raised.scales.to_vec(), at), (vec![0.5, first.scales[1]], 1));
        assert_eq!(encode(&data, None).1, 0);
        assert_eq!(encode(&Data::f32s(&[3.0, 4.0]), None).1, 2);
    }
}
