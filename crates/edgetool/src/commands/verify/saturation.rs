//! How many of the candidate's activations are cut where they become integers, on one prompt.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use edge_ir::{Checked, Graph, Tensor};
use edge_run::Noise;
use edge_spec::Prompt;
use edge_verify::{Quantizer, Saturation, UNET, quantizers, share_outside};

use super::bisect::BUDGET;
use super::player::{Hear, Player};

/// The share that is cut at each place and in each run; nothing for a model that computes in floats.
pub(super) fn saturation(
    candidate: &Player,
    prompt: &Prompt,
    noise: &Noise,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Saturation>> {
    let found: Rc<RefCell<Vec<Saturation>>> = Rc::default();
    let parts = parts(candidate)?;
    for (index, part) in parts.iter().enumerate() {
        progress(&format!("saturation, part {} of {}", index + 1, parts.len()));
        let passes = if candidate.two_passes() { 2 } else { 1 };
        let hear: Hear = Rc::new(RefCell::new({
            let (found, part) = (Rc::clone(&found), part.clone());
            move |component: &str, run: usize, tensors: Vec<Tensor>| {
                let step = (component == UNET).then_some(run / passes);
                for (Quantizer { place, range, .. }, tensor) in part.get(component).into_iter().flatten().zip(tensors) {
                    found.borrow_mut().push(Saturation {
                        component: place.component.clone(),
                        node: place.node.clone(),
                        step: place.step.or(step),
                        share: share_outside(&tensor.to_f32s(), *range),
                    });
                }
            }
        }));
        let watch = |name: &str, _: &Checked<Graph>| part.get(name).into_iter().flatten().map(|q| q.input).collect();
        let request = candidate.request(prompt, noise.clone());
        candidate.play(&[request], &watch, &hear, &mut |_| {}, &mut |_, _| {})?;
    }
    Ok(found.take())
}

/// The places by component, so many at once as memory allows.
fn parts(candidate: &Player) -> Result<Vec<BTreeMap<String, Vec<Quantizer>>>> {
    let mut parts: Vec<BTreeMap<String, Vec<Quantizer>>> = Vec::new();
    let mut bytes = 0;
    for name in candidate.used() {
        let graph = candidate.model.graph(&name)?;
        // A network's input is none of its outputs, and cannot be watched.
        let inner = |q: &Quantizer| !graph.inputs.contains(&q.input);
        for quantizer in quantizers(&name, &graph).into_iter().filter(inner) {
            let size = graph.ty(quantizer.input).bytes();
            if parts.is_empty() || bytes + size > BUDGET {
                parts.push(BTreeMap::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(part) = parts.last_mut() {
                part.entry(name.clone()).or_default().push(quantizer);
            }
        }
    }
    Ok(parts)
}
