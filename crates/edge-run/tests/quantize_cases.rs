//! Quantization against onnxruntime's, bit by bit: cases made by `tests/reference/make_quantize_cases.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use edge_ir::encoding::{pack, unpack};
use edge_ir::{Attribute, Builder, DType, Data, Executor, Tensor, TensorType, ValueId};
use edge_run::{Session, tensors};

/// A case's name, tensors, and what its name says.
struct Case {
    name: String,
    dtype: DType,
    attributes: Vec<(&'static str, Attribute)>,
    tensors: BTreeMap<&'static str, Tensor>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quantize_cases.safetensors");
    let all = tensors::read(&path).unwrap();
    let names: BTreeSet<&str> = all.keys().map(|k| k.rsplit_once('.').unwrap().0).collect();
    let case = |name: &str| {
        let [dtype, granularity, _] = name.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let int = |text: &str| Attribute::Int(text.parse().unwrap());
        let attributes = if let Some(axis) = granularity.strip_prefix("axis") {
            vec![("axis", int(axis))]
        } else if let Some((axis, size)) = granularity.strip_prefix("blocks").and_then(|r| r.split_once('x')) {
            vec![("axis", int(axis)), ("block_size", int(size))]
        } else {
            Vec::new()
        };
        let parts = ["x", "scale", "zero", "q", "back"];
        let tensors = parts.into_iter().filter_map(|p| Some((p, all.get(&format!("{name}.{p}"))?.clone()))).collect();
        Case { name: name.to_owned(), dtype: DType::from_name(dtype).unwrap(), attributes, tensors }
    };
    names.into_iter().map(case).collect()
}

impl Case {
    /// A tensor of int32 numbers in the case's type.
    fn packed(&self, name: &str) -> (TensorType, Vec<u8>) {
        let tensor = &self.tensors[name];
        let mut bytes = Vec::new();
        pack(&unpack(&tensor.bytes, DType::Int32, tensor.bytes.len() / 4), self.dtype, &mut bytes);
        (TensorType::new(self.dtype, tensor.ty.shape.clone()), bytes)
    }

    /// Scales and zero points.
    fn constants(&self, b: &mut Builder) -> [ValueId; 2] {
        let scale = &self.tensors["scale"];
        let (ty, zero) = self.packed("zero");
        [b.weight("s", scale.ty.clone(), Data::owned(scale.bytes.clone())), b.weight("z", ty, Data::owned(zero))]
    }

    fn check(&self, what: &str, b: Builder, input: Option<Tensor>, expect: &[Vec<u8>]) {
        let mut session = Session::load(&b.finish().unwrap()).unwrap();
        let inputs: Vec<Tensor> = input.into_iter().collect();
        let found: Vec<Vec<u8>> = session.run(&inputs).unwrap().into_iter().map(|t| t.bytes).collect();
        assert_eq!(found, expect, "{}: {what}", self.name);
    }
}

#[test]
fn numbers_become_the_same_integers_and_come_back_the_same() {
    let mut checked = 0;
    for case in cases().iter().filter(|c| c.dtype != DType::Int32) {
        let mut b = Builder::new("g");
        let x = &case.tensors["x"];
        let input = b.input("x", DType::Float32, &x.ty.shape);
        let [s, z] = case.constants(&mut b);
        let q = b.node("QuantizeLinear", "q", &[input, s, z], &case.attributes).unwrap();
        // In a graph of its own, because what gives `q` out is not fused.
        let mut pair = Builder::new("g");
        let input = pair.input("x", DType::Float32, &x.ty.shape);
        let [s, z] = case.constants(&mut pair);
        let both = pair.node("QuantizeLinear", "q", &[input, s, z], &case.attributes).unwrap();
        let back = pair.node("DequantizeLinear", "back", &[both, s, z], &case.attributes).unwrap();
        pair.output("y", back);
        b.output("y", q);
        case.check("integers", b, Some(x.clone()), &[case.packed("q").1]);
        case.check("there and back", pair, Some(x.clone()), std::slice::from_ref(&case.tensors["back"].bytes));
        checked += 1;
    }
    assert_eq!(checked, 84);
}

#[test]
fn integers_stand_for_the_same_numbers_as_inputs_and_as_weights() {
    for case in cases() {
        let (ty, bytes) = case.packed("q");
        for is_weight in [false, true] {
            let mut b = Builder::new("g");
            let q = if is_weight {
                b.weight("q", ty.clone(), Data::owned(bytes.clone()))
            } else {
                b.input("q", ty.dtype, &ty.shape)
            };
            let [s, z] = case.constants(&mut b);
            let back = b.node("DequantizeLinear", "back", &[q, s, z], &case.attributes).unwrap();
            // A weight's numbers alone would be no computation.
            let y = if is_weight { b.input("x", DType::Float32, &ty.shape) } else { back };
            let y = if is_weight { b.node("Mul", "mul", &[back, y], &[]).unwrap() } else { y };
            b.output("y", y);
            let ones = Tensor::f32s(ty.shape.clone(), &vec![1.0; case.tensors["q"].bytes.len() / 4]);
            let fed = if is_weight { ones } else { Tensor { ty: ty.clone(), bytes: bytes.clone() } };
            case.check("numbers", b, Some(fed), std::slice::from_ref(&case.tensors["back"].bytes));
        }
    }
}
