//! The tensors of a component: where they are and what they are called.

mod safetensors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_ir::{Data, TensorType};

use crate::rename::Naming;
use crate::{Error, TensorProblem};

/// A tensor of a weight file.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Its type; nothing if edgetool has no such element type.
    pub(crate) ty: Result<TensorType, String>,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// A view into the file.
    pub(crate) data: Data,
}

/// All tensors of one file or of all shards, by the names in the file.
pub(crate) type Tensors = BTreeMap<String, Stored>;

/// The tensors of one component.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The file, or the index of the shards.
    pub path: PathBuf,
    pub(crate) tensors: Arc<Tensors>,
    pub(crate) naming: Naming,
}

/// Tensors that published checkpoints carry and inference does not read, by the end of their name.
const HARMLESS_ENDS: &[&str] = &["embeddings.position_ids"];

impl Weights {
    /// Opens `folder/<stem>.safetensors`, its shards, or the variant in 16-bit floats, in this order.
    pub(crate) fn in_folder(folder: &Path, stem: &str, naming: Naming) -> Result<Self, Error> {
        let names = [
            format!("{stem}.safetensors"),
            format!("{stem}.safetensors.index.json"),
            format!("{stem}.fp16.safetensors"),
            format!("{stem}.safetensors.index.fp16.json"),
            format!("{stem}.fp16.safetensors.index.json"),
        ];
        let Some(path) = names.iter().map(|n| folder.join(n)).find(|p| p.exists()) else {
            return Err(Error::not_found(
                folder,
                format!("has no weights, expected `{}` or `{}`{}", names[0], names[1], pickle_hint(folder)),
            ));
        };
        let tensors = if path.extension().is_some_and(|e| e == "json") {
            safetensors::open_shards(&path)?
        } else {
            safetensors::open(&path)?
        };
        Ok(Self { path, tensors: Arc::new(tensors), naming })
    }

    /// Opens one file.
    pub(crate) fn open_file(path: &Path) -> Result<Tensors, Error> {
        safetensors::open(path)
    }

    /// The tensor that diffusers or transformers calls `name`, with its name in the file.
    pub(crate) fn find(&self, name: &str) -> Option<(&String, &Stored)> {
        self.naming.candidates(name).iter().find_map(|key| self.tensors.get_key_value(key))
    }

    /// An error that lists the tensors of this component that nothing has read.
    pub(crate) fn check_all_used(
        &self,
        component: &str,
        used: &BTreeSet<String>,
        not_imported: &[&str],
    ) -> Result<(), Error> {
        let harmless = |key: &str| {
            HARMLESS_ENDS.iter().any(|end| key.ends_with(end))
                || not_imported.iter().any(|start| key.starts_with(start))
        };
        let left =
            self.tensors.iter().filter(|(key, _)| self.naming.owns(key) && !used.contains(*key) && !harmless(key));
        let problems: Vec<_> =
            left.map(|(key, stored)| TensorProblem::Extra { name: key.clone(), found: stored.shape.clone() }).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Tensors { component: component.to_owned(), path: self.path.clone(), problems })
    }
}

fn pickle_hint(folder: &Path) -> &'static str {
    let is_pickle = |e: &std::fs::DirEntry| e.path().extension().is_some_and(|x| x == "bin" || x == "ckpt");
    let found = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| is_pickle(&e))));
    if found { " (pickled weights run code when they are read: save them as safetensors first)" } else { "" }
}
