//! Loaded graphs.

use std::collections::BTreeMap;

use super::Sessions;
use edge_ir::Executor;

use crate::Error;

/// Loads graphs when they are asked for, and holds them as long as they are of use.
pub(super) struct Loader<'a> {
    sessions: Sessions<'a>,
    keep: bool,
    loaded: BTreeMap<String, Box<dyn Executor>>,
}

impl<'a> Loader<'a> {
    /// Holds all graphs until [`Loader::clear`] with `keep`, else the latest alone.
    pub(super) fn new(sessions: Sessions<'a>, keep: bool) -> Self {
        Self { sessions, keep, loaded: BTreeMap::new() }
    }

    /// The component's graph.
    pub(super) fn get(&mut self, component: &str) -> Result<&mut dyn Executor, Error> {
        if !self.loaded.contains_key(component) {
            if !self.keep {
                self.loaded.clear();
            }
            let session = (self.sessions)(component)?;
            self.loaded.insert(component.to_owned(), session);
        }
        match self.loaded.get_mut(component) {
            Some(session) => Ok(&mut **session),
            None => Err(Error::Graph { graph: component.into(), what: "graph".into() }),
        }
    }

    /// Frees all.
    pub(super) fn clear(&mut self) {
        self.loaded.clear();
    }
}
