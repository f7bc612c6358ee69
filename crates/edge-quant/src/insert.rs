//! Writes the quantized graph: every tensor that the plan says goes through `QuantizeLinear` and `DequantizeLinear`,
//! weights are integers with a `DequantizeLinear` behind them.
//!
//! A tensor `x` is made under its name, its integers are `x_q`, and what others read is `x_dq`; an output keeps its name
//! for what its caller gets, and is made as `x_float`.

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::encoding::{limits, pack};
use edge_ir::ops::{find, quantize::MICROSOFT};
use edge_ir::{Attribute, Checked, DType, Data, Encoding, Granularity, Graph, Node, TensorType, Value, ValueId};

use crate::float_form::floats;
use crate::plan::{Plan, Ranges, is_move};
use crate::rules::{Operand, Rule};
use crate::shared::Found;
use crate::{Error, Settings, SharedWeights};

/// A quantized graph.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The graph.
    pub graph: Checked<Graph>,
    /// What stands for its tensors, in order.
    pub encodings: Vec<Encoded>,
}

/// What stands for a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its name in the float graph.
    pub tensor: String,
    /// Whether it is a constant.
    pub is_weight: bool,
    /// The encoding; `None` if it stays in float, of 16 bits where the SDK has no other.
    pub encoding: Option<Encoding>,
}

/// The first opset with integers of 4 and 16 bits.
const OPSET: u32 = 21;

/// Quantizes a graph. `ranges` says what values its tensors take; `shared` is for graphs with the same weights.
///
/// # Errors
/// If nothing says what values a tensor takes, a weight is not finite, or the opset lacks a type.
pub fn quantize(
    graph: &Checked<Graph>,
    settings: &Settings,
    ranges: Ranges<'_>,
    shared: &mut SharedWeights<'_>,
) -> Result<Quantized, Error> {
    let graph = fold_casts(graph);
    let plan = Plan::new(&graph, settings, ranges)?;
    let mut writer = Writer {
        old: &graph,
        settings,
        plan: &plan,
        shared,
        new: Graph::new(graph.name.clone()),
        names: graph.values().map(|(_, v)| v.name.clone()).collect(),
        made: BTreeMap::new(),
        raw: BTreeMap::new(),
        numbers: BTreeMap::new(),
        halves: BTreeMap::new(),
        encodings: Vec::new(),
    };
    for id in &graph.inputs {
        let new = writer.copy(*id);
        writer.new.inputs.push(new);
        writer.raw.insert(*id, new);
        writer.made(*id, new)?;
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        writer.node(node, plan.types[index])?;
    }
    for id in &graph.outputs {
        let new = writer.read(*id);
        writer.new.outputs.push(new);
    }
    let mut encodings = writer.encodings;
    encodings.extend(floats(&graph, &encodings));
    let mut new = writer.new;
    new.prune();
    Ok(Quantized { graph: new.check()?, encodings })
}

/// The graph without casts of weights: they become part of the weights, which keep their names.
pub fn fold_casts(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    for node in std::mem::take(&mut graph.nodes) {
        let cast = || {
            let (from, to) = ((*node.inputs.first()?)?, *node.outputs.first()?);
            let is_cast = node.op.name == "Cast" && graph.ty(to).dtype == DType::Float32;
            graph.value(from).data.clone().filter(|_| is_cast)?.cast(graph.ty(from).dtype, DType::Float32)
        };
        match cast() {
            Some(data) => {
                let to = node.outputs[0];
                if let Some(from) = node.inputs[0].filter(|_| !graph.outputs.contains(&to)) {
                    let name = graph.value(from).name.clone();
                    let other = std::mem::replace(&mut graph.value_mut(to).name, name);
                    graph.value_mut(from).name = other;
                }
                graph.value_mut(to).data = Some(data);
            }
            None => graph.nodes.push(node),
        }
    }
    graph.prune();
    graph
}

/// A graph in the making. Values are those of the old graph unless they are called new.
struct Writer<'a, 'b> {
    old: &'a Graph,
    settings: &'a Settings,
    plan: &'a Plan,
    shared: &'a mut SharedWeights<'b>,
    new: Graph,
    names: BTreeSet<String>,
    /// The new values that stand for old ones: quantized, if the plan says so.
    made: BTreeMap<ValueId, ValueId>,
    /// Those of them that were made in float, before they were quantized: what computes in float reads these.
    raw: BTreeMap<ValueId, ValueId>,
    /// The same in another encoding, or as a weight.
    numbers: BTreeMap<(ValueId, String), (ValueId, Encoding)>,
    /// Weights in 16 bits of float, widened.
    halves: BTreeMap<ValueId, ValueId>,
    encodings: Vec<Encoded>,
}

