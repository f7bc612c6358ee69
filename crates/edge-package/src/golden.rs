//! Recorded runs as raw files, and what the manifest says of them.

use edge_ir::Tensor;
use edge_spec::bundle::{Content, Contents, GoldenRun, GoldenTensor};

use crate::Call;

/// Puts a run's tensors below `folder` and describes them.
pub(crate) fn run(call: &Call, folder: &str, min_sqnr_db: f32, files: &mut Contents) -> GoldenRun {
    let mut side = |side: &str, tensors: &[(String, Tensor)]| {
        tensors.iter().map(|(name, tensor)| entry(name, tensor, &format!("{folder}/{side}"), files)).collect()
    };
    GoldenRun {
        component: call.component.clone(),
        inputs: side("inputs", &call.inputs),
        outputs: side("outputs", &call.outputs),
        min_sqnr_db,
    }
}

fn entry(name: &str, tensor: &Tensor, folder: &str, files: &mut Contents) -> GoldenTensor {
    let file = format!("{folder}/{name}.raw");
    files.insert(file.clone(), Content::Bytes(tensor.bytes.clone()));
    GoldenTensor {
        name: name.to_owned(),
        dtype: tensor.ty.dtype.name().to_owned(),
        shape: tensor.ty.shape.clone(),
        file,
    }
}

/// A folder's name for each run: the component's, with a number where it runs more than once.
pub(crate) fn folders(calls: &[Call]) -> Vec<String> {
    let name = |(index, call): (usize, &Call)| {
        let same = |calls: &[Call]| calls.iter().filter(|c| c.component == call.component).count();
        match same(calls) {
            1 => call.component.clone(),
            _ => format!("{}-{}", call.component, same(&calls[..index])),
        }
    };
    calls.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_graph_are_numbered() {
        let call = |name: &str| Call { component: name.into(), inputs: Vec::new(), outputs: Vec::new() };
        assert_eq!(folders(&["a", "b", "b", "c"].map(call)), ["a", "b-0", "b-1", "c"]);
    }
}
