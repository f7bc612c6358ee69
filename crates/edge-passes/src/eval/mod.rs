//! What an operator gives for constants. Functions of one number and sums of products are computed in `float64` and
//! rounded once, so that a result is the exact one but for its last bit, on every machine.

mod elementwise;
mod linear;
mod movement;

use edge_ir::{DType, Data, Node, TensorType};

/// A tensor whose content is known.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Type and shape.
    pub ty: TensorType,
    /// Content; a view, which is read only if the operator needs its numbers.
    pub data: Data,
}

impl Constant {
    /// A tensor of `float32` numbers.
    pub fn f32s(shape: impl Into<Vec<usize>>, numbers: &[f32]) -> Self {
        Self { ty: TensorType::new(DType::Float32, shape), data: Data::f32s(numbers) }
    }
}

/// The outputs of a node from its inputs, or `None` for an operator or a type that is not in the table.
type Evaluate = fn(&Node, &[Constant], &[TensorType]) -> Option<Vec<Constant>>;

/// All operators that are evaluated.
const OPERATORS: &[(&str, Evaluate)] = &[
    ("Add", |_, i, o| elementwise::binary(i, o, |a, b| a + b, i64::checked_add)),
    ("Sub", |_, i, o| elementwise::binary(i, o, |a, b| a - b, i64::checked_sub)),
    ("Mul", |_, i, o| elementwise::binary(i, o, |a, b| a * b, i64::checked_mul)),
    ("Div", |_, i, o| elementwise::binary(i, o, |a, b| a / b, |_, _| None)),
    ("Cos", |_, i, _| elementwise::unary(i, libm::cos)),
    ("Erf", |_, i, _| elementwise::unary(i, libm::erf)),
    ("Exp", |_, i, _| elementwise::unary(i, libm::exp)),
    ("Neg", |_, i, _| elementwise::unary(i, |x| -x)),
    ("Relu", |_, i, _| elementwise::unary(i, |x| x.max(0.0))),
    ("Sigmoid", |_, i, _| elementwise::unary(i, |x| 1.0 / (1.0 + libm::exp(-x)))),
    ("Sin", |_, i, _| elementwise::unary(i, libm::sin)),
    ("Sqrt", |_, i, _| elementwise::unary(i, libm::sqrt)),
    ("Tanh", |_, i, _| elementwise::unary(i, libm::tanh)),
    ("Cast", |_, i, o| elementwise::cast(i, o)),
    ("Gemm", linear::gemm),
    ("MatMul", |_, i, o| linear::matmul(i, o)),
    ("Concat", movement::concat),
    ("Gather", movement::gather),
    ("Reshape", |_, i, o| movement::reshape(i, o)),
    ("Slice", |_, i, o| movement::slice(i, o)),
    ("Split", movement::split),
    ("Transpose", movement::transpose),
];

/// What the node's outputs, of these types, hold; `None` if an operator or type is not known here.
pub fn evaluate(node: &Node, inputs: &[Constant], outputs: &[TensorType]) -> Option<Vec<Constant>> {
    let (_, evaluate) = OPERATORS.iter().find(|(name, _)| *name == node.op.name && node.op.domain.is_empty())?;
    evaluate(node, inputs, outputs)
}