impl Writer<'_, '_> {
    /// Adds a node with its operands as it wants them, and quantizes what it makes.
    fn node(&mut self, node: &Node, activations: Option<DType>) -> Result<(), Error> {
        let rule = Rule::of(node);
        let operands: Vec<Option<Operand>> =
            (0..node.inputs.len()).map(|i| rule.and_then(|rule| rule.operand(self.old, node, i))).collect();
        let mut inputs = Vec::new();
        // Of the first operand and the second, for the bias.
        let mut codes: Vec<Option<Encoding>> = Vec::new();
        for (index, id) in node.inputs.iter().enumerate() {
            let (new, code) = match (id, operands[index]) {
                (None, _) => (None, None),
                (Some(id), Some(operand)) => {
                    let (new, code) = self.operand(node, activations, (index, *id, operand), &codes)?;
                    (Some(new), code)
                }
                (Some(id), None) => (Some(self.read_float(*id, activations)), None),
            };
            inputs.push(new);
            codes.push(code);
        }
        let outputs: Vec<ValueId> = node.outputs.iter().map(|id| self.copy(*id)).collect();
        self.new.nodes.push(Node { inputs, outputs: outputs.clone(), ..node.clone() });
        if activations.is_none() {
            self.raw.extend(node.outputs.iter().copied().zip(outputs.iter().copied()));
        }
        node.outputs.iter().zip(outputs).try_for_each(|(old, new)| self.made(*old, new))
    }

    /// What a node reads in the place of an input, and its encoding.
    fn operand(
        &mut self,
        node: &Node,
        activations: Option<DType>,
        (index, id, operand): (usize, ValueId, Operand),
        codes: &[Option<Encoding>],
    ) -> Result<(ValueId, Option<Encoding>), Error> {
        match (operand, activations) {
            (Operand::Weight(axis), _) => {
                self.weight(node, activations, (id, axis), codes.first().cloned().flatten().as_ref())
            }
            (_, None) => Ok((self.read_float(id, None), None)),
            (Operand::Activation, Some(dtype)) => {
                let second = self
                    .settings
                    .second
                    .filter(|s| node.op.name == "MatMul" && index == 1 && dtype.bytes(1) == 2 && *s != dtype);
                let wanted = if is_move(node) {
                    self.plan.encoding(self.old, node.outputs[0])
                } else {
                    self.plan.converted(self.old, id, second.unwrap_or(dtype))
                };
                self.activation(id, wanted)
            }
            (Operand::Gain, Some(dtype)) => {
                let Some(data) = self.old.value(id).data.clone() else { return Ok((self.read(id), None)) };
                let range = crate::Range::of(&data.to_f32s()).ok_or_else(|| self.not_finite(id))?;
                let code = range.encode(self.settings.gain_of(node, dtype));
                Ok((self.constant(id, "gain", &data, &code)?, Some(code)))
            }
            (Operand::Bias, Some(_)) => self.bias(id, codes),
        }
    }

    /// A tensor as it is wanted, or as it is made.
    fn activation(&mut self, id: ValueId, wanted: Option<Encoding>) -> Result<(ValueId, Option<Encoding>), Error> {
        let own = self.plan.encoding(self.old, id);
        let Some(code) = wanted.or_else(|| own.clone()) else { return Ok((self.read(id), None)) };
        if let Some(data) = self.old.value(id).data.clone() {
            return Ok((self.constant(id, code.dtype.name(), &data, &code)?, Some(code)));
        }
        if own.as_ref() == Some(&code) {
            return Ok((self.read(id), Some(code)));
        }
        let key = (id, format!("{} {:?} {:?}", code.dtype, code.scales, code.zero_points));
        if let Some((new, _)) = self.numbers.get(&key) {
            return Ok((*new, Some(code)));
        }
        let from = self.read(id);
        let name = format!("{}_{}", self.old.value(id).name, code.dtype);
        let shape = self.old.ty(id).shape.clone();
        let new = self.pair(&name, from, &shape, &code, false)?;
        self.numbers.insert(key, (new, code.clone()));
        Ok((new, Some(code)))
    }

