//! Loaded graphs.

use std::collections::BTreeMap;

use super::Graphs;
use crate::session::Recorder;
use crate::{Error, Session};

/// Loads graphs when they are asked for, and holds them as long as they are of use.
pub(super) struct Loader<'a> {
    graphs: Graphs<'a>,
    keep: bool,
    recorder: Option<Recorder>,
    loaded: BTreeMap<String, Session>,
}

impl<'a> Loader<'a> {
    /// Holds all graphs until [`Loader::clear`] with `keep`, else the latest alone. Their calls go into `recorder`.
    pub(super) fn new(graphs: Graphs<'a>, keep: bool, recorder: Option<Recorder>) -> Self {
        Self { graphs, keep, recorder, loaded: BTreeMap::new() }
    }

    /// The component's graph.
    pub(super) fn get(&mut self, component: &str) -> Result<&mut Session, Error> {
        if !self.loaded.contains_key(component) {
            if !self.keep {
                self.loaded.clear();
            }
            let mut session = Session::load(&(self.graphs)(component)?)?;
            if let Some(recorder) = &self.recorder {
                session.record(component, recorder);
            }
            self.loaded.insert(component.to_owned(), session);
        }
        self.loaded.get_mut(component).ok_or_else(|| Error::Graph { graph: component.into(), what: "graph".into() })
    }

    /// Frees all.
    pub(super) fn clear(&mut self) {
        self.loaded.clear();
    }
}
