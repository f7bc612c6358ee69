//! What the tests of lowerings share: small graphs in the importer's forms, run before and after on tract.

use edge_ir::{Attribute, Builder, Checked, DType, Data, Executor, Graph, Tensor, TensorType, ValueId, stats};
use edge_run::Session;

use super::tool;
use crate::{Driver, FoldConstants, Pass, SimplifyMoves};

/// Numbers in -1..1 that look random and are the same everywhere.
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let top = u16::try_from(state >> 48).unwrap_or(0);
        f32::from(top) / 32768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A weight of such numbers.
pub(super) fn weight(b: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    let seed = name.bytes().map(u64::from).sum();
    let data = Data::f32s(&numbers(seed, shape.iter().product()));
    b.weight(name, TensorType::new(DType::Float32, shape), data)
}

/// A linear layer.
pub(super) fn linear(b: &mut Builder, name: &str, x: ValueId, out: usize) -> ValueId {
    let channels = b.shape(x)[1];
    let w = weight(b, &format!("{name}.weight"), &[out, channels]);
    let bias = weight(b, &format!("{name}.bias"), &[out]);
    b.node("Gemm", name, &[x, w, bias], &[("transB", Attribute::Int(1))]).expect("a layer")
}

/// A convolution that keeps the size.
pub(super) fn conv(b: &mut Builder, name: &str, x: ValueId, out: usize, kernel: usize) -> ValueId {
    let channels = b.shape(x)[1];
    let w = weight(b, &format!("{name}.weight"), &[out, channels, kernel, kernel]);
    let bias = weight(b, &format!("{name}.bias"), &[out]);
    let ints = |v: usize, n| Attribute::Ints(vec![tool::signed(&[v])[0]; n]);
    let attributes = [("kernel_shape", ints(kernel, 2)), ("strides", ints(1, 2)), ("pads", ints(kernel / 2, 4))];
    b.node("Conv", name, &[x, w, bias], &attributes).expect("a convolution")
}

/// A group norm in the importer's form.
pub(super) fn group_norm(b: &mut Builder, name: &str, x: ValueId, groups: usize) -> ValueId {
    let shape = b.shape(x).to_vec();
    let (one, zero) =
        (b.floats("ones", &[groups], &vec![1.0; groups]), b.floats("zeros", &[groups], &vec![0.0; groups]));
    let step = |step: &str| format!("{name}/{step}");
    let split = [shape[0], groups, shape[1] / groups, shape[2] * shape[3]];
    let grouped = tool::reshape(b, &step("Reshape"), x, &split).expect("groups");
    let epsilon = [("epsilon", Attribute::Float(1e-5))];
    let normal = b.node("InstanceNormalization", &step("Norm"), &[grouped, one, zero], &epsilon).expect("a norm");
    let image = tool::reshape(b, &step("Reshape.back"), normal, &shape).expect("an image");
    let gain = weight(b, &format!("{name}.weight"), &[1, shape[1], 1, 1]);
    let shift = weight(b, &format!("{name}.bias"), &[1, shape[1], 1, 1]);
    let scaled = b.node("Mul", &step("Mul"), &[image, gain], &[]).expect("scaled");
    b.node("Add", &step("Add"), &[scaled, shift], &[]).expect("shifted")
}

/// A layer norm of rows.
pub(super) fn layer_norm(b: &mut Builder, name: &str, x: ValueId) -> ValueId {
    let channels = b.shape(x)[1];
    let (w, bias) =
        (weight(b, &format!("{name}.weight"), &[channels]), weight(b, &format!("{name}.bias"), &[channels]));
    b.node("LayerNormalization", name, &[x, w, bias], &[("axis", Attribute::Int(-1))]).expect("a norm")
}

/// The exact GELU in the importer's form.
pub(super) fn gelu(b: &mut Builder, name: &str, x: ValueId) -> ValueId {
    let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|n| tool::scalar(b, n));
    let mut step =
        |op: &str, inputs: &[ValueId], step: &str| b.node(op, &format!("{name}/{step}"), inputs, &[]).expect("a step");
    let scaled = step("Div", &[x, root], "Div");
    let erf = step("Erf", &[scaled], "Erf");
    let sum = step("Add", &[erf, one], "Add");
    let product = step("Mul", &[x, sum], "Mul");
    step("Mul", &[product, half], "Mul.half")
}

