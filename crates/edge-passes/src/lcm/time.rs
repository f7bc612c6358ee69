//! Everything that depends on the timestep and the guidance scale alone becomes constants: sinusoids, the embeddings'
//! layers, each ResNet's projection. No operator and no weight of them is left.
//!
//! The arithmetic is that of the graph, rounded to `float32` after every node, as diffusers rounds it: the network was
//! trained on these numbers (`known.rs`).

use std::collections::{BTreeMap, BTreeSet};

use edge_ir::{Attribute, Checked, DType, Data, Graph, Node, TensorType, Value, ValueId, ops};

use super::error::FoldError;
use super::known::{Known, first_row, numbers, owned};
use super::slice::{Slice, pruned, slice};
use crate::eval::Constant;

/// The inputs that a schedule knows.
const TIMESTEP: &str = "timestep";
/// The input that a guidance scale knows.
const CONDITION: &str = "timestep_cond";
/// The input that takes their place where one graph does for all steps.
pub(super) const STEP: &str = "step";

/// What is known of a step.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    /// The timestep.
    pub(super) timestep: usize,
    /// The guidance embedding of one image, unless it stays an input.
    pub(super) condition: Option<&'a [f32]>,
}

/// The graph at one moment. What is added to the output of a convolution goes into its bias.
pub(super) fn bake(graph: &Graph, moment: Moment<'_>) -> Result<Checked<Graph>, FoldError> {
    let (slice, constants) = constants(graph, moment)?;
    let mut graph = without(graph, &slice, moment);
    for (id, constant) in slice.frontier.iter().zip(constants) {
        graph.value_mut(*id).data = Some(owned(&constant));
    }
    into_biases(&mut graph, &slice.frontier);
    pruned(graph)
}

