//! One graph on tract.

use std::sync::Arc;

use edge_ir::{Checked, DType, Data, Executor, Graph, Tensor, TensorType, ValueId};
use tract_onnx::prelude::Tensor as Value;
use tract_onnx::prelude::tract_itertools::Itertools;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoTValue, TVec, TractResult,
    TypedRunnableModel,
};
use tract_onnx::tract_hir::internal::IntoRunnable;
use tract_onnx::tract_hir::ops::konst::Const;

use crate::observe::{self, Observer, Shown};
use crate::{Error, fuse, ops};

/// The opset under which graphs are handed to tract, which knows no newer one fully.
const OPSET: u32 = 18;

/// Float constants from this size on go around the ONNX parser, which would copy them twice.
const LARGE: u64 = 256;

/// Lets everything that runs later use this many threads at once.
///
/// # Errors
/// If threads were started already, or cannot be.
pub fn set_threads(threads: usize) -> Result<(), Error> {
    let fail = |reason: String| Error::Tract { action: "load", graph: "threads".into(), reason };
    ops::set_threads(threads).map_err(|e| fail(e.to_string()))
}

/// A graph that is loaded and can run any number of times.
#[derive(Debug)]
pub struct Session {
    graph: String,
    inputs: Vec<(String, TensorType)>,
    outputs: Vec<(String, TensorType)>,
    plan: Arc<TypedRunnableModel>,
}

impl Session {
    /// Replaces groups of operators, copies the weights, and lets tract optimize the rest.
    ///
    /// # Errors
    /// If tract does not take the graph.
    pub fn load(graph: &Checked<Graph>) -> Result<Self, Error> {
        Self::prepare(graph, Graph::clone(graph), None)
    }

    /// The same, and shows tensors to an observer in each run. What it sees is not fused into other operators, so that
    /// numbers may differ in rounding.
    ///
    /// # Errors
    /// If tract does not take the graph, or the observer does not.
    pub fn load_observed(graph: &Checked<Graph>, to: &Arc<dyn Observer>) -> Result<Self, Error> {
        let wanted = to.wanted(graph).map_err(Error::Observer)?;
        let observed = observe::insert(Graph::clone(graph), &wanted)?.into_inner();
        Self::prepare(graph, observed, Some(&Shown(Arc::clone(to))))
    }

    /// Runs `changed` in the place of `graph`.
    fn prepare(graph: &Checked<Graph>, changed: Graph, shown: Option<&Shown>) -> Result<Self, Error> {
        let ports =
            |ids: &[ValueId]| ids.iter().map(|id| (graph.value(*id).name.clone(), graph.ty(*id).clone())).collect();
        let (inputs, outputs) = (ports(&graph.inputs), ports(&graph.outputs));
        let name = graph.name.clone();
        let fused = fuse::fuse(changed)?;
        let plan = plan(fused, shown).map_err(|e| Error::Tract {
            action: "load",
            graph: name.clone(),
            reason: format!("{e:#}"),
        })?;
        Ok(Self { graph: name, inputs, outputs, plan })
    }

    /// Names and types of the inputs, in order.
    pub fn inputs(&self) -> &[(String, TensorType)] {
        &self.inputs
    }

    /// Names and types of the outputs, in order.
    pub fn outputs(&self) -> &[(String, TensorType)] {
        &self.outputs
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.graph
    }

    fn eval(&self, inputs: &[Tensor]) -> TractResult<Vec<Tensor>> {
        let values = inputs
            .iter()
            .map(|t| Ok(to_value(&t.ty, &Data::owned(t.bytes.clone()))?.into_tvalue()))
            .collect::<TractResult<TVec<_>>>()?;
        let results = self.plan.run(values)?;
        results.into_iter().zip(&self.outputs).map(|(value, (_, ty))| from_value(&value, ty)).collect()
    }
}

impl Executor for Session {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Box<dyn std::error::Error + Send + Sync>> {
        edge_ir::check_inputs(&self.inputs, inputs)?;
        let fail = |e: tract_onnx::prelude::TractError| match e.downcast::<Error>() {
            Ok(own) => own,
            Err(e) => Error::Tract { action: "run", graph: self.graph.clone(), reason: format!("{e:#}") },
        };
        Ok(self.eval(inputs).map_err(fail)?)
    }
}

/// The graph goes through ONNX bytes in which large weights are inputs; tract's constants then take their place.
fn plan(graph: Checked<Graph>, shown: Option<&Shown>) -> TractResult<Arc<TypedRunnableModel>> {
    let mut graph = graph.into_inner();
    let large: Vec<ValueId> = graph
        .initializers()
        .filter(|(_, v, d)| v.ty.dtype.is_float() && d.len() >= LARGE)
        .map(|(id, _, _)| id)
        .collect();
    let weights: Vec<(TensorType, Data)> = large
        .iter()
        .filter_map(|id| graph.value_mut(*id).data.take().map(|data| (graph.ty(*id).clone(), data)))
        .collect();
    let real_inputs = graph.inputs.len();
    graph.inputs.extend(&large);
    let tensors = observe::tensors(&graph);
    let bytes = edge_ir::onnx::encode_inline(&graph.check()?, OPSET)?;
    let mut onnx = tract_onnx::onnx();
    ops::register(&mut onnx);
    let proto = onnx.proto_model_for_read(&mut bytes.as_slice())?;
    let mut model: InferenceModel = onnx.parse(&proto, None)?.model;
    if let Some(shown) = shown {
        ops::observe::attach(&mut model, shown, &tensors);
    }
    let sources = model.inputs.split_off(real_inputs);
    for (outlet, (ty, data)) in sources.into_iter().zip_eq(weights) {
        let value = Arc::new(to_value(&ty, &data)?);
        let node = &mut model.nodes[outlet.node];
        node.outputs[0].fact = InferenceFact::try_from(&value)?;
        node.op = Box::new(Const::new(value)?);
    }
    model.into_optimized()?.into_runnable()
}

/// A tensor of tract's, filled chunk by chunk.
fn to_value(ty: &TensorType, data: &Data) -> TractResult<Value> {
    let dtype = match ty.dtype {
        DType::Float32 => DatumType::F32,
        DType::Int64 => DatumType::I64,
        DType::Int32 => DatumType::I32,
        DType::Bool => DatumType::Bool,
        other => return Err(tract_onnx::prelude::TractError::msg(format!("a tensor of {other} cannot be run"))),
    };
    let mut value = Value::zero_dt(dtype, &ty.shape)?;
    let mut plain = value.try_as_plain_ram_mut()?;
    let bytes = plain.as_bytes_mut();
    let mut at = 0;
    data.stream(&mut |chunk| {
        if let Some(place) = bytes.get_mut(at..at + chunk.len()) {
            place.copy_from_slice(chunk);
        }
        at += chunk.len();
        Ok(())
    })?;
    Ok(value)
}

fn from_value(value: &Value, ty: &TensorType) -> TractResult<Tensor> {
    let plain = value.try_as_plain_ram()?;
    let bytes = plain.as_bytes().to_vec();
    let fits = value.shape() == ty.shape && bytes.len() as u64 == ty.bytes();
    if !fits {
        return Err(tract_onnx::prelude::TractError::msg(format!(
            "expected {ty}, got {:?} {:?}",
            value.datum_type(),
            value.shape()
        )));
    }
    Ok(Tensor { ty: ty.clone(), bytes })
}
