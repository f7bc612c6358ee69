//! Looks at tensors while a graph runs.
//!
//! A graph is observed through operators that hand their input on and show it to an [`Observer`] on the way. Nothing is
//! kept: a tensor lives as long as it does in a run that nobody looks at. Groups of operators are fused as always where
//! no tensor within them is looked at. The scores of an attention can be looked at within it: they are shown in parts, as
//! they arise, and never exist as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_ir::{Attribute, Checked, Graph, Node, Value, ValueId};

use crate::Error;
use crate::fuse::rows::EDGE_OBSERVE;

/// Sees tensors of one graph while it runs.
pub trait Observer: Send + Sync {
    /// The tensors of `graph` to see, `float32` all: inputs, or outputs of nodes. Asked when the graph is loaded.
    ///
    /// # Errors
    /// If the graph is not to be run.
    fn wanted(&self, graph: &Checked<Graph>) -> Result<Vec<ValueId>, Failure>;

    /// Whether [`Observer::see`] can do with parts of a tensor: all parts together are its values in one run, each once.
    /// They come in no order, and from several threads at a time.
    fn takes_parts(&self) -> bool {
        false
    }

    /// A tensor's values in one run, in the order of its elements; or some of them, if it takes parts.
    ///
    /// # Errors
    /// If the run is to end.
    fn see(&self, tensor: &str, values: &[f32]) -> Result<(), Failure>;
}

/// Why an observer does not want to go on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The attribute that says which tensor a node shows.
pub(crate) const TENSOR: &str = "tensor";

/// The attribute that says whether a node may show its tensor in parts.
pub(crate) const PARTS: &str = "parts";

/// The graph with a node after each of the values, which everything that reads the value reads instead.
pub(crate) fn insert(mut graph: Graph, values: &[ValueId], parts: bool) -> Result<Checked<Graph>, Error> {
    let mut shown: BTreeMap<ValueId, Option<ValueId>> = values.iter().map(|id| (*id, None)).collect();
    let mut nodes = Vec::new();
    for id in graph.inputs.clone() {
        show(&mut graph, &mut nodes, &mut shown, id, parts);
    }
    for mut node in std::mem::take(&mut graph.nodes) {
        for id in node.inputs.iter_mut().flatten() {
            *id = shown.get(id).copied().flatten().unwrap_or(*id);
        }
        let outputs = node.outputs.clone();
        nodes.push(node);
        for id in outputs {
            show(&mut graph, &mut nodes, &mut shown, id, parts);
        }
    }
    graph.nodes = nodes;
    for id in &mut graph.outputs {
        *id = shown.get(id).copied().flatten().unwrap_or(*id);
    }
    Ok(graph.check()?)
}

fn show(
    graph: &mut Graph,
    nodes: &mut Vec<Node>,
    shown: &mut BTreeMap<ValueId, Option<ValueId>>,
    id: ValueId,
    parts: bool,
) {
    let Some(place) = shown.get_mut(&id) else { return };
    let Value { name, ty, .. } = graph.value(id).clone();
    let after = graph.add_value(Value { name: format!("{name}__observed"), ty, data: None });
    *place = Some(after);
    nodes.push(Node {
        name: format!("{name}/observe"),
        op: &EDGE_OBSERVE,
        inputs: vec![Some(id)],
        outputs: vec![after],
        attributes: BTreeMap::from([(TENSOR, Attribute::String(name)), (PARTS, Attribute::Int(i64::from(parts)))]),
    });
}

