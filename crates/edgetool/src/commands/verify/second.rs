//! A second opinion: the candidate draws on ONNX Runtime, and every graph runs on the built-in executor too, on the same
//! inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use edge_ir::{Checked, DType, Executor, Failure, Graph, Ports, Tensor};
use edge_onnxruntime::Library;
use edge_run::{Error, Noise, Session};
use edge_spec::Prompt;
use edge_verify::metrics::pictures;
use edge_verify::metrics::tensors::compare;
use edge_verify::{Apart, PICTURE};

use super::super::model::Model;
use super::drawn::{Drawn, pixels};
use super::player::{Player, locked};
use crate::report;

/// What was found of each output, by the component's place in the order of use.
type Found = Arc<Mutex<BTreeMap<(usize, String), Apart>>>;

/// How far apart the two are on one prompt, of which `ours` is the picture of the built-in executor.
pub(super) fn opinion(
    candidate: &Player,
    library: &Library,
    (prompt, noise): (&Prompt, &Noise),
    ours: &Drawn,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Apart>> {
    let Model::Converted { folder, manifest, .. } = &candidate.model else {
        let text = format!("`{}` has no ONNX files, which ONNX Runtime reads", candidate.path.display());
        return Err(report::with_hint(text, "convert it first, and verify the folder"));
    };
    let found = Found::default();
    let used = candidate.used();
    let load = |name: &str, graph: &Checked<Graph>| -> Result<Box<dyn Executor>, Error> {
        let failed = |source: Failure| Error::Component { name: name.to_owned(), source };
        let file = manifest.component(name).map(|component| folder.join(&component.file));
        let file: PathBuf = file.ok_or_else(|| failed(format!("`{}` has no {name}", folder.display()).into()))?;
        let other = library.session(&file, graph).map_err(|e| failed(e.into()))?;
        let order = used.iter().position(|used| used == name).unwrap_or_default();
        Ok(Box::new(Both { order, own: Session::load(graph)?, other, found: Arc::clone(&found) }))
    };
    let request = candidate.request(prompt, noise.clone());
    let drawn = candidate.play_on(&candidate.model.graphs(), &[request], &load, progress)?;
    let mut apart: Vec<Apart> = std::mem::take(&mut *locked(&found)).into_values().collect();
    let theirs = drawn.into_iter().next().and_then(|(drawn, _)| drawn.into_iter().next());
    if let (Some(ours), Some(theirs)) = (&ours.picture, theirs)
        && let Some(difference) = pictures::compare(&pixels(&theirs), &pixels(ours))
    {
        apart.push(Apart {
            component: candidate.decoder().into(),
            output: PICTURE.into(),
            sqnr_db: difference.psnr_db,
            max_error: f64::from(difference.max_error),
        });
    }
    Ok(apart)
}

/// Runs on both, and gives what the other one gives.
struct Both {
    order: usize,
    own: Session,
    other: edge_onnxruntime::Session,
    found: Found,
}

impl Executor for Both {
    fn ports(&self) -> &Ports {
        self.own.ports()
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let (own, other) = (self.own.run(inputs)?, self.other.run(inputs)?);
        for ((name, _), (own, other)) in self.own.outputs().iter().zip(own.iter().zip(&other)) {
            let Some(difference) = compare(&numbers(other), &numbers(own)) else { continue };
            let mut found = locked(&self.found);
            let here = found.entry((self.order, name.clone())).or_insert_with(|| Apart {
                component: self.own.name().into(),
                output: name.clone(),
                sqnr_db: f64::INFINITY,
                max_error: 0.0,
            });
            here.sqnr_db = here.sqnr_db.min(difference.sqnr_db);
            here.max_error = here.max_error.max(difference.max_error);
        }
        Ok(other)
    }
}

/// The elements of a tensor of floats or of pixels.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.ty.dtype {
        DType::Uint8 => tensor.bytes.iter().map(|v| f32::from(*v)).collect(),
        _ => tensor.to_f32s(),
    }
}
