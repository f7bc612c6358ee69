//! Every lowering alone, and all lowerings of every built-in target together, on every network of the committed
//! checkpoints: the rewritten graph gives what the first gave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use edge_import::{Options, import};
use edge_ir::{Checked, DType, Executor, Graph, Tensor, TensorType};
use edge_passes::lower::{LOWERINGS, passes, unsupported};
use edge_passes::{CommonSubexpressions, Driver, FoldConstants, Pass, SimplifyMoves};
use edge_run::Session;
use edge_spec::Target;

/// Relative L2 error of an exact lowering: sums in another order.
const EXACT: f64 = 1e-5;
/// Of GELU by `tanh`, whose values are off by 4.8e-4 at most where they are about 1.
const GELU_TANH: f64 = 1e-3;
/// Of GELU by the logistic function, off by 2.1e-2 at most.
const GELU_SIGMOID: f64 = 5e-2;

/// A network, inputs for it, and what it gives.
struct Case {
    graph: Checked<Graph>,
    inputs: Vec<Tensor>,
    expected: Vec<f32>,
}

fn cases(fixture: &str, options: Options) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let model = import(&root.join("tests/fixtures").join(fixture), None, options).expect("a checkpoint").model;
    let case = |graph: Checked<Graph>| {
        let inputs: Vec<Tensor> = graph.inputs.iter().map(|id| input(graph.ty(*id))).collect();
        let expected = run(&graph, &inputs);
        Case { graph, inputs, expected }
    };
    model.components.into_values().map(case).collect()
}

/// Numbers in -1..1, or small indices, in no order.
fn input(ty: &TensorType) -> Tensor {
    let count: u32 = ty.shape.iter().product::<usize>().try_into().unwrap();
    let mixed = (1..=count).map(|i| i.wrapping_mul(2_654_435_761) >> 16);
    if ty.dtype == DType::Float32 {
        let number = |v: u32| f32::from(u16::try_from(v).unwrap()) / 32768.0 - 1.0;
        return Tensor::f32s(ty.shape.clone(), &mixed.map(number).collect::<Vec<_>>());
    }
    Tensor::indices(ty, &mixed.map(|v| i64::from(v % 500)).collect::<Vec<_>>())
}

fn run(graph: &Checked<Graph>, inputs: &[Tensor]) -> Vec<f32> {
    let inputs: Vec<Tensor> = graph
        .inputs
        .iter()
        .zip(inputs)
        .map(|(id, tensor)| match graph.ty(*id).dtype {
            DType::Int32 => Tensor::indices(graph.ty(*id), &indices(tensor)),
            _ => tensor.clone(),
        })
        .collect();
    Session::load(graph).expect("tract takes it").run(&inputs).expect("it runs")[0].to_f32s()
}

fn indices(tensor: &Tensor) -> Vec<i64> {
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

fn relative_l2(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let wide = |v: &f32| f64::from(*v);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| (wide(a) - wide(b)).powi(2)).sum();
    (difference / expected.iter().map(|v| wide(v).powi(2)).sum::<f64>()).sqrt()
}

/// Runs the passes on every network and compares; gives how often each pass rewrote something.
fn check(cases: &[Case], what: &str, passes: &[Box<dyn Pass>], after: impl Fn(&Graph)) -> Vec<(&'static str, usize)> {
    let bound = |pass: &dyn Pass| match pass.name() {
        "gelu-as-tanh" => GELU_TANH,
        "gelu-as-sigmoid" => GELU_SIGMOID,
        _ => EXACT,
    };
    let mut driver = Driver::default();
    for case in cases {
        let graph = driver.run(passes, case.graph.clone()).expect("passes");
        after(&graph);
        let rewrote = |pass: &str| driver.runs.iter().any(|run| run.graph == graph.name && run.pass == pass);
        let tolerance = passes.iter().filter(|p| rewrote(p.name())).map(|p| bound(p.as_ref())).fold(0.0, f64::max);
        let error = relative_l2(&run(&graph, &case.inputs), &case.expected);
        assert!(error <= tolerance, "{what}, {}: relative error {error:e}, expected {tolerance:e}", graph.name);
    }
    passes.iter().map(|pass| (pass.name(), driver.rewrites(pass.name()))).collect()
}

/// What every target's passes end in.
fn clearing_up() -> Vec<Box<dyn Pass>> {
    vec![Box::new(SimplifyMoves), Box::new(FoldConstants), Box::new(CommonSubexpressions)]
}

fn every_lowering_alone(cases: &[Case]) {
    for lowering in LOWERINGS {
        // Chunks that the small networks fill.
        let option = lowering.option.replace("1024", "48");
        let text = format!(
            "schema: target/v1\nname: t\nabout: a\ngraph:\n  opset: 21\n  max_rank: 4\n  {option}\nops: [Conv]\n"
        );
        let form = Target::parse(&text, "t").expect("a target").graph;
        let mut alone = vec![(lowering.pass)(&form).expect("its pass")];
        alone.extend(clearing_up());
        let done = check(cases, &option, &alone, |_| ());
        assert!(done[0].1 > 0, "{option} rewrote nothing");
    }
}

fn every_target(cases: &[Case]) {
    for name in Target::names() {
        let target = Target::find(&name).expect("a target");
        check(cases, &name, &passes(&target.graph), |graph| {
            assert_eq!(unsupported(graph, &target), [], "{name}, {}", graph.name);
        });
    }
}

/// A batch of two, and an image whose sides differ and have remainders on the way down.
const WIDE: Options = Options {
    height: Some(48),
    width: Some(80),
    batch: Some(2),
    unet_batch: None,
    timestep: edge_import::TimestepShape::PerImage,
    weights: edge_import::WeightType::Stored,
};

macro_rules! on_every_fixture {
    ($($fixture:ident),*) => {
        $(mod $fixture {
            use super::*;

            #[test]
            fn alone() {
                every_lowering_alone(&cases(stringify!($fixture), Options::default()));
            }

            #[test]
            fn together() {
                every_target(&cases(stringify!($fixture), Options::default()));
            }

            #[test]
            fn wide() {
                every_target(&cases(stringify!($fixture), WIDE));
            }
        })*
    };
}

on_every_fixture!(edgefusion, sd15, sd2);