/// Attention of `[batch*s,c]` to `[batch*t,c']`, in the importer's form.
pub(super) fn attention(
    b: &mut Builder,
    name: &str,
    [x, context]: [ValueId; 2],
    batch: usize,
    heads: usize,
    mask: Option<ValueId>,
) -> ValueId {
    let channels = b.shape(x)[1];
    let mut project = |part: &str, from: ValueId, perm: [usize; 4]| {
        let rows = linear(b, &format!("{name}.to_{part}"), from, channels);
        let split = [batch, b.shape(rows)[0] / batch, heads, channels / heads];
        let split = tool::reshape(b, &format!("{name}.to_{part}/Reshape"), rows, &split).expect("heads");
        tool::transpose(b, &format!("{name}.to_{part}/Transpose"), split, &perm).expect("heads")
    };
    let q = project("q", x, [0, 2, 1, 3]);
    let (k, v) = (project("k", context, [0, 2, 3, 1]), project("v", context, [0, 2, 1, 3]));
    let scale = tool::scalar(b, 0.25);
    let mut step = |op: &str, inputs: &[ValueId], step: &str, attributes: &[(&'static str, Attribute)]| {
        b.node(op, &format!("{name}/{step}"), inputs, attributes).expect("a step")
    };
    let q = step("Mul", &[q, scale], "Mul.scale", &[]);
    let mut scores = step("MatMul", &[q, k], "MatMul.scores", &[]);
    if let Some(mask) = mask {
        scores = step("Add", &[scores, mask], "Add.mask", &[]);
    }
    let shares = step("Softmax", &[scores], "Softmax", &[("axis", Attribute::Int(-1))]);
    let mixed = step("MatMul", &[shares, v], "MatMul.values", &[]);
    let rows = b.shape(x)[0];
    let joined = tool::transpose(b, &format!("{name}/Transpose"), mixed, &[0, 2, 1, 3]).expect("rows");
    let joined = tool::reshape(b, &format!("{name}/Reshape"), joined, &[rows, channels]).expect("rows");
    linear(b, &format!("{name}.to_out.0"), joined, channels)
}

/// Pixels as rows, and back.
pub(super) fn rows_of(b: &mut Builder, name: &str, x: ValueId) -> ValueId {
    let [n, c, h, w] = b.shape(x)[..] else { panic!("not an image") };
    let x = tool::transpose(b, &format!("{name}/ToRows.Transpose"), x, &[0, 2, 3, 1]).expect("rows");
    tool::reshape(b, &format!("{name}/ToRows.Reshape"), x, &[n * h * w, c]).expect("rows")
}

/// Rows as pixels.
pub(super) fn image_of(b: &mut Builder, name: &str, x: ValueId, [n, h, w]: [usize; 3]) -> ValueId {
    let c = b.shape(x)[1];
    let x = tool::reshape(b, &format!("{name}/ToImage.Reshape"), x, &[n, h, w, c]).expect("an image");
    tool::transpose(b, &format!("{name}/ToImage.Transpose"), x, &[0, 3, 1, 2]).expect("an image")
}

/// How far a rewritten graph may be from the first: sums in another order.
pub(super) const EXACT: f64 = 1e-5;

/// Builds a graph of one output, runs the pass on it, and compares what both give for the same input. `operators` are
/// some of the operators afterwards, with their numbers. Returns the rewritten graph.
#[track_caller]
pub(super) fn check(
    build: impl FnOnce(&mut Builder) -> ValueId,
    pass: impl Pass + 'static,
    tolerance: f64,
    operators: &[(&str, usize)],
) -> Checked<Graph> {
    let mut b = Builder::new("g");
    let out = build(&mut b);
    b.output("out", out);
    let before = b.finish().expect("a graph");
    let passes: Vec<Box<dyn Pass>> = vec![Box::new(pass), Box::new(SimplifyMoves), Box::new(FoldConstants)];
    let mut driver = Driver::default();
    let after = driver.run(&passes, before.clone()).expect("passes");
    assert!(driver.rewrites(passes[0].name()) > 0, "the pass did nothing");
    let found = stats(&after).operators;
    for (op, count) in operators {
        assert_eq!(found.get(op).copied().unwrap_or(0), *count, "{op}\n{}", edge_ir::dump(&after));
    }
    let input = |(index, id): (usize, &ValueId)| {
        let ty = before.ty(*id);
        Tensor::f32s(ty.shape.clone(), &numbers(index as u64 + 7, ty.shape.iter().product()))
    };
    let inputs: Vec<Tensor> = before.inputs.iter().enumerate().map(input).collect();
    let run = |graph: &Checked<Graph>| {
        let outputs = Session::load(graph).expect("tract takes it").run(&inputs).expect("it runs");
        assert_eq!(graph.value(graph.outputs[0]).name, "out");
        outputs[0].to_f32s()
    };
    let error = relative_l2(&run(&after), &run(&before));
    assert!(error <= tolerance, "relative error {error:e}, expected {tolerance:e} at most");
    after
}

fn relative_l2(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let sum = |terms: &mut dyn Iterator<Item = f64>| terms.map(|v| v * v).sum::<f64>();
    let wide = |v: &f32| f64::from(*v);
    let difference = sum(&mut found.iter().zip(expected).map(|(a, b)| wide(a) - wide(b)));
    (difference / sum(&mut expected.iter().map(wide))).sqrt()
}
