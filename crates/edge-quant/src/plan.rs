//! Which tensors of a graph are quantized, and how: decided before anything is written.
//!
//! Tensors that operators only move belong together: they have one encoding, but for those of [`crate::joins`]. Where what
//! makes a tensor and what reads it want different integers, the reader's are made from the maker's by a conversion in
//! between.

use std::collections::BTreeMap;

use edge_ir::{DType, Encoding, Graph, Node, ValueId};
use rayon::prelude::*;

use crate::joins::{self, Apart, joined};
use crate::masks::masks;
use crate::rules::{Operand, Rule};
use crate::{Error, Range, Settings};

/// Says what values a tensor takes, by its name, for integers of a type.
pub type Ranges<'a> = &'a (dyn Fn(&str, DType) -> Option<Range> + Sync);

/// What is done to a graph.
pub(crate) struct Plan {
    /// For each node, the type of its activations; `None` if it stays in float.
    pub(crate) types: Vec<Option<DType>>,
    /// For each value, the set that it belongs to.
    sets: Vec<usize>,
    /// What is known of a set; sets that are not here stay in float.
    known: BTreeMap<usize, (DType, Range)>,
}

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// If nothing says what values a tensor takes.
    pub(crate) fn new(graph: &Graph, settings: &Settings, ranges: Ranges<'_>) -> Result<Self, Error> {
        let mut types: Vec<Option<DType>> = graph.nodes.iter().map(|n| activations(graph, n, settings)).collect();
        let joined = joined(graph);
        let mut apart = joined.clone();
        let sets_of_all = sets(graph, &types, &joined);
        let chosen_of_all = types_of_sets(graph, &types, &sets_of_all);
        let known = made(graph, (&types, &sets_of_all), &chosen_of_all, ranges);
        let ranges: Ranges<'_> =
            &|name, ty| known.get(&(name.to_owned(), ty)).copied().unwrap_or_else(|| ranges(name, ty));
        if !joined.is_empty() {
            let (sets, chosen) = (sets_of_all, chosen_of_all);
            let values = ranges_of_sets(graph, (&types, &sets), &chosen, ranges)?;
            apart = joins::apart(graph, &joined, &sets, &values);
        }
        let sets = sets(graph, &types, &apart);
        let chosen = types_of_sets(graph, &types, &sets);
        for (node, ty) in graph.nodes.iter().zip(&mut types).filter(|(n, _)| is_move(n)) {
            *ty = ty.and_then(|_| chosen.get(&sets[graph.index_of(node.outputs[0])]).copied());
        }
        let values = ranges_of_sets(graph, (&types, &sets), &chosen, ranges)?;
        let known = chosen.into_iter().filter_map(|(set, ty)| Some((set, (ty, *values.get(&set)?)))).collect();
        Ok(Self { types, sets, known })
    }

    /// The encoding that a tensor is made in; `None` if it stays in float.
    pub(crate) fn encoding(&self, graph: &Graph, id: ValueId) -> Option<Encoding> {
        let (dtype, range) = self.known.get(&self.sets[graph.index_of(id)])?;
        Some(range.encode(*dtype))
    }

    /// The encoding of this type that a reader wants a tensor in.
    pub(crate) fn converted(&self, graph: &Graph, id: ValueId, dtype: DType) -> Option<Encoding> {
        let (_, range) = self.known.get(&self.sets[graph.index_of(id)])?;
        Some(range.encode(dtype))
    }
}

pub(crate) fn is_move(node: &Node) -> bool {
    Rule::of(node).is_some_and(|rule| rule.moves)
}

/// The type of a node's activations, before those of moves follow from their sets.
fn activations(graph: &Graph, node: &Node, settings: &Settings) -> Option<DType> {
    let floats = node.outputs.iter().all(|id| graph.ty(*id).dtype == DType::Float32);
    settings.activations_of(graph, node).filter(|_| floats)
}

/// The first of the values that are joined with this one.
fn root(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

/// Joins what moves connect, but for inputs that are `apart`.
fn sets(graph: &Graph, types: &[Option<DType>], apart: &Apart) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..graph.values().count()).collect();
    for (at, (node, ty)) in graph.nodes.iter().zip(types).enumerate() {
        let Some(rule) = Rule::of(node).filter(|rule| rule.moves && ty.is_some()) else { continue };
        let is_moved = |i: &usize| rule.operand(graph, node, *i).is_some() && !apart.contains(&(at, *i));
        let operands = (0..node.inputs.len()).filter(is_moved);
        let read: Vec<ValueId> = operands.filter_map(|i| node.inputs[i]).collect();
        let first = graph.index_of(node.outputs[0]);
        for id in read.iter().chain(&node.outputs) {
            let (a, b) = (root(&mut parent, first), root(&mut parent, graph.index_of(*id)));
            parent[a.max(b)] = a.min(b);
        }
    }
    (0..parent.len()).map(|at| root(&mut parent, at)).collect()
}

