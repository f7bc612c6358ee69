//! Keys and values of the cross-attentions depend on the prompt alone: their projections move from the UNet to the end
//! of the text encoder, and run once for a prompt instead of once for a step.

use std::collections::BTreeMap;

use edge_ir::{Builder, Checked, Graph, Scope, ValueId};

use super::error::FoldError;
use super::slice::{Slice, pruned, slice};

/// The UNet's input that the projections read, which the text encoder's output feeds.
const CONTEXT: &str = "encoder_hidden_states";

/// The text encoder with the projections of `unet`. In place of the hidden states it gives keys
/// `[n,heads,width,tokens]` and values `[n,heads,tokens,width]` of each attention, under the projection's name.
pub(super) fn into_text(text: &Graph, unet: &Graph) -> Result<Checked<Graph>, FoldError> {
    let slice = slice(unet, &[CONTEXT]);
    let mut moved = unet.clone();
    moved.inputs.retain(|id| unet.value(*id).name == CONTEXT);
    moved.outputs.clone_from(&slice.frontier);
    let mut b = Builder::new(&text.name);
    let outputs = b.inline(text, Scope::default(), &BTreeMap::new())?;
    let hidden =
        outputs.into_values().next().ok_or_else(|| FoldError::Missing { what: "output of the text encoder".into() })?;
    let feeds = BTreeMap::from([(CONTEXT.to_owned(), hidden)]);
    let outputs = b.inline(&moved, Scope { module: "unet", weights: "unet" }, &feeds)?;
    for id in &slice.frontier {
        b.output(&public_name(unet, *id, &slice), outputs[&unet.value(*id).name]);
    }
    Ok(b.finish()?)
}

/// The UNet that takes these keys and values in place of the hidden states.
pub(super) fn out_of(unet: &Graph) -> Result<Checked<Graph>, FoldError> {
    let slice = slice(unet, &[CONTEXT]);
    let mut rest = slice.cut(unet);
    rest.inputs.retain(|id| unet.value(*id).name != CONTEXT);
    for id in &slice.frontier {
        rest.value_mut(*id).name = public_name(unet, *id, &slice);
        rest.inputs.push(*id);
    }
    pruned(rest)
}

/// The module of the projection that a value stems from, as an identifier: `..._attn2_to_k`.
fn public_name(graph: &Graph, id: ValueId, slice: &Slice) -> String {
    let maker = slice.nodes.iter().map(|i| &graph.nodes[*i]).find(|n| n.outputs.contains(&id));
    let module = maker.map_or(graph.value(id).name.as_str(), |n| n.module());
    module.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
