//! A network in pieces: each is loaded once, and a form of the network loads those alone that differ.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use edge_ir::{Checked, Executor, Failure, Graph, Ports, Tensor};
use edge_quant::mixed::pieces;
use edge_run::{Loaded, Session};

/// Bytes of tensors that are kept of what the float network gives.
const KEPT: usize = 1 << 30;

/// The float network.
pub(super) struct Network {
    ports: Ports,
    pieces: Vec<Piece>,
    /// What the pieces gave, each time that the float network ran.
    seen: Mutex<Vec<Seen>>,
}

struct Piece {
    graph: Checked<Graph>,
    loaded: Loaded,
}

/// One run of the float network.
#[derive(Clone)]
struct Seen {
    inputs: Arc<[Tensor]>,
    tensors: Arc<BTreeMap<String, Tensor>>,
}

/// The network with some pieces in other forms.
pub(super) struct Chain {
    network: Arc<Network>,
    changed: BTreeMap<usize, Session>,
    sessions: Vec<Session>,
    /// Whether what the pieces give is kept.
    keeps: bool,
}

impl Network {
    /// Loads all pieces of a graph.
    pub(super) fn load(graph: &Graph) -> Result<Self> {
        let piece = |graph| Ok(Piece { loaded: Session::load(&graph)?.loaded(), graph });
        Ok(Self {
            ports: Ports::of(graph),
            pieces: pieces(graph)?.into_iter().map(piece).collect::<Result<_>>()?,
            seen: Mutex::default(),
        })
    }

    /// The float network; with `keeps`, forms begin where they differ from it if they are fed the same.
    pub(super) fn float(self: &Arc<Self>, keeps: bool) -> Chain {
        let sessions = self.pieces.iter().map(|piece| piece.loaded.session()).collect();
        Chain { network: Arc::clone(self), changed: BTreeMap::new(), sessions, keeps }
    }

    /// The network with what `form` gives in the place of the pieces that it `changes`.
    pub(super) fn form(
        self: &Arc<Self>,
        changes: &dyn Fn(&Graph) -> bool,
        form: &dyn Fn(&Checked<Graph>) -> Result<Checked<Graph>>,
    ) -> Result<Chain> {
        let mut chain = self.float(false);
        for (index, piece) in self.pieces.iter().enumerate().filter(|(_, piece)| changes(&piece.graph)) {
            chain.changed.insert(index, Session::load(&form(&piece.graph)?)?);
        }
        Ok(chain)
    }

    /// Bytes of the largest piece's weights, as it is loaded.
    pub(super) fn largest(&self) -> u64 {
        let size = |piece: &Piece| piece.graph.initializers().map(|(_, v, _)| 4 * v.ty.elements()).sum();
        self.pieces.iter().map(size).max().unwrap_or_default()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the float network gave for these inputs, if it was kept.
    fn known(&self, inputs: &[Tensor]) -> Option<Seen> {
        self.seen().iter().find(|seen| *seen.inputs == *inputs).cloned()
    }

    /// Keeps a run, as long as there is room.
    fn keep(&self, inputs: &[Tensor], tensors: BTreeMap<String, Tensor>) {
        let bytes = |tensors: &BTreeMap<String, Tensor>| tensors.values().map(|t| t.bytes.len()).sum::<usize>();
        let mut seen = self.seen();
        if seen.iter().map(|seen| bytes(&seen.tensors)).sum::<usize>() + bytes(&tensors) <= KEPT {
            seen.push(Seen { inputs: inputs.into(), tensors: Arc::new(tensors) });
        }
    }
}

impl Executor for Chain {
    fn ports(&self) -> &Ports {
        &self.network.ports
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let network = Arc::clone(&self.network);
        network.ports.check(inputs)?;
        let known = if self.keeps { None } else { network.known(inputs) };
        let first = known.as_ref().and_then(|_| self.changed.keys().next()).copied().unwrap_or(0);
        let fed: BTreeMap<&str, &Tensor> =
            network.ports.inputs.iter().map(|(name, _)| name.as_str()).zip(inputs).collect();
        let mut made: BTreeMap<String, Tensor> = BTreeMap::new();
        let find = |made: &BTreeMap<String, Tensor>, name: &str| {
            let before = || known.as_ref().and_then(|seen| seen.tensors.get(name));
            let found = made.get(name).or_else(|| fed.get(name).copied()).or_else(before);
            found.cloned().with_context(|| format!("no piece of {} gives `{name}`", network.ports.graph))
        };
        for index in first..network.pieces.len() {
            let session = self.changed.get_mut(&index).unwrap_or(&mut self.sessions[index]);
            let read = session.inputs().iter().map(|(name, _)| find(&made, name)).collect::<Result<Vec<_>>>()?;
            let given = session.run(&read)?;
            made.extend(session.outputs().iter().map(|(name, _)| name.clone()).zip(given));
        }
        let outputs = network.ports.outputs.iter().map(|(name, _)| find(&made, name)).collect::<Result<Vec<_>>>()?;
        if self.keeps {
            network.keep(inputs, made);
        }
        Ok(outputs)
    }
}
