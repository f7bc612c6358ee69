//! Where in a pipeline a node is, whatever graph it was folded into.
//!
//! The node `down_blocks.0.resnets.0.conv1` of an unfolded UNet is `steps.1.down_blocks.0.resnets.0.conv1` of the graph
//! `sampler`, and `unet.steps.1.prompt.down_blocks.0.resnets.0.conv1` of the graph `pipeline`. A [`Place`] is the same for
//! all of them, so that models of different forms can be compared node by node.

use edge_ir::{Graph, Node, ValueId, View};

/// The scheduler's step, which is in the UNet's graphs or outside of all.
pub const SCHEDULER: &str = "scheduler";
/// The component that denoises.
pub const UNET: &str = "unet";
/// The component that reads the prompt.
pub const TEXT_ENCODER: &str = "text_encoder";

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `text_encoder`, `unet`, `scheduler`, `vae_decoder`, `taesd_decoder`.
    pub component: String,
    /// The step's index; none outside of the steps, and where the same graph is run for each.
    pub step: Option<usize>,
    /// Whether it answers to the negative prompt.
    pub negative: bool,
    /// Its name in the component.
    pub node: String,
}

/// The place of a node of a component's graph.
pub fn place(component: &str, node: &str) -> Place {
    let mut place = Place { component: component.into(), step: None, negative: false, node: node.into() };
    if component == "pipeline" {
        place.peel_component();
    }
    if let Some(step) = component.strip_prefix("unet_step_").and_then(|k| k.parse().ok()) {
        place.step = Some(step);
    }
    if place.step.is_some() || component == "sampler" {
        place.component = UNET.into();
    }
    // Keys and values of cross-attentions that moved into the text encoder are the UNet's.
    if place.component == TEXT_ENCODER && place.peel("unet.") {
        place.component = UNET.into();
    }
    if place.component == UNET {
        place.peel_step();
        place.negative |= place.peel("negative.");
        place.peel("prompt.");
        if place.node.starts_with("scheduler/") {
            place.component = SCHEDULER.into();
        }
    }
    place
}

impl Place {
    fn peel(&mut self, prefix: &str) -> bool {
        let rest = self.node.strip_prefix(prefix).map(str::to_owned);
        rest.map(|rest| self.node = rest).is_some()
    }

    fn peel_component(&mut self) {
        self.component = UNET.into();
        if self.peel("negative_text_encoder.") {
            self.component = TEXT_ENCODER.into();
            self.negative = true;
            return;
        }
        for name in [TEXT_ENCODER, UNET, "vae_decoder", "taesd_decoder"] {
            if self.peel(&format!("{name}.")) {
                self.component = name.into();
                return;
            }
        }
    }

    fn peel_step(&mut self) {
        let Some((step, rest)) = self.node.strip_prefix("steps.").and_then(|rest| rest.split_once('.')) else { return };
        if let Ok(step) = step.parse() {
            (self.step, self.node) = (Some(step), rest.to_owned());
        }
    }

    fn module(&self) -> &str {
        self.node.split('/').next().unwrap_or(&self.node)
    }
}

/// What a pipeline hands on from one part to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Landmark {
    /// The text encoder's hidden states.
    Context,
    /// The UNet's output, after guidance.
    Output(Option<usize>),
    /// The latent after the scheduler's step.
    Latent(Option<usize>),
}

/// The values of a graph that a pipeline hands on, also those that were folded into it.
pub fn landmarks(component: &str, graph: &Graph) -> Vec<(Landmark, ValueId)> {
    let mut found = std::collections::BTreeMap::new();
    let mut guided = std::collections::BTreeSet::new();
    for node in &graph.nodes {
        let place = place(component, &node.name);
        let Some(output) = node.outputs.first().copied().filter(|_| !place.negative) else { continue };
        match (place.component.as_str(), place.module()) {
            (TEXT_ENCODER, "text_model.final_layer_norm") => {
                found.insert(Landmark::Context, output);
            }
            (UNET, "conv_out") if !guided.contains(&place.step) => {
                found.insert(Landmark::Output(place.step), output);
            }
            (UNET, "guidance") if place.node == "guidance/Add" => {
                found.insert(Landmark::Output(place.step), output);
                guided.insert(place.step);
            }
            // The last node of a step makes its latent.
            (SCHEDULER, _) => {
                found.insert(Landmark::Latent(place.step), output);
            }
            _ => {}
        }
    }
    // A lowered text encoder ends in other nodes than its norm.
    if let Some(id) = graph.outputs.iter().find(|id| graph.value(**id).name == "last_hidden_state") {
        found.insert(Landmark::Context, *id);
    }
    found.into_iter().collect()
}

/// Scores of an attention that have more bytes are not compared: nothing else holds so much in memory, and what follows
/// from them is compared.
const MOST_SCORES: u64 = 8 << 20;

/// The nodes whose outputs can be compared: those that depend on an input, and are numbers.
pub fn comparable(graph: &Graph) -> Vec<usize> {
    let scores = scores(graph);
    let mut fed: std::collections::BTreeSet<ValueId> = graph.inputs.iter().copied().collect();
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.inputs.iter().flatten().any(|id| fed.contains(id)) {
            fed.extend(&node.outputs);
            if is_number(graph, node) && !scores.contains(&index) {
                found.push(index);
            }
        }
    }
    found
}

/// The nodes that make an attention's large scores: a `Softmax`, and what leads to it from the product before it.
fn scores(graph: &Graph) -> std::collections::BTreeSet<usize> {
    let view = View::new(graph);
    let large = |node: &Node| node.outputs.first().is_some_and(|id| graph.ty(*id).bytes() > MOST_SCORES);
    let mut found = std::collections::BTreeSet::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.op.name == "Softmax" && large(node)) {
        found.insert(index);
        let mut input = node.inputs.first().copied().flatten();
        while let Some((index, maker)) = input.and_then(|id| view.any_maker(id)).filter(|(_, node)| large(node)) {
            found.insert(index);
            input = maker.inputs.first().copied().flatten().filter(|_| maker.op.name != "MatMul");
        }
    }
    found
}

fn is_number(graph: &Graph, node: &Node) -> bool {
    node.outputs.first().is_some_and(|id| graph.ty(*id).dtype == edge_ir::DType::Float32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_in_every_form() {
        let at = |component: &str, step, negative, node: &str| Place {
            component: component.into(),
            step,
            negative,
            node: node.into(),
        };
        for (component, node, expect) in [
            ("unet", "conv_in", at("unet", None, false, "conv_in")),
            ("unet", "negative.conv_in", at("unet", None, true, "conv_in")),
            ("unet_step_1", "prompt.conv_in", at("unet", Some(1), false, "conv_in")),
            ("sampler", "steps.0.conv_in", at("unet", Some(0), false, "conv_in")),
            ("sampler", "steps.0.scheduler/Add.next", at("scheduler", Some(0), false, "scheduler/Add.next")),
            ("pipeline", "unet.steps.1.negative.conv_in", at("unet", Some(1), true, "conv_in")),
            ("pipeline", "negative_text_encoder.text_model.x", at("text_encoder", None, true, "text_model.x")),
            ("pipeline", "guidance/Concat.x", at("unet", None, false, "guidance/Concat.x")),
            ("pipeline", "vae_decoder.decoder.conv_in", at("vae_decoder", None, false, "decoder.conv_in")),
            ("text_encoder", "unet.mid.attn2.to_k", at("unet", None, false, "mid.attn2.to_k")),
        ] {
            assert_eq!(place(component, node), expect, "{component} {node}");
        }
    }
}