    /// The weight of a layer.
    fn weight(
        &mut self,
        node: &Node,
        activations: Option<DType>,
        (id, axis): (ValueId, usize),
        input: Option<&Encoding>,
    ) -> Result<(ValueId, Option<Encoding>), Error> {
        let Value { name, ty, data } = self.old.value(id).clone();
        if self.settings.weights_of(node) == Some(DType::Float16) {
            return Ok((self.half(id), None));
        }
        let scheme = self.settings.weight_of(node, &ty.shape, axis).filter(|_| ty.dtype == DType::Float32);
        let (Some(scheme), Some(data)) = (scheme, data) else { return Ok((self.read(id), None)) };
        let least = input.and_then(|input| self.least_scales(node, input));
        let mut least = least.filter(|_| scheme.block.is_none());
        let wide = activations.is_some_and(|ty| ty.bytes(1) == 2);
        let is_many = |most: u32| node.int("group", 1) > i64::from(most);
        let one_scale = wide && self.settings.depthwise_scales.is_some_and(is_many);
        if one_scale {
            let scale = common_scale(&data, scheme.dtype, least.as_deref().unwrap_or_default());
            least = Some(vec![scale; ty.shape[axis]]);
        }
        let found = self.shared.encode(&name, &data, &ty, scheme, least.as_deref());
        let Found { encoding, integers, other } = found.ok_or_else(|| self.not_finite(id))?;
        let encoding = if one_scale {
            Encoding::symmetric(encoding.dtype, Granularity::Tensor, vec![encoding.scales[0]])
        } else {
            encoding
        };
        let encoding = match (input, self.settings.multiplier_bits.filter(|_| wide)) {
            (Some(input), Some(bits)) => self.exact_multipliers(node, encoding, input, bits),
            _ => encoding,
        };
        let suffix = if other == 0 { String::new() } else { (other + 1).to_string() };
        let new = self.integers(id, &format!("weight{suffix}"), integers, &encoding)?;
        Ok((new, Some(encoding)))
    }

    /// An encoding of a weight, of which the device's factors, the input's scale times the weight's over the output's, have
    /// no more than `bits` significant bits. The integers are as they were: scales move by less than `2^-bits` of themselves.
    fn exact_multipliers(&self, node: &Node, encoding: Encoding, input: &Encoding, bits: u32) -> Encoding {
        let Some(output) = self.plan.encoding(self.old, node.outputs[0]) else { return encoding };
        if !matches!(encoding.granularity, Granularity::Axis(_)) {
            return encoding;
        }
        let unit = f64::from(input.scales[0]) / f64::from(output.scales[0]);
        #[expect(clippy::cast_possible_truncation, reason = "far more bits are left than are asked for")]
        let exact = |scale: &f32| (significant(f64::from(*scale) * unit, bits) / unit) as f32;
        Encoding { scales: encoding.scales.iter().map(exact).collect(), ..encoding }
    }

    /// A weight in 16 bits of float, and the `Cast` that widens it.
    fn half(&mut self, id: ValueId) -> ValueId {
        if let Some(new) = self.halves.get(&id) {
            return *new;
        }
        let Value { name, ty, data } = self.old.value(id).clone();
        let half = data.filter(|_| ty.dtype == DType::Float32).and_then(|d| d.cast(DType::Float32, DType::Float16));
        let (Some(half), Some(op)) = (half, find("", "Cast")) else { return self.read(id) };
        let stored =
            self.add(&format!("{name}_float16"), TensorType::new(DType::Float16, ty.shape.clone()), Some(half));
        let wide = self.add(&format!("{name}_float32"), ty, None);
        let to = Attribute::Int(i64::from(DType::Float32.onnx()));
        self.new.nodes.push(Node {
            name: format!("{name}/Cast"),
            op,
            inputs: vec![Some(stored)],
            outputs: vec![wide],
            attributes: [("to", to)].into(),
        });
        self.halves.insert(id, wide);
        wide
    }

    /// The smallest scales of weights with which a layer's biases fit into 32 bits.
    fn least_scales(&self, node: &Node, input: &Encoding) -> Option<Vec<f32>> {
        let bias = self.old.value((*node.inputs.get(2)?)?).data.as_ref().filter(|_| self.settings.integer_biases)?;
        let unit = f64::from(input.scales[0]) * f64::from(i32::MAX / 2);
        #[expect(clippy::cast_possible_truncation, reason = "a bound, with a factor of two to spare")]
        let least = |b: &f32| (f64::from(b.abs()) / unit) as f32;
        Some(bias.to_f32s().iter().map(least).collect())
    }

