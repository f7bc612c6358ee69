//! The frame that all operators of this module share: what tract asks of an operator, answered from
//! a kernel's output shape and its evaluation.

use std::fmt::Debug;

use tract_onnx::tract_hir::internal::*;

use crate::kernels::elementwise::{Activation, activate};

/// What makes an operator.
pub(super) trait Kernel: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The operator type in a graph.
    const NAME: &'static str;

    /// Fewest and most inputs.
    const INPUTS: (usize, usize);

    /// The output's shape from those of the inputs; an error where they do not fit one another.
    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>>;

    /// The output; `inputs` have shapes that [`Kernel::shape`] accepts.
    fn run(&self, inputs: TVec<TValue>) -> TractResult<Tensor>;
}

/// A kernel as an operator of tract.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operator<K>(pub(super) K);

/// Equality is that of the attributes, none of which is ever NaN.
impl<K: Kernel> Eq for Operator<K> {}

/// What a builder returns for a kernel.
pub(super) type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// The kernel as tract's reader wants it.
#[expect(clippy::unnecessary_wraps, reason = "the end of functions that can fail")]
pub(super) fn built<K: Kernel>(kernel: K) -> Built {
    Ok((expand(Operator(kernel)), vec![]))
}

/// The numbers of an input.
pub(super) fn numbers(value: &TValue) -> TractResult<&[f32]> {
    value.try_as_plain_ram()?.as_slice::<f32>()
}

/// A tensor of this shape, filled by `fill`.
pub(super) fn filled<E: std::error::Error + Send + Sync + 'static>(
    shape: &[usize],
    fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
) -> TractResult<Tensor> {
    let mut tensor = Tensor::zero::<f32>(shape)?;
    fill(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?)?;
    Ok(tensor)
}

/// The first input after an activation, in its own memory where nothing else needs it.
pub(super) fn activated(activation: Activation, mut inputs: TVec<TValue>) -> TractResult<Tensor> {
    let mut tensor = inputs.remove(0).into_tensor();
    activate(activation, tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
    Ok(tensor)
}

impl<K: Kernel> Operator<K> {
    /// The output's shape, from shapes that must be numbers.
    fn output<'s>(&self, shapes: impl Iterator<Item = &'s [TDim]>) -> TractResult<TVec<usize>> {
        let known = |dims: &[TDim]| dims.iter().map(TDim::to_usize).collect::<Result<TVec<usize>, _>>();
        let shapes = shapes.map(known).collect::<Result<Vec<_>, _>>()?;
        let (least, most) = K::INPUTS;
        ensure!(
            (least..=most).contains(&shapes.len()),
            "`{}`: expected {least} to {most} inputs, got {}",
            K::NAME,
            shapes.len()
        );
        let shapes: Vec<&[usize]> = shapes.iter().map(|shape| &shape[..]).collect();
        self.0.shape(&shapes).with_context(|| format!("`{}` with inputs {shapes:?}", K::NAME))
    }
}

impl<K: Kernel> Expansion for Operator<K> {
    fn name(&self) -> StaticName {
        K::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        for input in inputs {
            solver.equals(&input.datum_type, f32::datum_type())?;
        }
        solver.given_all(inputs.iter().map(|input| &input.shape), move |solver, shapes| {
            let output = self.output(shapes.iter().map(|shape| &shape[..]))?;
            let output: TVec<TDim> = output.into_iter().map(TDim::from).collect();
            solver.equals(&outputs[0].shape, output)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl<K: Kernel> Op for Operator<K> {
    fn name(&self) -> StaticName {
        K::NAME.into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{:?}", self.0)])
    }

    op_as_typed_op!();
}

impl<K: Kernel> EvalOp for Operator<K> {
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.0.run(inputs)?.into_tvalue()))
    }

    op_out_of_plan!();
}

impl<K: Kernel> TypedOp for Operator<K> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        for fact in inputs {
            let found = fact.datum_type;
            ensure!(found == f32::datum_type(), "`{}`: expected F32, got {found:?}", K::NAME);
        }
        let shape = self.output(inputs.iter().map(|fact| &*fact.shape))?;
        Ok(tvec!(f32::fact(&*shape)))
    }

    as_op!();
}