/// An axis attribute as an index.
fn axis(node: &Node, default: i64, rank: usize) -> Option<usize> {
    let value = node.int("axis", default);
    let signed = i64::try_from(rank).ok()?;
    usize::try_from(if value < 0 { value + signed } else { value }).ok().filter(|a| *a < rank)
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder};

    use super::*;

    /// Builds a node on constants and evaluates it.
    fn check(op: &str, inputs: &[Constant], attributes: &[(&'static str, Attribute)], expect: &[&[f32]]) {
        let mut b = Builder::new("g");
        let ids = inputs.iter().map(|c| Some(b.weight("c", c.ty.clone(), c.data.clone()))).collect();
        let outputs = b.nodes(op, "node", ids, attributes).expect("a node");
        for id in &outputs {
            b.output("y", *id);
        }
        let graph = b.finish().expect("a graph");
        let types: Vec<_> = graph.outputs.iter().map(|id| graph.ty(*id).clone()).collect();
        let found = evaluate(&graph.nodes[0], inputs, &types).expect("a result");
        for ((found, ty), expect) in found.iter().zip(&types).zip(expect) {
            assert_eq!(found.ty, *ty, "{op}");
            assert_eq!(found.data.to_f32s(), *expect, "{op}");
        }
        assert_eq!(found.len(), expect.len());
    }

    fn ints(numbers: &[i64]) -> Constant {
        Constant { ty: TensorType::new(DType::Int64, [numbers.len()]), data: Data::i64s(numbers) }
    }

    #[test]
    fn arithmetic() {
        let (a, b) = (Constant::f32s([2, 2], &[1.0, 2.0, 3.0, 4.0]), Constant::f32s([2], &[10.0, 20.0]));
        check("Add", &[a.clone(), b.clone()], &[], &[&[11.0, 22.0, 13.0, 24.0]]);
        check("Sub", &[b.clone(), a.clone()], &[], &[&[9.0, 18.0, 7.0, 16.0]]);
        check("Mul", &[a.clone(), Constant::f32s([2, 1], &[2.0, 3.0])], &[], &[&[2.0, 4.0, 9.0, 12.0]]);
        check("Div", &[b, Constant::f32s([], &[4.0])], &[], &[&[2.5, 5.0]]);
        check("Sigmoid", &[Constant::f32s([1], &[0.0])], &[], &[&[0.5]]);
        check("Sin", &[Constant::f32s([1], &[7500.0])], &[], &[&[-0.851_235_9]]);
        let to = [("to", Attribute::Int(i64::from(DType::Float32.onnx())))];
        check("Cast", &[ints(&[999, -3])], &to, &[&[999.0, -3.0]]);
    }

    #[test]
    fn products() {
        let a = Constant::f32s([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let w = Constant::f32s([2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let transposed = [("transB", Attribute::Int(1)), ("alpha", Attribute::Float(2.0))];
        let bias = Constant::f32s([2], &[0.5, -1.0]);
        check("Gemm", &[a.clone(), w.clone(), bias], &transposed, &[&[2.5, 9.0, 8.5, 21.0]]);
        let square = Constant::f32s([3, 1], &[1.0, 1.0, 1.0]);
        check("MatMul", &[a.clone(), square.clone()], &[], &[&[6.0, 15.0]]);
        let batch = Constant::f32s([2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        check("MatMul", &[batch, square], &[], &[&[6.0, 15.0]]);
    }

    #[test]
    fn moves() {
        let a = Constant::f32s([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let perm = |p: &[i64]| [("perm", Attribute::Ints(p.to_vec()))];
        let axis = |a| [("axis", Attribute::Int(a))];
        check("Transpose", std::slice::from_ref(&a), &perm(&[1, 0]), &[&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]]);
        let cube = Constant::f32s([2, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        check("Transpose", &[cube], &perm(&[2, 1, 0]), &[&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]]);
        check(
            "Concat",
            &[a.clone(), Constant::f32s([2, 1], &[7.0, 8.0])],
            &axis(1),
            &[&[1.0, 2.0, 3.0, 7.0, 4.0, 5.0, 6.0, 8.0]],
        );
        check("Split", &[a.clone(), ints(&[1, 2])], &axis(-1), &[&[1.0, 4.0], &[2.0, 3.0, 5.0, 6.0]]);
        check("Slice", &[a.clone(), ints(&[0, 1]), ints(&[1, 3]), ints(&[0, 1])], &[], &[&[2.0, 3.0]]);
        check("Gather", &[a.clone(), ints(&[1, 0, -1])], &axis(0), &[&[4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
        check("Gather", &[a.clone(), ints(&[2])], &axis(1), &[&[3.0, 6.0]]);
        check("Reshape", &[a, ints(&[3, 2])], &[], &[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
    }
}