/// To whom the operators of a graph show their tensors.
#[derive(Clone)]
pub(crate) struct Shown(pub(crate) Arc<dyn Observer>);

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use edge_ir::{Builder, DType, Executor, Tensor};

    use super::*;
    use crate::Session;

    /// What was seen, in order.
    type Seen = Vec<(String, Vec<f32>)>;

    /// Wants tensors by name, and fails at one.
    #[derive(Default)]
    struct Watcher {
        wants: Vec<&'static str>,
        stops_at: &'static str,
        parts: bool,
        seen: Mutex<Seen>,
    }

    impl Watcher {
        fn seen(&self) -> Seen {
            std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl Observer for Watcher {
        fn wanted(&self, graph: &Checked<Graph>) -> Result<Vec<ValueId>, Failure> {
            let wanted = graph.values().filter(|(_, value)| self.wants.contains(&value.name.as_str()));
            Ok(wanted.map(|(id, _)| id).collect())
        }

        fn takes_parts(&self) -> bool {
            self.parts
        }

        fn see(&self, tensor: &str, values: &[f32]) -> Result<(), Failure> {
            if tensor == self.stops_at {
                return Err(format!("`{tensor}` is too much").into());
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((tensor.to_owned(), values.to_vec()));
            Ok(())
        }
    }

    /// `(2x) * sigmoid(2x)`, and `2x` as an output too.
    fn graph() -> Checked<Graph> {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2]);
        let two = b.floats("two", &[1], &[2.0]);
        let y = b.node("Mul", "double", &[x, two], &[]).unwrap();
        let gate = b.node("Sigmoid", "gate", &[y], &[]).unwrap();
        let z = b.node("Mul", "silu", &[y, gate], &[]).unwrap();
        b.output("y", y);
        b.output("z", z);
        b.finish().unwrap()
    }

    fn load(watcher: &Arc<Watcher>) -> Session {
        let to: Arc<dyn Observer> = watcher.clone();
        Session::load_observed(&graph(), &to).unwrap()
    }

    fn operators(graph: &Checked<Graph>) -> Vec<&'static str> {
        graph.nodes.iter().map(|node| node.op.name).collect()
    }

    #[test]
    fn every_run_shows_what_is_wanted_in_order() {
        let watcher = Arc::new(Watcher { wants: vec!["x", "y", "gate", "z"], ..Default::default() });
        let mut session = load(&watcher);
        for sign in [1.0, -1.0] {
            let outputs = session.run(&[Tensor::f32s([1, 2], &[0.0, sign])]).unwrap();
            let [y, z] = [&outputs[0], &outputs[1]].map(Tensor::to_f32s);
            assert_eq!(outputs[0], Tensor::f32s([1, 2], &[0.0, 2.0 * sign]));
            let seen = watcher.seen();
            let names: Vec<_> = seen.iter().map(|(tensor, _)| tensor.as_str()).collect();
            assert_eq!(names, ["x", "y", "gate", "z"]);
            assert_eq!((&seen[0].1[..], &seen[1].1, &seen[3].1), (&[0.0, sign][..], &y, &z));
            let gate = &seen[2].1;
            assert!((gate[0] - 0.5).abs() < 1e-6 && (z[1] - y[1] * gate[1]).abs() < 1e-6, "{seen:?}");
        }
    }

    #[test]
    fn what_nobody_looks_into_is_fused() {
        let fused = |wants: &[&str]| {
            let graph = graph();
            let wanted: Vec<_> =
                graph.values().filter(|(_, v)| wants.contains(&v.name.as_str())).map(|(id, _)| id).collect();
            operators(&crate::fuse::fuse(insert(Graph::clone(&graph), &wanted, true).unwrap().into_inner()).unwrap())
        };
        assert_eq!(fused(&[]), ["Mul", "EdgeSilu"]);
        assert_eq!(fused(&["y", "z"]), ["Mul", "EdgeObserve", "EdgeSilu", "EdgeObserve"]);
        assert_eq!(fused(&["gate"]), ["Mul", "Sigmoid", "EdgeObserve", "Mul"]);
    }

    /// Attention of 200 queries in a target's form: one head, keys across.
    fn attention() -> Checked<Graph> {
        let mut b = Builder::new("g");
        let q = b.input("q", DType::Float32, &[1, 1, 200, 8]);
        let k = b.input("k", DType::Float32, &[1, 1, 8, 40]);
        let v = b.input("v", DType::Float32, &[1, 1, 40, 8]);
        let scores = b.node("MatMul", "scores", &[q, k], &[]).unwrap();
        let shares = b.node("Softmax", "shares", &[scores], &[("axis", Attribute::Int(-1))]).unwrap();
        let y = b.node("MatMul", "values", &[shares, v], &[]).unwrap();
        b.output("y", y);
        b.finish().unwrap()
    }

    #[test]
    fn scores_are_seen_within_a_fused_attention() {
        let (graph, wants) = (attention(), vec!["q", "scores", "y"]);
        let wanted: Vec<_> =
            graph.values().filter(|(_, v)| wants.contains(&v.name.as_str())).map(|(id, _)| id).collect();
        let fused = |parts| {
            let observed = insert(Graph::clone(&graph), &wanted, parts).unwrap().into_inner();
            operators(&crate::fuse::fuse(observed).unwrap())
        };
        assert_eq!(fused(true), ["EdgeObserve", "EdgeAttention", "EdgeObserve"]);
        assert_eq!(fused(false), ["EdgeObserve", "MatMul", "EdgeObserve", "Softmax", "MatMul", "EdgeObserve"]);
        let inputs = [[200, 8], [8, 40], [40, 8]].map(|[rows, cols]| {
            let numbers: Vec<f32> = (0_u16..rows * cols).map(|i| f32::from(i * 31 % 97) / 97.0 - 0.5).collect();
            Tensor::f32s([1, 1, usize::from(rows), usize::from(cols)], &numbers)
        });
        let seen = |parts| {
            let watcher = Arc::new(Watcher { wants: wants.clone(), parts, ..Default::default() });
            let to: Arc<dyn Observer> = watcher.clone();
            Session::load_observed(&graph, &to).unwrap().run(&inputs).unwrap();
            let mut all: BTreeMap<String, Vec<f32>> = BTreeMap::new();
            for (name, values) in watcher.seen() {
                all.entry(name).or_default().extend(values);
            }
            for values in all.values_mut() {
                values.sort_by(f32::total_cmp);
            }
            all
        };
        let (whole, parts) = (seen(false), seen(true));
        assert_eq!(whole.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>());
        for (name, values) in whole {
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(values.len() == parts[&name].len() && values.iter().zip(&parts[&name]).all(close), "{name}");
        }
        let watcher = Arc::new(Watcher { wants, stops_at: "scores", parts: true, ..Default::default() });
        let to: Arc<dyn Observer> = watcher;
        let error = Session::load_observed(&graph, &to).unwrap().run(&inputs).unwrap_err();
        assert_eq!(error.to_string(), "`scores` is too much");
    }

    #[test]
    fn an_observer_ends_a_run_in_its_own_words() {
        let watcher = Arc::new(Watcher { wants: vec!["x", "gate"], stops_at: "gate", ..Default::default() });
        let error = load(&watcher).run(&[Tensor::f32s([1, 2], &[0.0, 1.0])]).unwrap_err();
        assert_eq!(error.to_string(), "`gate` is too much");
        assert_eq!(watcher.seen().len(), 1);
    }
}
