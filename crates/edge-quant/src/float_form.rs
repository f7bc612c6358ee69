//! The float graph that a quantized one stands for, and the encodings that lead back to its integers: what SDKs want that
//! quantize themselves, and are told how.
//!
//! A weight is the numbers of its integers, so that the nearest integers of these numbers are the same again, however they
//! were rounded. Where a tensor is made in one type and read in another, the file of encodings has but one place for it: it
//! is the reader's if all readers agree, and so are tensors that are only moved from there.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::ops::quantize::{encoding, is_linear};
use edge_ir::{Checked, DType, Encoding, Graph, Node, Value, ValueId, View};

use crate::plan::is_move;
use crate::rules::Rule;
use crate::{Encoded, Error, fold_casts};

/// What a constant is called behind the `DequantizeLinear` of its integers, and in 16 bits of float.
const SUFFIXES: &[&str] = &["_dq", "_float16"];

/// A float graph with encodings.
#[derive(Clone, Debug)]
pub struct FloatForm {
    /// The graph: no `QuantizeLinear` and no `DequantizeLinear` is left of those that the encodings say.
    pub graph: Checked<Graph>,
    /// What stands for its tensors, in the order in which they are made; those that stay in float have none.
    pub encodings: Vec<Encoded>,
}

/// Takes the integers out of a graph.
///
/// # Errors
/// If an output is nothing but integers of an input, or what comes out is no graph.
pub fn float_form(quantized: &Checked<Graph>) -> Result<FloatForm, Error> {
    let quantized = &fold_casts(quantized);
    let pairs = Pairs::new(quantized);
    let mut new = quantized.clone();
    let halves = quantized.initializers().filter(|(_, v, _)| v.ty.dtype == DType::Float32).map(|(id, _, _)| id);
    for id in halves.chain(pairs.weights.keys().copied()) {
        let name = &quantized.value(id).name;
        let own = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|own| !pairs.names.contains(own));
        own.unwrap_or(name).clone_into(&mut new.value_mut(id).name);
    }
    for (id, weight) in &pairs.weights {
        let Value { ty, .. } = quantized.value(*id);
        let data = quantized.value(weight.integers).data.as_ref();
        let numbers = data.and_then(|data| data.dequantize(&ty.shape, weight.encoding.clone()));
        new.value_mut(*id).data = numbers;
    }
    new.nodes.retain(|node| !node.outputs.iter().any(|id| pairs.is_border(*id)));
    for id in new.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().flatten()) {
        *id = pairs.origin(*id);
    }
    for place in 0..new.outputs.len() {
        let (id, origin) = (new.outputs[place], pairs.origin(new.outputs[place]));
        if id == origin {
            continue;
        }
        if new.inputs.contains(&origin) || new.outputs.contains(&origin) {
            return Err(Error::NoFloatForm {
                component: quantized.name.clone(),
                tensor: quantized.value(id).name.clone(),
            });
        }
        let name = std::mem::take(&mut new.value_mut(id).name);
        new.value_mut(origin).name = name;
        new.outputs[place] = origin;
    }
    let encodings = listed(&new, &pairs.weights, &pairs.wanted(quantized));
    new.prune();
    Ok(FloatForm { graph: new.check()?, encodings })
}

/// A constant in integers.
struct Weight {
    integers: ValueId,
    encoding: Encoding,
}

/// The pairs of Q and DQ of a graph.
struct Pairs<'a> {
    /// What DQ makes of integers of a constant.
    weights: BTreeMap<ValueId, Weight>,
    /// What DQ makes of a tensor, with the tensor before all pairs and the encoding of this one.
    made: BTreeMap<ValueId, (ValueId, Encoding)>,
    /// The encoding that each tensor is made in.
    own: BTreeMap<ValueId, Encoding>,
    /// Integers between Q and DQ that nobody else reads.
    between: BTreeSet<ValueId>,
    names: BTreeSet<&'a str>,
}

impl<'a> Pairs<'a> {
    fn new(graph: &'a Graph) -> Self {
        let view = View::new(graph);
        let names = graph.values().map(|(_, v)| v.name.as_str()).collect();
        let mut pairs = Self {
            weights: BTreeMap::new(),
            made: BTreeMap::new(),
            own: BTreeMap::new(),
            between: BTreeSet::new(),
            names,
        };
        for node in graph.nodes.iter().filter(|node| is_linear(node, "DequantizeLinear")) {
            let (Some(from), Some(code)) = (node.inputs[0], encoding(graph, node)) else { continue };
            let to = node.outputs[0];
            if view.data(from).is_some() {
                pairs.weights.insert(to, Weight { integers: from, encoding: code });
            } else if let Some((_, q)) = view.any_maker(from).filter(|(_, q)| is_linear(q, "QuantizeLinear"))
                && let Some(before) = q.inputs[0]
            {
                let origin = pairs.origin(before);
                if origin == before {
                    pairs.own.insert(origin, code.clone());
                }
                pairs.made.insert(to, (origin, code));
                if view.uses(from) == 1 {
                    pairs.between.insert(from);
                }
            }
        }
        pairs
    }