/// The graph at several moments: an input `step` `[1]` says which. What depends on it is gathered from tables.
pub(super) fn tabulate(graph: &Graph, moments: &[Moment<'_>]) -> Result<Checked<Graph>, FoldError> {
    let Some(first) = moments.first() else { return Err(FoldError::Request("there are no steps")) };
    let (slice, _) = constants(graph, *first)?;
    let rows = moments.iter().map(|m| constants(graph, *m).map(|(_, row)| row)).collect::<Result<Vec<_>, _>>()?;
    let mut graph = without(graph, &slice, *first);
    let step = graph.add_value(Value { name: STEP.into(), ty: TensorType::new(DType::Int64, [1]), data: None });
    graph.inputs.push(step);
    let mut gathers = Vec::new();
    for (place, id) in slice.frontier.iter().enumerate() {
        let images = rows.iter().map(|row| first_row(&row[place])).collect::<Option<Vec<_>>>();
        let images = images.ok_or_else(|| FoldError::Unknown { value: graph.value(*id).name.clone() })?;
        gathers.push(gather(&mut graph, *id, &images, step)?);
    }
    graph.nodes.splice(0..0, gathers);
    pruned(graph)
}

/// What depends on the moment alone, and the numbers that the rest of the graph reads of it.
fn constants(graph: &Graph, moment: Moment<'_>) -> Result<(Slice, Vec<Constant>), FoldError> {
    let slice = slice(graph, bound(moment));
    let mut inputs = BTreeMap::new();
    for id in &graph.inputs {
        let (name, ty) = (graph.value(*id).name.as_str(), graph.ty(*id).clone());
        let count: usize = ty.shape.iter().product();
        let data = match (name, moment.condition) {
            (TIMESTEP, _) => Data::i64s(&vec![i64::try_from(moment.timestep).unwrap_or(i64::MAX); count]),
            (CONDITION, Some(row)) => Data::f32s(&row.iter().copied().cycle().take(count).collect::<Vec<_>>()),
            _ => continue,
        };
        inputs.insert(*id, Constant { ty, data });
    }
    let mut known = Known::new(graph, inputs);
    let constants = slice.frontier.iter().map(|id| known.get(*id)).collect::<Result<_, _>>()?;
    Ok((slice, constants))
}

fn bound(moment: Moment<'_>) -> &'static [&'static str] {
    if moment.condition.is_some() { &[TIMESTEP, CONDITION] } else { &[TIMESTEP] }
}

/// A copy without the nodes of a slice and the inputs that it begins with.
fn without(graph: &Graph, slice: &Slice, moment: Moment<'_>) -> Graph {
    let mut rest = slice.cut(graph);
    rest.inputs.retain(|id| !bound(moment).contains(&graph.value(*id).name.as_str()));
    rest
}

/// Sums of a convolution's output and one constant number per channel become the convolution.
fn into_biases(graph: &mut Graph, constants: &[ValueId]) {
    let readers = graph.consumers();
    let mut gone = BTreeSet::new();
    for add in 0..graph.nodes.len() {
        let Some((conv, constant)) = sum(graph, add, constants) else { continue };
        let [made, sum] = [graph.nodes[conv].outputs[0], graph.nodes[add].outputs[0]];
        let Some(bias) = biased(graph, conv, constant).filter(|_| readers[graph.index_of(made)].len() == 1) else {
            continue;
        };
        // The sum takes the name of what it adds to, which is gone.
        let (image, ty) = (graph.value(made).name.clone(), TensorType::new(DType::Float32, [bias.len()]));
        let name = format!("{image}_bias");
        if !graph.outputs.contains(&sum) {
            graph.value_mut(sum).name = image;
        }
        let bias = graph.add_value(Value { name, ty, data: Some(Data::f32s(&bias)) });
        let node = &mut graph.nodes[conv];
        node.inputs.truncate(2);
        node.inputs.push(Some(bias));
        node.outputs = vec![sum];
        gone.insert(add);
    }
    let kept = std::mem::take(&mut graph.nodes).into_iter().enumerate().filter(|(index, _)| !gone.contains(index));
    graph.nodes = kept.map(|(_, node)| node).collect();
}

/// The convolution and the constant that node `index` adds, if it does so.
fn sum(graph: &Graph, index: usize, constants: &[ValueId]) -> Option<(usize, ValueId)> {
    let node = graph.nodes.get(index).filter(|n| n.op.name == "Add")?;
    let [a, b] = node.inputs[..] else { return None };
    let (image, constant) = if constants.contains(&b?) { (a?, b?) } else { (b?, a?) };
    let conv = graph.nodes.iter().position(|n| n.op.name == "Conv" && n.outputs.contains(&image))?;
    constants.contains(&constant).then_some((conv, constant))
}

/// A convolution's bias with the constant added, if the constant is one number per channel.
fn biased(graph: &Graph, conv: usize, constant: ValueId) -> Option<Vec<f32>> {
    let value = graph.value(constant);
    let channels = graph.ty(graph.nodes[conv].outputs[0]).shape[1];
    let row = first_row(&Constant { ty: value.ty.clone(), data: value.data.clone()? })?;
    if value.ty.shape[1..] != [channels, 1, 1] {
        return None;
    }
    let old = match graph.nodes[conv].inputs.get(2).copied().flatten() {
        Some(bias) => numbers(graph, bias)?,
        None => vec![0.0; channels],
    };
    Some(old.iter().zip(row).map(|(a, b)| a + b).collect())
}

/// A node that reads its row of a table in place of a value's former maker.
fn gather(graph: &mut Graph, id: ValueId, images: &[Vec<f32>], step: ValueId) -> Result<Node, FoldError> {
    let name = graph.value(id).name.clone();
    let mut shape = graph.ty(id).shape.clone();
    shape[0] = 1;
    graph.value_mut(id).ty = TensorType::new(DType::Float32, shape.clone());
    shape[0] = images.len();
    let data = Some(Data::f32s(&images.concat()));
    let table =
        graph.add_value(Value { name: format!("{name}_table"), ty: TensorType::new(DType::Float32, shape), data });
    let op = ops::find("", "Gather").ok_or(FoldError::Missing { what: "operator Gather".into() })?;
    Ok(Node {
        name: format!("{STEP}/{name}"),
        op,
        inputs: vec![Some(table), Some(step)],
        outputs: vec![id],
        attributes: BTreeMap::from([("axis", Attribute::Int(0))]),
    })
}
