//! Runs one operator inside a model, through the reader's frame and all of tract's passes.

use tract_onnx::tract_hir::internal::*;

use super::kernel::{Kernel, built};

/// A tensor: its shape and numbers.
type Numbers = (Vec<usize>, Vec<f32>);

/// The output of a kernel for a first input from outside and constants for the rest.
///
/// The optimized model must still have the operator as its only computation.
pub(super) fn run<K: Kernel>(kernel: K, inputs: &[Numbers]) -> Numbers {
    let tensor = |(shape, data): &Numbers| Tensor::from_shape(shape, data).unwrap();
    let mut model = InferenceModel::default();
    let mut outlets = vec![model.add_source("x", f32::fact(&inputs[0].0).into()).unwrap()];
    for (i, input) in inputs.iter().enumerate().skip(1) {
        outlets.push(model.add_const(format!("c{i}"), tensor(input)).unwrap());
    }
    let (operator, _) = built(kernel).unwrap();
    let y = model.wire_node("y", operator, &outlets).unwrap();
    model.select_output_outlets(&y).unwrap();
    let model = model.into_typed().unwrap().into_decluttered().unwrap().into_optimized().unwrap();
    let names: Vec<String> = model.nodes().iter().map(|node| node.op().name().into_owned()).collect();
    assert!(names.iter().any(|name| name == K::NAME), "{names:?}");
    assert!(names.iter().all(|name| name == K::NAME || name == "Source" || name == "Const"), "{names:?}");
    let expected = model.output_fact(0).unwrap().shape.as_concrete().unwrap().to_vec();
    let outputs = model.into_runnable().unwrap().run(tvec!(tensor(&inputs[0]).into_tvalue())).unwrap();
    let shape = outputs[0].shape().to_vec();
    assert_eq!(shape, expected);
    (shape, outputs[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec())
}