    /// What a value was before it became integers and numbers again, however often.
    fn origin(&self, id: ValueId) -> ValueId {
        self.made.get(&id).map_or(id, |(origin, _)| *origin)
    }

    /// Whether a value is made by a node that goes.
    fn is_border(&self, id: ValueId) -> bool {
        self.weights.contains_key(&id) || self.made.contains_key(&id) || self.between.contains(&id)
    }

    /// The encoding of each tensor: that in which all that reads it wants it, else its own.
    fn wanted(&self, graph: &Graph) -> BTreeMap<ValueId, Encoding> {
        let mut asked: BTreeMap<ValueId, Vec<Option<Encoding>>> = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        let settle = |id: ValueId, asked: &BTreeMap<ValueId, Vec<Option<Encoding>>>| {
            let own = self.own.get(&id)?;
            let all = asked.get(&id).map_or(&[][..], Vec::as_slice);
            let agreed = all.first().cloned().flatten().filter(|first| all.iter().all(|e| e.as_ref() == Some(first)));
            Some(agreed.unwrap_or_else(|| own.clone()))
        };
        for id in &graph.outputs {
            let origin = self.origin(*id);
            asked.entry(origin).or_default().push(self.own.get(&origin).cloned());
        }
        for node in graph.nodes.iter().rev().filter(|node| !node.outputs.iter().any(|id| self.is_border(*id))) {
            for id in &node.outputs {
                wanted.extend(settle(*id, &asked).map(|code| (*id, code)));
            }
            for id in node.inputs.iter().flatten() {
                let read = self.made.get(id).map(|(_, code)| code.clone());
                let read = read.map(|code| self.moved(node, &wanted).unwrap_or(code));
                asked.entry(self.origin(*id)).or_default().push(read);
            }
        }
        for id in &graph.inputs {
            wanted.extend(settle(*id, &asked).map(|code| (*id, code)));
        }
        wanted
    }

    /// What a move of one tensor gives all its outputs in, if that is one encoding.
    fn moved(&self, node: &Node, wanted: &BTreeMap<ValueId, Encoding>) -> Option<Encoding> {
        let reads = node.inputs.iter().flatten().filter(|id| self.made.contains_key(id)).count();
        let mut codes = node.outputs.iter().map(|id| wanted.get(id));
        let first = codes.next().flatten()?;
        (is_move(node) && reads == 1 && codes.all(|code| code == Some(first))).then(|| first.clone())
    }
}

/// The tensors of a float graph that have encodings, and those that stay in float.
fn listed(
    graph: &Graph,
    weights: &BTreeMap<ValueId, Weight>,
    activations: &BTreeMap<ValueId, Encoding>,
) -> Vec<Encoded> {
    let of = |id: ValueId, is_weight, encoding: &Encoding| Encoded {
        tensor: graph.value(id).name.clone(),
        is_weight,
        encoding: Some(encoding.clone()),
    };
    let mut all: Vec<Encoded> =
        graph.inputs.iter().filter_map(|id| Some(of(*id, false, activations.get(id)?))).collect();
    let mut seen = BTreeSet::new();
    for node in &graph.nodes {
        let constants = node.inputs.iter().flatten().filter(|id| weights.contains_key(id));
        all.extend(constants.filter(|id| seen.insert(**id)).map(|id| of(*id, true, &weights[id].encoding)));
        all.extend(node.outputs.iter().filter_map(|id| Some(of(*id, false, activations.get(id)?))));
    }
    let floats = floats(graph, &all);
    all.extend(floats);
    all
}