    /// The bias of a layer or norm: in units of its input's scale times its weight's.
    fn bias(&mut self, id: ValueId, codes: &[Option<Encoding>]) -> Result<(ValueId, Option<Encoding>), Error> {
        let Value { name, ty, data } = self.old.value(id).clone();
        let [Some(input), Some(weight)] = codes else { return Ok((self.read(id), None)) };
        let blocks = matches!(weight.granularity, Granularity::Blocks { .. });
        let Some(data) = data.filter(|_| self.settings.integer_biases && !blocks && ty.dtype == DType::Float32) else {
            return Ok((self.read(id), None));
        };
        let numbers = data.to_f32s();
        let scales: Vec<f32> = weight.scales.iter().map(|scale| input.scales[0] * scale).collect();
        #[expect(clippy::cast_possible_truncation, reason = "saturates; scales leave room")]
        let integer = |(index, b): (usize, &f32)| {
            (f64::from(*b) / f64::from(scales[if scales.len() == 1 { 0 } else { index }])).round_ties_even() as i32
        };
        let integers: Vec<i32> = numbers.iter().enumerate().map(integer).collect();
        let granularity = if scales.len() == 1 { Granularity::Tensor } else { Granularity::Axis(0) };
        let code = Encoding::symmetric(DType::Int32, granularity, scales);
        let mut bytes = Vec::new();
        pack(&integers, DType::Int32, &mut bytes);
        let q = TensorType::new(DType::Int32, ty.shape.clone());
        let q = self.add(&format!("{name}_q"), q, Some(Data::owned(bytes)));
        let new = self.pair(&name, q, &ty.shape, &code, true)?;
        self.note(id, true, &code);
        Ok((new, Some(code)))
    }

    /// A constant as integers, each number the nearest; `role` tells several encodings of one apart.
    fn constant(&mut self, id: ValueId, role: &str, data: &Data, code: &Encoding) -> Result<ValueId, Error> {
        let integers = data.quantize(&self.old.ty(id).shape, code.clone()).ok_or_else(|| self.not_finite(id))?;
        self.integers(id, role, integers, code)
    }

    /// The integers of a constant.
    fn integers(&mut self, id: ValueId, role: &str, integers: Data, code: &Encoding) -> Result<ValueId, Error> {
        let key = (id, role.to_owned());
        if let Some((new, there)) = self.numbers.get(&key)
            && there == code
        {
            return Ok(*new);
        }
        let Value { name, ty, .. } = self.old.value(id).clone();
        let base = match role.strip_prefix("weight") {
            Some(suffix) => format!("{name}{suffix}"),
            None => name,
        };
        let q = self.add(&format!("{base}_q"), TensorType::new(code.dtype, ty.shape.clone()), Some(integers));
        let new = self.pair(&base, q, &ty.shape, code, true)?;
        self.note(id, true, code);
        self.numbers.insert(key, (new, code.clone()));
        Ok(new)
    }

    /// Adds what follows a new value that stands for an old one: Q and DQ, if the plan says so.
    fn made(&mut self, id: ValueId, new: ValueId) -> Result<(), Error> {
        let Value { name, ty, .. } = self.old.value(id).clone();
        let code = self.plan.encoding(self.old, id).filter(|_| ty.dtype == DType::Float32);
        let Some(code) = code else {
            self.made.insert(id, new);
            return Ok(());
        };
        let numbers = self.pair(&name, new, &ty.shape, &code, false)?;
        if self.old.outputs.contains(&id) {
            let float = self.unique(&format!("{name}_float"));
            self.new.value_mut(new).name = float;
            self.new.value_mut(numbers).name = name;
        }
        self.made.insert(id, numbers);
        self.note(id, false, &code);
        Ok(())
    }

