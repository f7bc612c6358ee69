//! Guidance without an embedding: the network's answer to the prompt is moved away from that to a negative prompt,
//! `n + w (p - n)`, in the graph.

use std::collections::BTreeMap;

use edge_ir::{Attribute, Builder, DType, Graph, Scope, ValueId};

use super::error::FoldError;
use super::time::STEP;

/// Before the names of inputs that stem from the negative prompt.
pub(super) const NEGATIVE: &str = "negative_";
/// The input for a scale that is not a constant.
pub(super) const SCALE: &str = "guidance";

/// How the two answers are had.
#[derive(Clone, Copy, Debug)]
pub enum Branches<'a> {
    /// The network is in the graph twice, with one copy of the weights; the second takes inputs named `negative_...`.
    Calls,
    /// The network runs once, on twice as many images, for which this is the UNet: those of the negative prompt come
    /// first.
    Batch(&'a Graph),
}

/// What the network is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Guide {
    /// Its answer, as it is.
    Plain,
    /// The answers to two prompts, combined; a scale that is not known is the input `guidance` `[1]`.
    Combined { batch: bool, scale: Option<f32> },
}

/// Adds the network and returns its answer to `sample`, after guidance.
pub(super) fn add(b: &mut Builder, unet: &Graph, sample: ValueId, guide: Guide) -> Result<ValueId, FoldError> {
    let Guide::Combined { batch, scale } = guide else { return call(b, unet, sample, "", false) };
    let [negative, prompted] = if batch {
        let axis = [("axis", Attribute::Int(0))];
        let both = b.node("Concat", "guidance/Concat", &[sample, sample], &axis)?;
        let output = call(b, unet, both, "", false)?;
        let half = i64::try_from(b.shape(sample)[0]).unwrap_or(i64::MAX);
        let sizes = b.ints(&[half, half]);
        let parts = b.nodes("Split", "guidance/Split", vec![Some(output), Some(sizes)], &axis)?;
        [parts[0], parts[1]]
    } else {
        let prompted = call(b, unet, sample, "prompt", false)?;
        [call(b, unet, sample, "negative", true)?, prompted]
    };
    let scale = match scale {
        Some(scale) => b.floats("guidance_scale", &[1], &[scale]),
        None => b.find_input(SCALE).unwrap_or_else(|| b.input(SCALE, DType::Float32, &[1])),
    };
    let difference = b.node("Sub", "guidance/Sub", &[prompted, negative], &[])?;
    let scaled = b.node("Mul", "guidance/Mul", &[difference, scale], &[])?;
    Ok(b.node("Add", "guidance/Add", &[negative, scaled], &[])?)
}

/// One call of the network. What stems from the prompt has other names for the negative one.
fn call(b: &mut Builder, unet: &Graph, sample: ValueId, module: &str, negative: bool) -> Result<ValueId, FoldError> {
    let mut feeds = BTreeMap::from([("sample".to_owned(), sample)]);
    for id in unet.inputs.iter().filter(|_| negative) {
        let (name, ty) = (&unet.value(*id).name, unet.ty(*id));
        if is_context(name) {
            let other = b.input(&format!("{NEGATIVE}{name}"), ty.dtype, &ty.shape);
            feeds.insert(name.clone(), other);
        }
    }
    let outputs = b.inline(unet, Scope { module, weights: "" }, &feeds)?;
    outputs.into_values().next().ok_or_else(|| FoldError::Missing { what: "output of the UNet".into() })
}

/// Whether an input of the network stems from the prompt.
pub(super) fn is_context(name: &str) -> bool {
    !["sample", "timestep", "timestep_cond", STEP].contains(&name)
}