/// The tensors of a float graph of which nothing is said: they stay in float.
pub(crate) fn floats(graph: &Graph, encoded: &[Encoded]) -> Vec<Encoded> {
    let mut seen: BTreeSet<&str> = encoded.iter().map(|e| e.tensor.as_str()).collect();
    let mut left = Vec::new();
    let mut add = |id: ValueId| {
        let Value { name, ty, data } = graph.value(id);
        if ty.dtype.is_float() && seen.insert(name) {
            left.push(Encoded { tensor: name.clone(), is_weight: data.is_some(), encoding: None });
        }
    };
    graph.inputs.iter().for_each(|id| add(*id));
    for node in &graph.nodes {
        // The factors of a Resize and the like are no numbers to compute with.
        let counts = |place: usize| Rule::of(node).is_none_or(|rule| rule.operand(graph, node, place).is_some());
        let read = node.inputs.iter().enumerate().filter(|(place, _)| counts(*place));
        read.filter_map(|(_, id)| *id).chain(node.outputs.iter().copied()).for_each(&mut add);
    }
    left
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, Data};

    use super::*;
    use crate::{Quantized, Range, Settings, SharedWeights, quantize};

    /// Two products, of which the second has a turned tensor as its second operand, and a sum in float at the end.
    fn float() -> Checked<Graph> {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 4, 4]);
        let w = b.floats("w", &[4, 4], &(0..16_u8).map(|i| f32::from(i) / 7.0 - 1.0).collect::<Vec<_>>());
        let y = b.node("MatMul", "y", &[x, w], &[]).unwrap();
        let turned = b.node("Transpose", "turned", &[y], &[("perm", Attribute::Ints(vec![0, 2, 1]))]).unwrap();
        let z = b.node("MatMul", "z", &[x, turned], &[]).unwrap();
        let angles = b.node("Sin", "time_proj", &[z], &[]).unwrap();
        b.output("z", z);
        b.output("angles", angles);
        b.finish().unwrap()
    }

    fn quantized() -> Quantized {
        let target = edge_spec::Target::find("qnn").unwrap();
        let settings = Settings::of(edge_spec::Scheme::W8a16, &target.precision.unwrap(), 21);
        let range = |_: &str, _: DType| Some(Range { min: -6.0, max: 5.0 });
        quantize(&float(), &settings, &range, &mut SharedWeights::default()).unwrap()
    }

    #[test]
    fn integers_go_and_come_again() {
        let Quantized { graph: integers, encodings } = quantized();
        let FloatForm { graph, encodings: found } = float_form(&integers).unwrap();
        let operators = |graph: &Graph| graph.nodes.iter().map(|node| node.op.name).collect::<Vec<_>>();
        assert_eq!(operators(&graph), operators(&float()));
        let names = |graph: &Graph| graph.values().map(|(_, v)| v.name.clone()).collect::<BTreeSet<_>>();
        assert_eq!(names(&graph), names(&float()));
        // Each tensor has one line, and the weights' are those that quantizing wrote.
        let tensors: BTreeSet<_> = found.iter().map(|e| e.tensor.clone()).collect();
        assert_eq!((tensors.len(), &tensors), (found.len(), &names(&graph)));
        let weight = |all: &[Encoded]| all.iter().find(|e| e.tensor == "w").unwrap().encoding.clone();
        assert_eq!(weight(&found), weight(&encodings));
        // The nearest integers of the weight's numbers are the integers.
        let value = |graph: &Graph, name: &str| {
            let found = graph.values().find(|(_, v)| v.name == name).unwrap().1.clone();
            (found.ty.shape.clone(), found.data.unwrap())
        };
        let (shape, numbers) = value(&graph, "w");
        let again: Data = numbers.quantize(&shape, weight(&found).unwrap()).unwrap();
        assert_eq!(again.bytes(), value(&integers, "w_q").1.bytes());
    }

    #[test]
    fn the_second_operand_is_symmetric_from_where_it_is_made() {
        let found = float_form(&quantized().graph).unwrap().encodings;
        let dtype =
            |name: &str| found.iter().find(|e| e.tensor.starts_with(name)).unwrap().encoding.as_ref().map(|e| e.dtype);
        assert_eq!((dtype("x"), dtype("z")), (Some(DType::Uint16), Some(DType::Uint16)));
        assert_eq!((dtype("y"), dtype("turned")), (Some(DType::Int16), Some(DType::Int16)));
        assert_eq!(dtype("angles"), None);
    }

    #[test]
    fn an_output_of_an_inputs_integers_has_no_float_form() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[4]);
        let scale = b.floats("scale", &[], &[0.5]);
        let zero = b.weight("zero", edge_ir::TensorType::new(DType::Uint8, []), Data::owned(vec![3]));
        let q = b.node("QuantizeLinear", "q", &[x, scale, zero], &[]).unwrap();
        let dq = b.node("DequantizeLinear", "dq", &[q, scale, zero], &[]).unwrap();
        b.output("y", dq);
        let error = float_form(&b.finish().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "`g`: the output `y` is nothing but integers of another input or output");
    }
}
