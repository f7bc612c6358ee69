//! A model to work on: a converted folder, or a checkpoint that is converted in memory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_import::{Imported, Options};
use edge_ir::{Checked, Graph};
use edge_spec::{Fold, MANIFEST_FILE, Manifest, Pipeline};

use crate::layout;
use crate::report;

/// An opened model.
pub(crate) enum Model {
    /// A folder that `convert` wrote.
    Converted { folder: PathBuf, manifest: Box<Manifest> },
    /// A checkpoint.
    Checkpoint(Box<Imported>),
}

impl Model {
    /// Opens whichever it is; a checkpoint is imported with `options`.
    pub(crate) fn open(path: &Path, config: Option<&Path>, options: Options) -> Result<Self> {
        if path.join(MANIFEST_FILE).exists() {
            let manifest = Box::new(Manifest::open(path)?);
            check_size(path, &manifest.pipeline, options)?;
            return Ok(Self::Converted { folder: path.to_owned(), manifest });
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
            Self::Converted { folder, manifest } => {
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
