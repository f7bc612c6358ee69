//! A quantized model beside the float one that it was made from: the float one's networks are looked at, and what the
//! quantized one gives goes on to the networks after them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_import::Options;
use edge_ir::{Executor, Failure, Ports, Tensor};
use edge_run::{Error, Session};
use edge_spec::{MANIFEST_FILE, sha256};

use super::model::Model;
use crate::report;

/// An opened quantized model.
pub(super) struct Beside {
    path: PathBuf,
    model: Model,
    components: Vec<String>,
}

impl Beside {
    /// Opens it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let model = Model::open(path, None, Options::default())?;
        let components = match &model {
            Model::Converted { manifest, .. } => manifest.quantization.as_ref().map(|q| q.components.clone()),
            Model::Checkpoint(_) => None,
        };
        let components = components.ok_or_else(|| {
            let text = format!("`{}` is not quantized", path.display());
            report::with_hint(text, "name what `edgetool quantize` made of the model that is calibrated")
        })?;
        Ok(Self { path: path.to_owned(), model, components })
    }

    /// What tells it from other models.
    pub(super) fn sha256(&self) -> Result<String> {
        let path = self.model.root().join(MANIFEST_FILE);
        let read = || format!("cannot read `{}`", path.display());
        sha256(File::open(&path).with_context(read)?).with_context(read)
    }

    /// A session that is looked at, with the quantized form of its component behind it, if there is one.
    pub(super) fn behind(&self, name: &str, seen: Session) -> Result<Box<dyn Executor>, Error> {
        if !self.components.iter().any(|component| component == name) {
            return Ok(Box::new(seen));
        }
        let failed = |source: anyhow::Error| Error::Component { name: name.into(), source: source.into() };
        let given = Session::load(&self.model.graph(name).map_err(failed)?)?;
        if given.inputs() != seen.inputs() || given.outputs() != seen.outputs() {
            let text = format!("`{}` is of another model: its inputs or outputs are others", self.path.display());
            return Err(failed(anyhow::Error::msg(text)));
        }
        Ok(Box::new(Both { seen, given }))
    }
}

/// Both forms of a network.
struct Both {
    seen: Session,
    given: Session,
}

impl Executor for Both {
    fn ports(&self) -> &Ports {
        self.given.ports()
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        self.seen.run(inputs)?;
        self.given.run(inputs)
    }
}
