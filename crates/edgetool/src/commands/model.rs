//! A model to work on: a converted folder, a bundle that holds one, or a checkpoint that is converted in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_import::{Imported, Options};
use edge_ir::{Checked, Graph};
use edge_spec::bundle::{Bundle, MODEL_FOLDER};
use edge_spec::{Fold, MANIFEST_FILE, Manifest, Pipeline};

use crate::layout;
use crate::report;
use crate::staging::Scratch;

/// What a zip file begins with.
const ZIP: &[u8] = b"PK\x03\x04";

/// An opened model.
pub(crate) enum Model {
    /// A folder that `convert` wrote; that of a bundle is in a temporary place, which goes with the model.
    /// `changed` has graphs that stand in for those of their components.
    Converted {
        folder: PathBuf,
        manifest: Box<Manifest>,
        changed: BTreeMap<String, Checked<Graph>>,
        _scratch: Option<Scratch>,
    },
    /// A checkpoint.
    Checkpoint(Box<Imported>),
}

impl Model {
    /// Opens whichever it is; a checkpoint is imported with `options`.
    pub(crate) fn open(path: &Path, config: Option<&Path>, options: Options) -> Result<Self> {
        let scratch = if is_zip(path) { Some(extracted(path)?) } else { None };
        let folder = scratch.as_ref().map_or(path.to_owned(), |scratch| scratch.path().join(MODEL_FOLDER));
        if folder.join(MANIFEST_FILE).exists() {
            let manifest = Box::new(Manifest::open(&folder)?);
            check_size(path, &manifest.pipeline, options)?;
            return Ok(Self::Converted { folder, manifest, changed: BTreeMap::new(), _scratch: scratch });
        }
        Ok(Self::Checkpoint(Box::new(edge_import::import(path, config, options)?)))
    }

    /// The names of its components.
    pub(crate) fn components(&self) -> Vec<String> {
        match self {
            Self::Converted { manifest, .. } => manifest.components.iter().map(|c| c.name.clone()).collect(),
            Self::Checkpoint(imported) => imported.model.components.keys().cloned().collect(),
        }
    }

    /// One component's graph; that of a converted folder is read from its ONNX file.
    pub(crate) fn graph(&self, name: &str) -> Result<Checked<Graph>> {
        match self {
            Self::Converted { changed, .. } if changed.contains_key(name) => Ok(changed[name].clone()),
            Self::Converted { folder, manifest, .. } => {
                let component =
                    manifest.component(name).with_context(|| format!("`{}` has no {name}", folder.display()))?;
                named(edge_ir::onnx::read(&folder.join(&component.file))?, name)
            }
            Self::Checkpoint(imported) => {
                let graph = imported.model.components.get(name);
                Ok(graph.with_context(|| format!("`{}` has no {name}", imported.checkpoint.root.display()))?.clone())
            }
        }
    }

    /// The same, for a sampler.
    pub(crate) fn graphs(&self) -> impl Fn(&str) -> Result<Checked<Graph>, edge_run::Error> {
        |name: &str| {
            let failed =
                |source: anyhow::Error| edge_run::Error::Component { name: name.to_owned(), source: source.into() };
            self.graph(name).map_err(failed)
        }
    }

    /// What connects the components.
    pub(crate) fn pipeline(&self) -> Pipeline {
        match self {
            Self::Converted { manifest, .. } => manifest.pipeline.clone(),
            Self::Checkpoint(imported) => layout::pipeline(&imported.pipeline),
        }
    }

    /// What of the sampler is in the graphs.
    pub(crate) fn fold(&self) -> Option<&Fold> {
        match self {
            Self::Converted { manifest, .. } => manifest.fold.as_ref(),
            Self::Checkpoint(_) => None,
        }
    }

    /// The folder that holds `tokenizer/` and `scheduler/`.
    pub(crate) fn root(&self) -> &Path {
        match self {
            Self::Converted { folder, .. } => folder,
            Self::Checkpoint(imported) => &imported.checkpoint.root,
        }
    }
}

/// Whether a path is a file that begins as a bundle does; a checkpoint in one file does not.
pub(super) fn is_zip(path: &Path) -> bool {
    let mut start = [0; ZIP.len()];
    let read = |mut file: std::fs::File| std::io::Read::read_exact(&mut file, &mut start).is_ok();
    path.is_file() && std::fs::File::open(path).is_ok_and(read) && start == *ZIP
}

/// The model of a bundle, with every file compared with the bundle's manifest.
fn extracted(path: &Path) -> Result<Scratch> {
    let bundle = Bundle::open(path)?;
    let scratch = Scratch::new()?;
    let model = format!("{MODEL_FOLDER}/");
    bundle.extract(scratch.path(), &|name| name.starts_with(&model))?;
    Ok(scratch)
}

/// The graph under the component's name: the steps of one UNet have graphs of one name.
fn named(graph: Checked<Graph>, name: &str) -> Result<Checked<Graph>> {
    let mut graph = graph.into_inner();
    name.clone_into(&mut graph.name);
    Ok(graph.check()?)
}

/// The shapes of a converted folder are fixed.
fn check_size(path: &Path, pipeline: &Pipeline, options: Options) -> Result<()> {
    let (height, width) = (options.height.unwrap_or(pipeline.height), options.width.unwrap_or(pipeline.width));
    if (height, width) == (pipeline.height, pipeline.width) {
        return Ok(());
    }
    let text = format!(
        "`{}` draws {}x{} pixels, not {height}x{width}: its shapes are fixed",
        path.display(),
        pipeline.height,
        pipeline.width
    );
    Err(report::with_hint(
        text,
        format!("convert the checkpoint again with `--height {height} --width {width}`, or run the checkpoint itself"),
    ))
}
