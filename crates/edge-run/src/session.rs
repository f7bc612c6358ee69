//! One graph on tract.

use std::sync::Arc;

use edge_ir::encoding::{pack, unpack};
use edge_ir::{Checked, DType, Data, Executor, Graph, Ports, Tensor, TensorType, ValueId};
use rayon::prelude::*;
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
    ports: Ports,
    watch: Option<Watch>,
    recorder: Option<Recorder>,
    plan: Arc<TypedRunnableModel>,
}

/// Hears the watched values of each run, in the order in which they were named.
pub type Watcher = Box<dyn FnMut(Vec<Tensor>)>;

/// Hears the inputs and outputs of each run, in the graph's order.
struct Recorder(Box<Hear>);

/// Takes a run's inputs and outputs.
type Hear = dyn FnMut(&[Tensor], &[Tensor]);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

struct Watch {
    /// Types of the outputs that follow the graph's own.
    types: Vec<TensorType>,
    /// Which of all outputs are watched.
    places: Vec<usize>,
    watcher: Watcher,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("types", &self.types).finish_non_exhaustive()
    }
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
        let observed = observe::insert(Graph::clone(graph), &wanted, to.takes_parts())?.into_inner();
        Self::prepare(graph, observed, Some(&Shown(Arc::clone(to))))
    }

    /// Runs `changed` in the place of `graph`.
    fn prepare(graph: &Checked<Graph>, changed: Graph, shown: Option<&Shown>) -> Result<Self, Error> {
        let fused = fuse::fuse(changed)?;
        let plan = plan(fused, shown).map_err(|e| Error::Tract {
            action: "load",
            graph: graph.name.clone(),
            reason: format!("{e:#}"),
        })?;
        Ok(Self { ports: Ports::of(graph), watch: None, recorder: None, plan })
    }

    /// The same, and lets `watcher` hear these values after each run. They are outputs of nodes. Operators around them are
    /// not fused, so that numbers may differ in rounding.
    ///
    /// # Errors
    /// If tract does not take the graph, or a value is no node's output.
    pub fn load_watched(graph: &Checked<Graph>, values: &[ValueId], watcher: Watcher) -> Result<Self, Error> {
        let mut watched = Graph::clone(graph);
        let mut places = Vec::new();
        for id in values {
            let there = watched.outputs.iter().position(|output| output == id);
            places.push(there.unwrap_or(watched.outputs.len()));
            if there.is_none() {
                watched.outputs.push(*id);
            }
        }
        let own = graph.outputs.len();
        let types = watched.outputs[own..].iter().map(|id| graph.ty(*id).clone()).collect();
        let mut session = Self::load(&watched.check()?)?;
        session.ports.outputs.truncate(own);
        session.watch = Some(Watch { types, places, watcher });
        Ok(session)
    }

    /// Lets `recorder` hear the inputs and outputs of each run from now on.
    pub fn record(&mut self, recorder: impl FnMut(&[Tensor], &[Tensor]) + 'static) {
        self.recorder = Some(Recorder(Box::new(recorder)));
    }

    /// The graph as it is loaded, for other sessions.
    pub fn loaded(&self) -> Loaded {
        Loaded { ports: self.ports.clone(), plan: Arc::clone(&self.plan) }
    }

    fn eval(&self, inputs: &[Tensor]) -> TractResult<Vec<Tensor>> {
        let values = inputs
            .iter()
            .map(|t| Ok(to_value(&t.ty, &Data::owned(t.bytes.clone()))?.into_tvalue()))
            .collect::<TractResult<TVec<_>>>()?;
        let results = self.plan.run(values)?;
        let watched = self.watch.iter().flat_map(|watch| &watch.types);
        let types = self.ports.outputs.iter().map(|(_, ty)| ty).chain(watched);
        results.into_iter().zip(types).map(|(value, ty)| from_value(&value, ty)).collect()
    }
}

/// A loaded graph that several sessions run, also at the same time. Nobody watches or records what they do.
#[derive(Clone, Debug)]
pub struct Loaded {
    ports: Ports,
    plan: Arc<TypedRunnableModel>,
}

impl Loaded {
    /// A session of its own, without loading anything again.
    pub fn session(&self) -> Session {
        let Self { ports, plan } = self.clone();
        Session { ports, watch: None, recorder: None, plan }
    }
}

impl Executor for Session {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Box<dyn std::error::Error + Send + Sync>> {
        self.ports.check(inputs)?;
        let fail = |e: tract_onnx::prelude::TractError| match e.downcast::<Error>() {
            Ok(own) => own,
            Err(e) => Error::Tract { action: "run", graph: self.ports.graph.clone(), reason: format!("{e:#}") },
        };
        let mut outputs = self.eval(inputs).map_err(fail)?;
        if let Some(watch) = &mut self.watch {
            (watch.watcher)(watch.places.iter().map(|place| outputs[*place].clone()).collect());
        }
        outputs.truncate(self.ports.outputs.len());
        if let Some(Recorder(hear)) = &mut self.recorder {
            hear(inputs, &outputs);
        }
        Ok(outputs)
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
    let bytes = edge_ir::onnx::encode_inline(&graph.check()?, OPSET)?;
    let mut onnx = tract_onnx::onnx();
    ops::register(&mut onnx);
    let proto = onnx.proto_model_for_read(&mut bytes.as_slice())?;
    let mut model: InferenceModel = onnx.parse(&proto, None)?.model;
    if let Some(shown) = shown {
        ops::observe::attach(&mut model, shown);
    }
    let sources = model.inputs.split_off(real_inputs);
    // Most of the time goes to the system, which gives memory page by page: it does so for several threads at once.
    let values = weights.par_iter().map(|(ty, data)| to_value(ty, data)).collect::<TractResult<Vec<_>>>()?;
    for (outlet, value) in sources.into_iter().zip_eq(values) {
        let value = Arc::new(value);
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
        DType::Int16 => DatumType::I16,
        DType::Uint16 => DatumType::U16,
        DType::Int8 | DType::Int4 => DatumType::I8,
        DType::Uint8 | DType::Uint4 => DatumType::U8,
        DType::Bool => DatumType::Bool,
        other => return Err(tract_onnx::prelude::TractError::msg(format!("a tensor of {other} cannot be run"))),
    };
    let data = &unpacked(ty, data);
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

/// Integers of 4 bits in bytes of their own.
fn unpacked(ty: &TensorType, data: &Data) -> Data {
    let held = fuse::held(ty.dtype);
    if held == ty.dtype {
        return data.clone();
    }
    let mut bytes = Vec::new();
    pack(&unpack(&data.bytes(), ty.dtype, usize::try_from(ty.elements()).unwrap_or(0)), held, &mut bytes);
    Data::owned(bytes)
}

fn from_value(value: &Value, ty: &TensorType) -> TractResult<Tensor> {
    let plain = value.try_as_plain_ram()?;
    let mut bytes = plain.as_bytes().to_vec();
    let held = fuse::held(ty.dtype);
    if held != ty.dtype {
        let integers = unpack(&bytes, held, bytes.len());
        bytes.clear();
        pack(&integers, ty.dtype, &mut bytes);
    }
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
