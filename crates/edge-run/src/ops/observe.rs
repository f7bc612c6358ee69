//! `EdgeObserve`: hands its input on, and shows it to an observer. Attribute: `tensor`, the name to show it under.
//!
//! The reader makes the operator without observer; [`attach`] tells it whom to show to, since tract's builders are plain
//! functions. tract does not look through it: it has no axes to swap, and no value but in a run.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::attention::Attention;
use super::kernel::{Built, Operator, numbers};
use crate::Error;
use crate::observe::{Shown, TENSOR};

/// The operator.
#[derive(Debug, Clone, PartialEq)]
struct Observe {
    tensor: String,
    shown: Option<Shown>,
}

impl Eq for Observe {}

/// Reads a node.
pub(super) fn build(_context: &ParsingContext, node: &NodeProto) -> Built {
    let tensor: String = node.get_attr(TENSOR)?;
    Ok((expand(Observe { tensor, shown: None }), vec![]))
}

/// Has the operators of a graph show what they see.
pub(crate) fn attach(model: &mut InferenceModel, shown: &Shown) {
    for node in &mut model.nodes {
        let Some(expansion) = node.op_as_mut::<Box<dyn Expansion>>().map(|op| op.as_any_mut()) else { continue };
        if let Some(observe) = expansion.downcast_mut::<Observe>() {
            observe.shown = Some(shown.clone());
        } else if let Some(Operator(attention)) = expansion.downcast_mut::<Operator<Attention>>() {
            attention.shown = Some(shown.clone());
        }
    }
}

impl Expansion for Observe {
    fn name(&self) -> StaticName {
        "EdgeObserve".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Observe {
    fn name(&self) -> StaticName {
        "EdgeObserve".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![self.tensor.clone()])
    }

    op_as_typed_op!();
}

impl EvalOp for Observe {
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        if let Some(Shown(to)) = &self.shown {
            to.see(&self.tensor, numbers(&inputs[0])?).map_err(Error::Observer)?;
        }
        Ok(inputs)
    }

    fn forwards_input(&self) -> Option<usize> {
        Some(0)
    }

    not_out_of_plan!();
}

impl TypedOp for Observe {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(&*inputs[0].shape)))
    }

    as_op!();
}