    /// Q and DQ of a new value, or DQ alone of one that is integers; gives what DQ makes.
    fn pair(
        &mut self,
        name: &str,
        from: ValueId,
        shape: &[usize],
        code: &Encoding,
        is_integers: bool,
    ) -> Result<ValueId, Error> {
        let narrow_or_wide = !matches!(code.dtype, DType::Int8 | DType::Uint8 | DType::Int32);
        let (old, blocks) = (self.settings.opset < OPSET, matches!(code.granularity, Granularity::Blocks { .. }));
        if old && (blocks || code.dtype == DType::Int4) {
            let component = self.new.name.clone();
            return Err(Error::Opset { component, opset: self.settings.opset, dtype: code.dtype });
        }
        let domain = if old && narrow_or_wide { MICROSOFT } else { "" };
        let scale_shape = code.granularity.scale_shape(shape).unwrap_or_default();
        let mut zeros = Vec::new();
        pack(&code.zero_points, code.dtype, &mut zeros);
        let scale = TensorType::new(DType::Float32, scale_shape.clone());
        let scale = self.add(&format!("{name}_scale"), scale, Some(Data::f32s(&code.scales)));
        let zero = TensorType::new(code.dtype, scale_shape);
        let zero = self.add(&format!("{name}_zero_point"), zero, Some(Data::owned(zeros)));
        let mut attributes = BTreeMap::new();
        let int = |v: usize| Attribute::Int(i64::try_from(v).unwrap_or(i64::MAX));
        match code.granularity {
            Granularity::Tensor => {}
            Granularity::Axis(axis) => drop(attributes.insert("axis", int(axis))),
            Granularity::Blocks { axis, size } => {
                attributes.extend([("axis", int(axis)), ("block_size", int(size))]);
            }
        }
        let mut x = from;
        let steps = [("QuantizeLinear", "_q", code.dtype), ("DequantizeLinear", "_dq", DType::Float32)];
        for (op, suffix, dtype) in steps.into_iter().skip(usize::from(is_integers)) {
            let Some(op) = find(domain, op) else { continue };
            let y = self.add(&format!("{name}{suffix}"), TensorType::new(dtype, shape), None);
            let node = Node {
                name: format!("{}/{}", self.new.value(y).name, op.name),
                op,
                inputs: [x, scale, zero].map(Some).to_vec(),
                outputs: vec![y],
                attributes: attributes.clone(),
            };
            self.new.nodes.push(node);
            x = y;
        }
        Ok(x)
    }

    /// The new value in the place of an old one.
    fn read(&mut self, id: ValueId) -> ValueId {
        if let Some(new) = self.made.get(&id) {
            return *new;
        }
        let new = self.copy(id);
        self.made.insert(id, new);
        new
    }

    /// The same for a node whose activations have this type: one in float reads what was made in float as it was made.
    fn read_float(&mut self, id: ValueId, activations: Option<DType>) -> ValueId {
        let raw = self.raw.get(&id).filter(|_| activations.is_none());
        raw.copied().unwrap_or_else(|| self.read(id))
    }

    /// A new value like an old one.
    fn copy(&mut self, id: ValueId) -> ValueId {
        self.new.add_value(self.old.value(id).clone())
    }

    fn add(&mut self, name: &str, ty: TensorType, data: Option<Data>) -> ValueId {
        let name = self.unique(name);
        self.new.add_value(Value { name, ty, data })
    }

    /// A name that no tensor of either graph has.
    fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut n = 1;
        while !self.names.insert(candidate.clone()) {
            n += 1;
            candidate = format!("{name}_{n}");
        }
        candidate
    }

    fn note(&mut self, id: ValueId, is_weight: bool, encoding: &Encoding) {
        let tensor = self.old.value(id).name.clone();
        self.encodings.push(Encoded { tensor, is_weight, encoding: Some(encoding.clone()) });
    }

    fn not_finite(&self, id: ValueId) -> Error {
        Error::NotFinite { component: self.old.name.clone(), tensor: self.old.value(id).name.clone() }
    }
}

/// A scale for all numbers, and no less than any of `least`.
fn common_scale(data: &Data, dtype: DType, least: &[f32]) -> f32 {
    let (_, high) = limits(dtype).unwrap_or((0, 127));
    let most = data.to_f32s().iter().fold(0.0_f32, |most, number| most.max(number.abs()));
    #[expect(clippy::cast_precision_loss, reason = "16 bits at most")]
    let own = most / high as f32;
    least.iter().copied().fold(own, f32::max)
}