/// The type of each set: the widest of those that make its tensors or, if none does, of those that read them.
fn types_of_sets(graph: &Graph, types: &[Option<DType>], sets: &[usize]) -> BTreeMap<usize, DType> {
    let mut made: BTreeMap<usize, DType> = BTreeMap::new();
    let mut read: BTreeMap<usize, DType> = BTreeMap::new();
    let note = |into: &mut BTreeMap<usize, DType>, id: ValueId, ty: DType| {
        let entry = into.entry(sets[graph.index_of(id)]).or_insert(ty);
        if ty.bytes(1) > entry.bytes(1) {
            *entry = ty;
        }
    };
    for (node, ty) in graph.nodes.iter().zip(types).filter(|(n, _)| !is_move(n)) {
        let (Some(ty), Some(rule)) = (ty, Rule::of(node)) else { continue };
        node.outputs.iter().for_each(|id| note(&mut made, *id, *ty));
        for (index, id) in node.inputs.iter().enumerate() {
            if let (Some(Operand::Activation), Some(id)) = (rule.operand(graph, node, index), id) {
                note(&mut read, *id, *ty);
            }
        }
    }
    read.extend(made);
    read
}

/// The values that a node can give, where the maths says so: those of its operator, or of one that a constant is added to.
/// Qualcomm's compiler (QNN 2.51) takes 1 + tanh x for such a pair, and computes wrongly where its range is not that.
fn given(graph: &Graph, node: &Node) -> Option<Range> {
    let by_operator = |node: &Node| Rule::of(node).and_then(|rule| rule.gives);
    if node.op.name != "Add" {
        return by_operator(node);
    }
    let [Some(a), Some(b)] = node.inputs[..] else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(bounded, constant)| {
        let added = graph.value(constant).data.as_ref().filter(|_| graph.ty(constant).elements() == 1)?.to_f32s();
        let maker = graph.nodes.iter().find(|n| n.outputs.contains(&bounded))?;
        let (range, by) = (by_operator(maker)?, *added.first()?);
        Some(Range { min: range.min + by, max: range.max + by })
    })
}

/// The ranges of what a graph reads and its operators make, for integers of the types of their sets: those that are asked
/// for, but for few. One may take long to find, so several are looked for at once.
fn made(
    graph: &Graph,
    (types, sets): (&[Option<DType>], &[usize]),
    chosen: &BTreeMap<usize, DType>,
    ranges: Ranges<'_>,
) -> BTreeMap<(String, DType), Option<Range>> {
    let free = graph.nodes.iter().zip(types).filter(|(n, ty)| makes(n, **ty) && given(graph, n).is_none());
    let tensors = free.flat_map(|(node, _)| &node.outputs).chain(&graph.inputs);
    let asked: Vec<(&str, DType)> = tensors
        .filter_map(|id| Some((graph.value(*id).name.as_str(), *chosen.get(&sets[graph.index_of(*id)])?)))
        .collect();
    asked.into_par_iter().map(|(name, ty)| ((name.to_owned(), ty), ranges(name, ty))).collect()
}

/// Whether a node makes a tensor of its own: a move does so in float.
fn makes(node: &Node, ty: Option<DType>) -> bool {
    !is_move(node) || ty.is_none()
}

/// The range of each set: of all that its tensors take where they are made.
fn ranges_of_sets(
    graph: &Graph,
    (types, sets): (&[Option<DType>], &[usize]),
    chosen: &BTreeMap<usize, DType>,
    ranges: Ranges<'_>,
) -> Result<BTreeMap<usize, Range>, Error> {
    let mut found: BTreeMap<usize, Range> = BTreeMap::new();
    let limited = if chosen.is_empty() { BTreeMap::new() } else { masks(graph, DType::Uint16, ranges) };
    let mut add = |id: ValueId, range: &dyn Fn(DType) -> Option<Range>| {
        let set = sets[graph.index_of(id)];
        let is_float = graph.ty(id).dtype == DType::Float32;
        let Some(ty) = chosen.get(&set).filter(|_| is_float) else { return Ok::<(), Error>(()) };
        let name = &graph.value(id).name;
        let missing = || Error::NoRange { component: graph.name.clone(), tensor: name.clone() };
        let range = limited.get(&id).copied().or_else(|| range(*ty)).ok_or_else(missing)?;
        found.entry(set).and_modify(|r| *r = r.union(range)).or_insert(range);
        Ok(())
    };
    let named = |id: ValueId| move |ty: DType| ranges(&graph.value(id).name, ty);
    graph.inputs.iter().try_for_each(|id| add(*id, &named(*id)))?;
    for (id, _, data) in graph.initializers() {
        if chosen.contains_key(&sets[graph.index_of(id)]) {
            add(id, &|_| Range::of(&data.to_f32s()))?;
        }
    }
    let makers = graph.nodes.iter().zip(types).filter(|(n, ty)| makes(n, **ty));
    for (node, _) in makers {
        let gives = given(graph, node);
        for id in &node.outputs {
            add(*id, &|ty| gives.or_else(|| ranges(&graph.value(*id).name, ty)))?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use edge_ir::Builder;

    use super::*;

    #[test]
    fn a_constant_moves_the_range_that_the_maths_gives() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let one = b.floats("one", &[], &[1.0]);
        let tanh = b.node("Tanh", "tanh", &[x], &[]).expect("fits");
        let sum = b.node("Add", "sum", &[one, tanh], &[]).expect("fits");
        let free = b.node("Add", "free", &[x, one], &[]).expect("fits");
        let both = b.node("Add", "both", &[sum, tanh], &[]).expect("fits");
        b.output("free", free);
        b.output("both", both);
        let graph = b.finish().expect("a graph").into_inner();
        let range = |min, max| Some(Range { min, max });
        let found: Vec<_> = graph.nodes.iter().map(|node| given(&graph, node)).collect();
        assert_eq!(found, [range(-1.0, 1.0), range(0.0, 2.0), None, None]);
    }
}
