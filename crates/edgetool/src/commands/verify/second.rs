//! A second opinion: the candidate draws on ONNX Runtime, and every graph runs on the built-in executor after it, on the
//! same inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
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

/// The runs of each component: inputs, and what came out.
type Runs = Arc<Mutex<BTreeMap<String, Vec<[Vec<Tensor>; 2]>>>>;

/// How far apart the two are on one prompt, of which `ours` is the picture of the built-in executor.
///
/// Each executor has its turn, so that no network is in memory twice.
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
    let runs = Runs::default();
    let load = |name: &str, graph: &Checked<Graph>| -> Result<Box<dyn Executor>, Error> {
        let failed = |source: Failure| Error::Component { name: name.to_owned(), source };
        let file = manifest.component(name).map(|component| folder.join(&component.file));
        let file: PathBuf = file.ok_or_else(|| failed(format!("`{}` has no {name}", folder.display()).into()))?;
        let session = library.session(&file, graph).map_err(|e| failed(e.into()))?;
        Ok(Box::new(Recorded { name: name.to_owned(), session, runs: Arc::clone(&runs) }))
    };
    let request = candidate.request(prompt, noise.clone());
    let drawn = candidate.play_on(&candidate.model.graphs(), &[request], &load, progress)?;
    let mut apart = Vec::new();
    for name in candidate.used() {
        let runs = locked(&runs).remove(&name).unwrap_or_default();
        progress(&format!("{name}, beside the built-in executor"));
        apart.extend(beside(&candidate.model.graph(&name)?, &runs)?);
    }
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

/// Keeps what it was given and what it gave.
struct Recorded {
    name: String,
    session: edge_onnxruntime::Session,
    runs: Runs,
}

impl Executor for Recorded {
    fn ports(&self) -> &Ports {
        self.session.ports()
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let outputs = self.session.run(inputs)?;
        locked(&self.runs).entry(self.name.clone()).or_default().push([inputs.to_vec(), outputs.clone()]);
        Ok(outputs)
    }
}

/// How far each output of the built-in executor is from that of these runs, at the worst.
fn beside(graph: &Checked<Graph>, runs: &[[Vec<Tensor>; 2]]) -> Result<Vec<Apart>> {
    let mut own = Session::load(graph)?;
    let mut found: BTreeMap<String, Apart> = BTreeMap::new();
    for [inputs, theirs] in runs {
        let ours = own.run(inputs).map_err(|e| anyhow!(e))?;
        for ((name, _), (ours, theirs)) in own.outputs().iter().zip(ours.iter().zip(theirs)) {
            let Some(difference) = compare(&numbers(theirs), &numbers(ours)) else { continue };
            let here = found.entry(name.clone()).or_insert_with(|| Apart {
                component: graph.name.clone(),
                output: name.clone(),
                sqnr_db: f64::INFINITY,
                max_error: 0.0,
            });
            here.sqnr_db = here.sqnr_db.min(difference.sqnr_db);
            here.max_error = here.max_error.max(difference.max_error);
        }
    }
    Ok(found.into_values().collect())
}

/// The elements of a tensor of floats or of pixels.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.ty.dtype {
        DType::Uint8 => tensor.bytes.iter().map(|v| f32::from(*v)).collect(),
        _ => tensor.to_f32s(),
    }
}
