//! The inputs of graphs by name: what a prompt gives, what a step takes.

use std::collections::BTreeMap;

use edge_ir::{Executor, Tensor, TensorType};

use crate::Error;

/// Tensors by the names of the inputs that they are for.
pub(super) type Feeds = BTreeMap<String, Tensor>;

/// Runs a graph on those of the tensors that it takes and returns its outputs by name.
pub(super) fn run(session: &mut dyn Executor, feeds: &Feeds) -> Result<Feeds, Error> {
    let name = session.name().to_owned();
    let feed = |(input, _): &(String, _)| {
        feeds.get(input).cloned().ok_or_else(|| Error::Input { graph: name.clone(), input: input.clone() })
    };
    let inputs = session.inputs().iter().map(feed).collect::<Result<Vec<_>, _>>()?;
    let outputs = session.run(&inputs).map_err(|e| match e.downcast::<Error>() {
        Ok(own) => *own,
        Err(other) => Error::Tract { action: "run", graph: name.clone(), reason: other.to_string() },
    })?;
    Ok(session.outputs().iter().map(|(name, _)| name.clone()).zip(outputs).collect())
}

/// The same for a graph of one output.
pub(super) fn run_for_one(session: &mut dyn Executor, feeds: &Feeds) -> Result<Tensor, Error> {
    let missing = |session: &dyn Executor| Error::Graph { graph: session.name().into(), what: "output".into() };
    run(session, feeds)?.into_values().next().ok_or_else(|| missing(session))
}

/// The type of an input.
pub(super) fn input_type(session: &dyn Executor, name: &str) -> Result<TensorType, Error> {
    let input = session.inputs().iter().find(|(n, _)| n == name);
    input
        .map(|(_, ty)| ty.clone())
        .ok_or_else(|| Error::Graph { graph: session.name().into(), what: format!("input `{name}`") })
}

/// An error unless all numbers are finite.
pub(super) fn check_finite(numbers: &[f32], component: &'static str) -> Result<(), Error> {
    if numbers.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(Error::NotFinite { component }) }
}
