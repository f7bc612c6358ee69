//! What of a network has a precision of its own.
//!
//! Weights are chosen for each layer. Activations are chosen for each block (a ResNet, an attention, a feed-forward): a
//! tensor is only as good as the coarser of what makes it and what reads it, so that a single operator with wider
//! activations gains nothing.

use std::collections::BTreeMap;

use edge_ir::{DType, Graph};
use edge_spec::PrecisionRule;

use crate::Settings;
use crate::names::has_weights;
use crate::plan::is_move;
use crate::rules::Rule;

/// Pieces of paths that end a block, and whether the piece after them belongs to its name.
const BLOCKS: &[(&str, bool)] = &[("attn1", false), ("attn2", false), ("ff", false), ("resnets", true)];
/// The same where none of those is in the path.
const OUTER: &[(&str, bool)] = &[("attentions", true), ("downsamplers", true), ("upsamplers", true)];

/// Pieces of paths of layers that carry the text into the picture.
const TEXT: &[&str] = &["attn2", "ff"];

/// What of a part is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The weights of a layer.
    Weights,
    /// The activations of a block.
    Activations,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The path of its module.
    pub of: String,
    /// What is chosen.
    pub role: Role,
    /// Weights, or elements of the tensors that the block makes in a run.
    pub elements: u64,
    /// Whether it carries the text: it is judged by what the picture shows, others by the error of the latents.
    pub text: bool,
    /// Its type in the scheme; `None` for float.
    pub base: Option<DType>,
}

/// The parts of a graph whose casts of weights were folded, in order of use; outer modules stand before those in them.
pub fn parts(graph: &Graph, settings: &Settings, role: Role) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| Rule::of(node).is_some()) {
        let (of, elements, base) = match role {
            // A gain and shift for each channel is as good as free in 8 bits, and poor in 4.
            Role::Weights if !has_weights(graph, node) || node.int("group", 1) > 1 => continue,
            Role::Weights => {
                let weight = node.inputs.get(1).copied().flatten().map_or(0, |id| graph.ty(id).elements());
                (node.module().to_owned(), weight, settings.weights_of(node))
            }
            Role::Activations => {
                let Some(ty) = settings.activations_of(graph, node) else { continue };
                let made = node.outputs.iter().map(|id| graph.ty(*id).elements()).sum();
                (block(node.module()), if is_move(node) { 0 } else { made }, Some(ty))
            }
        };
        let text = of.split('.').any(|piece| TEXT.contains(&piece));
        if let Some(place) = places.get(&of) {
            found[*place].elements += elements;
        } else {
            places.insert(of.clone(), found.len());
            found.push(Part { of, role, elements, text, base });
        }
    }
    found.retain(|part| part.elements > 0);
    found.sort_by_key(|part| part.of.split('.').count());
    found
}

impl Part {
    /// Whether another part is within this one, so that a rule of this one names it too.
    pub fn holds(&self, other: &Self) -> bool {
        other.of.strip_prefix(&self.of).is_some_and(|rest| rest.starts_with('.'))
    }

    /// A rule that gives it a type.
    pub fn rule(&self, dtype: Option<DType>) -> PrecisionRule {
        let name = dtype.map_or("float", DType::name);
        // The plan's types have the names of types.
        let (weights, activations) = match self.role {
            Role::Weights => (name.parse().ok(), None),
            Role::Activations => (None, name.parse().ok()),
        };
        PrecisionRule { of: self.of.clone(), weights, activations }
    }

    /// Bytes in a type; activations in float have 16 bits on devices.
    pub fn bytes(&self, dtype: Option<DType>) -> u64 {
        match (self.role, dtype) {
            (_, Some(dtype)) => dtype.bytes(self.elements),
            (Role::Weights, None) => 4 * self.elements,
            (Role::Activations, None) => 2 * self.elements,
        }
    }
}

/// The path of the block that a module is in.
fn block(module: &str) -> String {
    let pieces: Vec<&str> = module.split('.').collect();
    let end = |rows: &[(&str, bool)]| {
        let row = |piece: &str| rows.iter().find(|row| row.0 == piece);
        pieces.iter().enumerate().find_map(|(index, piece)| Some(index + 1 + usize::from(row(piece)?.1)))
    };
    match end(BLOCKS).or_else(|| end(OUTER)) {
        Some(end) => pieces[..end.min(pieces.len())].join("."),
        None => module.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::Builder;
    use edge_spec::{Scheme, Target};

    use super::*;

    #[test]
    fn blocks_are_named_by_their_paths() {
        let check = |module: &str, expect: &str| assert_eq!(block(module), expect);
        check("conv_in", "conv_in");
        check("up_blocks.2.resnets.1.norm1", "up_blocks.2.resnets.1");
        check("up_blocks.2.resnets.1", "up_blocks.2.resnets.1");
        check("a.attentions.0.transformer_blocks.0.attn2.to_out.0", "a.attentions.0.transformer_blocks.0.attn2");
        check("a.attentions.0.transformer_blocks.0.norm1", "a.attentions.0");
        check("a.upsamplers.0.conv", "a.upsamplers.0");
    }

    #[test]
    fn layers_have_weights_and_blocks_have_activations() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2, 2, 2]);
        let w = b.floats("w", &[2, 2, 1, 1], &[0.5; 4]);
        let gain = b.floats("gain", &[2, 1, 1, 1], &[0.5; 2]);
        let attributes = |group: i64| {
            let ones = || edge_ir::Attribute::Ints(vec![1, 1]);
            [
                ("dilations", ones()),
                ("group", edge_ir::Attribute::Int(group)),
                ("kernel_shape", ones()),
                ("pads", edge_ir::Attribute::Ints(vec![0; 4])),
                ("strides", ones()),
            ]
        };
        let y = b.node("Conv", "a.resnets.0.norm1", &[x, gain], &attributes(2)).expect("a node");
        let y = b.node("Conv", "a.resnets.0.conv1", &[y, w], &attributes(1)).expect("a node");
        let y = b.node("Add", "a.resnets.0/Add", &[x, y], &[]).expect("a node");
        let y = b.node("Conv", "a.attn2.to_q", &[y, w], &attributes(1)).expect("a node");
        b.output("y", y);
        let graph = b.finish().expect("a graph");
        let precision = Target::find("qnn").expect("a target").precision.expect("a precision");
        let settings = Settings::of(Scheme::W4a16, &precision, 21);
        let found = |role| -> Vec<(String, u64, bool, Option<DType>)> {
            parts(&graph, &settings, role).into_iter().map(|p| (p.of, p.elements, p.text, p.base)).collect()
        };
        let (int4, uint16) = (Some(DType::Int4), Some(DType::Uint16));
        assert_eq!(
            found(Role::Weights),
            [("a.attn2.to_q".into(), 4, true, int4), ("a.resnets.0.conv1".into(), 4, false, int4)]
        );
        assert_eq!(
            found(Role::Activations),
            [("a.attn2".into(), 8, true, uint16), ("a.resnets.0".into(), 24, false, uint16)]
        );
        let part = &parts(&graph, &settings, Role::Weights)[0];
        assert_eq!((part.bytes(int4), part.bytes(None)), (2, 16));
        assert_eq!(part.rule(None).to_string(), format!("{{of: {}, weights: float}}", part.of));
    }
}