/// The nearest number with so many significant bits.
fn significant(number: f64, bits: u32) -> f64 {
    let dropped = f64::MANTISSA_DIGITS.saturating_sub(bits.max(1));
    let half = (1_u64 << dropped) >> 1;
    f64::from_bits((number.to_bits() + half) & !((1_u64 << dropped) - 1))
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, Data};

    use super::*;
    use crate::Range;

    #[test]
    fn few_bits_are_the_first_ones() {
        for (number, bits, expected) in
            [(1.0, 11, 1.0), (1025.4, 11, 1025.0), (2051.0, 11, 2052.0), (2047.6, 11, 2048.0), (0.3, 2, 0.25)]
        {
            assert_eq!(significant(number, bits).to_bits(), f64::to_bits(expected), "{number} in {bits} bits");
        }
    }

    fn attributes(group: i64) -> [(&'static str, Attribute); 5] {
        let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
        [
            ("kernel_shape", ints(&[1, 1])),
            ("pads", ints(&[0; 4])),
            ("strides", ints(&[1, 1])),
            ("dilations", ints(&[1, 1])),
            ("group", Attribute::Int(group)),
        ]
    }

    /// One convolution with a bias, quantized for a device whose factors have so many bits.
    fn convolution(bits: Option<u32>) -> Quantized {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 1, 2, 2]);
        let w = b.floats("w", &[3, 1, 1, 1], &[0.7, -1.1, 0.013]);
        let bias = b.floats("b", &[3], &[0.1, 0.2, -0.3]);
        let y = b.node("Conv", "conv", &[x, w, bias], &attributes(1)).unwrap();
        b.output("y", y);
        let target = edge_spec::Target::find("qnn").unwrap();
        let precision = edge_spec::Precision { multiplier_bits_16: bits, ..target.precision.unwrap() };
        let settings = Settings::of(edge_spec::Scheme::W8a16, &precision, 21);
        let range = |_: &str, _: DType| Some(Range { min: -2.1, max: 3.7 });
        quantize(&b.finish().unwrap(), &settings, &range, &mut SharedWeights::default()).unwrap()
    }

    #[test]
    fn a_wide_depthwise_convolution_has_one_scale() {
        let quantized = |most| {
            let mut b = Builder::new("g");
            let x = b.input("x", DType::Float32, &[1, 3, 2, 2]);
            let w = b.floats("w", &[3, 1, 1, 1], &[0.5, -1.27, 0.01]);
            let bias = b.floats("b", &[3], &[0.1, 0.2, -0.3]);
            let y = b.node("Conv", "conv", &[x, w, bias], &attributes(3)).unwrap();
            b.output("y", y);
            let target = edge_spec::Target::find("qnn").unwrap();
            let precision = edge_spec::Precision {
                depthwise_16: None,
                depthwise_scales_16: Some(most),
                ..target.precision.unwrap()
            };
            let settings = Settings::of(edge_spec::Scheme::W8a16, &precision, 21);
            let range = |_: &str, _: DType| Some(Range { min: -2.1, max: 3.7 });
            quantize(&b.finish().unwrap(), &settings, &range, &mut SharedWeights::default()).unwrap()
        };
        let code = |quantized: &Quantized, tensor: &str| {
            quantized.encodings.iter().find(|e| e.tensor == tensor).unwrap().encoding.clone().unwrap()
        };
        assert_eq!(code(&quantized(3), "w").scales.len(), 3);
        let one = quantized(2);
        assert_eq!(
            (code(&one, "w").scales.to_vec(), code(&one, "w").granularity),
            (vec![1.27 / 127.0], Granularity::Tensor)
        );
        assert_eq!(code(&one, "b").granularity, Granularity::Tensor);
        let integers = one.graph.values().find(|(_, v)| v.name == "w_q").unwrap().1.data.clone().unwrap();
        assert_eq!(integers.bytes().iter().map(|b| b.cast_signed()).collect::<Vec<_>>(), [50, -127, 1]);
    }

    #[test]
    fn factors_of_a_device_are_exact() {
        let scales = |quantized: &Quantized, tensor: &str| {
            let found = quantized.encodings.iter().find(|e| e.tensor.starts_with(tensor)).unwrap();
            found.encoding.clone().unwrap().scales.to_vec()
        };
        let integers = |quantized: &Quantized| {
            let find = |(_, v): (ValueId, &Value)| (v.name == "w_q").then(|| v.data.clone());
            quantized.graph.values().find_map(find).flatten().map(|d: Data| d.bytes().into_owned())
        };
        let (plain, exact) = (convolution(None), convolution(Some(11)));
        assert_eq!(integers(&plain), integers(&exact));
        let (x, y) = (f64::from(scales(&exact, "x")[0]), f64::from(scales(&exact, "y")[0]));
        for ((was, is), bias) in scales(&plain, "w").iter().zip(scales(&exact, "w")).zip(scales(&exact, "b")) {
            assert!(was.to_bits() != is.to_bits() && (was / is - 1.0).abs() < 1.0 / 2048.0, "{was} {is}");
            let factor = f64::from(is) * x / y;
            assert!((factor / significant(factor, 11) - 1.0).abs() < 1e-6, "{factor}");
            assert!((f64::from(bias) / (x * f64::from(is)) - 1.0).abs() < 1e-6);
        }
    }
}
