//! How a network is quantized: a scheme in a target's types, and rules for the layers that differ from it.

use std::collections::BTreeMap;

use edge_ir::{DType, Graph, Node, ValueId};
use edge_spec::{ActivationType, Biases, Precision, PrecisionRule, Scheme, WeightType};

use crate::WeightScheme;
use crate::names::has_weights;
use crate::rules::{Operand, Rule};

/// What has activations of 16 bits where others have 8: what enters and leaves the network passes it, and the scheduler's
/// step multiplies every error of the latents.
const FINE_PARTS: &[&str] = &["conv_in", "conv_norm_out", "conv_act", "conv_out", "scheduler"];
/// The convolutions beside a ResNet block, which carry on what enters it.
const SHORTCUT: &str = "conv_shortcut";
/// What has weights of the next wider type, for the same reason; they are few.
const WIDE_PARTS: &[&str] = &["conv_in", "conv_out"];

/// Modules that stay in float: angles of several turns, of which the sine is taken.
const FLOAT_MODULES: &[&str] = &["time_proj"];

/// How a graph is quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Type of activations; float if absent.
    pub activations: Option<DType>,
    /// Type of weights, `float16` among them; as they are if absent.
    pub weights: Option<DType>,
    /// Inputs that share a scale of 4-bit weights; all of a channel if absent.
    pub block: Option<usize>,
    /// Type of what 8 bits are too few for, where it is wider than that of others: attention's shares and the products
    /// with them, as of many keys each has a share that is nothing in 255 steps from 0 to 1; residual sums and the
    /// convolutions beside them, which carry everything on and are rounded again in each block.
    pub carried: Option<DType>,
    /// Whether biases are `int32`.
    pub integer_biases: bool,
    /// Type of the second operand of a product of two activations of 16 bits, if it is another.
    pub second: Option<DType>,
    /// Type of the weights of depthwise convolutions between activations of 16 bits, if it is another.
    pub depthwise: Option<DType>,
    /// Channels up to which such a convolution has a scale for each, if there is a limit; beyond, it has one.
    pub depthwise_scales: Option<u32>,
    /// Significant bits of the factors that make integers of 16 bits of a layer's sums, if they are few.
    pub multiplier_bits: Option<u32>,
    /// Types of gains, by operator.
    pub gains: BTreeMap<String, DType>,
    /// What some layers have instead. Of several rules that name a layer the last one counts, for weights and activations
    /// apart.
    pub rules: Vec<PrecisionRule>,
    /// ONNX opset.
    pub opset: u32,
}

impl Settings {
    /// A scheme for a target, with the rules that every scheme has.
    pub fn of(scheme: Scheme, precision: &Precision, opset: u32) -> Self {
        let dtype = |integer: edge_spec::Integer| DType::from_name(integer.name());
        let fine = dtype(precision.activations_16);
        let (weights, activations) = match scheme {
            Scheme::W8a16 => (DType::Int8, fine),
            Scheme::W8a8 => (DType::Int8, dtype(precision.activations_8)),
            Scheme::W4a16 => (DType::Int4, fine),
            Scheme::W8 => (DType::Int8, None),
            Scheme::Fp16 => (DType::Float16, None),
        };
        let rule = |of: &&str, weights, activations| PrecisionRule { of: (*of).to_owned(), weights, activations };
        let wide = |ty| WIDE_PARTS.iter().map(|of| rule(of, Some(ty), None)).collect();
        let rules = match scheme {
            Scheme::W8a8 => FINE_PARTS.iter().map(|of| rule(of, None, Some(precision.activations_16.into()))).collect(),
            Scheme::W4a16 => wide(WeightType::Int8),
            Scheme::W8 if precision.schemes.contains(&Scheme::Fp16) => wide(WeightType::Float16),
            Scheme::W8a16 | Scheme::W8 | Scheme::Fp16 => Vec::new(),
        };
        Self {
            activations,
            weights: Some(weights),
            block: precision.block,
            carried: fine.filter(|_| scheme == Scheme::W8a8),
            integer_biases: precision.biases == Biases::Int32,
            second: precision.matmul_second_16.and_then(dtype),
            depthwise: precision.depthwise_16.and_then(dtype),
            depthwise_scales: precision.depthwise_scales_16,
            multiplier_bits: precision.multiplier_bits_16,
            gains: precision.gains.iter().filter_map(|(op, ty)| Some((op.clone(), dtype(*ty)?))).collect(),
            rules,
            opset,
        }
    }

    /// Whether any layer's activations may be integers.
    pub fn quantizes_activations(&self) -> bool {
        let by_rule = |rule: &PrecisionRule| rule.activations.is_some_and(|ty| ty != ActivationType::Float);
        self.activations.is_some() || self.rules.iter().any(by_rule)
    }

    /// Whether anything of a graph is quantized, or stored in 16 bits of float.
    pub fn changes(&self, graph: &Graph) -> bool {
        let changes = |node: &Node| {
            self.activations_of(graph, node).is_some() || has_weights(graph, node) && self.weights_of(node).is_some()
        };
        graph.nodes.iter().any(changes)
    }

    /// The type of the activations of a node that can be quantized; `None` if it computes in float.
    pub fn activations_of(&self, graph: &Graph, node: &Node) -> Option<DType> {
        let rule = Rule::of(node)?;
        if FLOAT_MODULES.iter().any(|module| is_part(node, module)) {
            return None;
        }
        let ty = self.activations_of_rules(graph, node)?;
        let is_weight = |index| matches!(rule.operand(graph, node, index), Some(Operand::Weight(_)));
        let in_float = (0..node.inputs.len()).any(is_weight) && self.weights_of(node).is_none_or(DType::is_float);
        (!in_float).then_some(ty)
    }

    /// What rules or the scheme say. A rule of a module does not narrow what is carried on; one that names it does.
    fn activations_of_rules(&self, graph: &Graph, node: &Node) -> Option<DType> {
        let mut rules = self.rules.iter().rev().filter(|rule| rule.activations.is_some() && is_part(node, &rule.of));
        let rule = rules.next();
        let ty = rule.and_then(|rule| rule.activations).map_or(self.activations, activation_dtype)?;
        let is_named = |of: &str| of == node.op.name || of == node.name || of.ends_with(SHORTCUT);
        let is_own = rule.is_some_and(|rule| is_named(&rule.of));
        let carried = self.carried.filter(|wide| !is_own && wide.bytes(1) > ty.bytes(1) && carries(graph, node));
        Some(carried.unwrap_or(ty))
    }

    /// The type of the weights of a node; `None` if they stay as they are.
    pub fn weights_of(&self, node: &Node) -> Option<DType> {
        let named = self.rules.iter().rev().filter(|rule| is_part(node, &rule.of)).find_map(|rule| rule.weights);
        match (named, self.weights) {
            (Some(ty), _) => weight_dtype(ty),
            (None, Some(ty)) if node.int("group", 1) > 1 => Some(self.depthwise_weights(ty)),
            (None, ty) => ty,
        }
    }

    /// The type of the weights of depthwise convolutions where others have `ty`.
    fn depthwise_weights(&self, ty: DType) -> DType {
        match self.depthwise.filter(|_| matches!(self.activations, Some(DType::Uint16 | DType::Int16))) {
            Some(own) if !ty.is_float() => own,
            // A channel has too few weights for so few steps.
            _ if ty == DType::Int4 => DType::Int8,
            _ => ty,
        }
    }

    /// How the weight of a node is quantized, which has this shape and its output channels on this axis; `None` if it is
    /// not.
    pub(crate) fn weight_of(&self, node: &Node, shape: &[usize], axis: usize) -> Option<WeightScheme> {
        let dtype = self.weights_of(node).filter(|ty| !ty.is_float())?;
        // Blocks of a convolution over several pixels would have a scale for each of them.
        let matrix = shape.iter().skip(2).all(|d| *d == 1);
        let block = self.block.filter(|_| dtype == DType::Int4 && matrix);
        Some(WeightScheme { dtype, axis, block })
    }

    /// The type of the gain of a norm: as wide as its activations, if nothing else is said.
    pub(crate) fn gain_of(&self, node: &Node, activations: DType) -> DType {
        self.gains.get(node.op.name).copied().unwrap_or(activations)
    }
}

/// Whether a node makes attention's shares or multiplies by them, or is a residual sum or beside one.
fn carries(graph: &Graph, node: &Node) -> bool {
    let is_share = |id: &ValueId| graph.nodes.iter().any(|n| n.op.name == "Softmax" && n.outputs.contains(id));
    match node.op.name {
        "Softmax" | "Add" => true,
        "MatMul" if node.inputs.iter().flatten().any(is_share) => true,
        _ => node.module().ends_with(SHORTCUT),
    }
}

fn activation_dtype(ty: ActivationType) -> Option<DType> {
    DType::from_name(&ty.to_string())
}

fn weight_dtype(ty: WeightType) -> Option<DType> {
    DType::from_name(&ty.to_string())
}

/// Whether a rule's `of` names a node: by its operator, its own name, its module alone (which ends in `/`), or a path or
/// piece of a path that its module is in.
pub(crate) fn is_part(node: &Node, of: &str) -> bool {
    match of.strip_suffix('/') {
        Some(module) => node.module() == module,
        None => node.op.name == of || node.name == of || format!(".{}.", node.module()).contains(&format!(".{of}.")),
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder, Graph};
    use edge_spec::Target;

    use super::*;

    /// Scores, their softmax and the product with it.
    fn attention() -> Graph {
        let mut b = Builder::new("g");
        let q = b.input("q", DType::Float32, &[1, 4, 8]);
        let k = b.input("k", DType::Float32, &[1, 8, 4]);
        let v = b.input("v", DType::Float32, &[1, 4, 8]);
        let scores = b.node("MatMul", "block.attn1/scores", &[q, k], &[]).expect("fits");
        let shares = b.node("Softmax", "block.attn1/shares", &[scores], &[("axis", Attribute::Int(-1))]).expect("fits");
        let y = b.node("MatMul", "block.attn1/values", &[shares, v], &[]).expect("fits");
        b.output("y", y);
        b.finish().expect("a graph").into_inner()
    }

    #[test]
    fn modules_do_not_narrow_residual_sums_and_shortcuts() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 4]);
        let w = b.floats("w", &[4, 4], &[0.5; 16]);
        let beside = b.node("MatMul", "up.resnets.0.conv_shortcut", &[x, w], &[]).expect("fits");
        let inner = b.node("MatMul", "up.resnets.0.conv1", &[x, w], &[]).expect("fits");
        let y = b.node("Add", "up.resnets.0/Add", &[beside, inner], &[]).expect("fits");
        b.output("y", y);
        let graph = b.finish().expect("a graph").into_inner();
        let precision = Target::find("qnn").expect("built in").precision.expect("some");
        let narrow_rule = ActivationType::from(precision.activations_8);
        let types = |of: Option<&str>| {
            let mut settings = Settings::of(Scheme::W8a8, &precision, 21);
            let rule = |of: &str| PrecisionRule { of: of.into(), weights: None, activations: Some(narrow_rule) };
            settings.rules.extend(of.map(rule));
            graph.nodes.iter().map(|node| settings.activations_of(&graph, node)).collect::<Vec<_>>()
        };
        let (narrow, wide) = (Some(DType::Uint8), Some(DType::Uint16));
        assert_eq!(types(None), [wide, narrow, wide]);
        assert_eq!(types(Some("up.resnets.0")), [wide, narrow, wide]);
        assert_eq!(types(Some("conv_shortcut")), [narrow, narrow, wide]);
        assert_eq!(types(Some("Add")), [wide, narrow, narrow]);
    }

    #[test]
    fn modules_do_not_narrow_attentions_shares_and_operators_do() {
        let precision = Target::find("qnn").expect("built in").precision.expect("some");
        let types = |scheme, rules: &[(&str, ActivationType)]| {
            let mut settings = Settings::of(scheme, &precision, 21);
            let rule = |(of, ty): &(&str, ActivationType)| PrecisionRule {
                of: (*of).to_owned(),
                weights: None,
                activations: Some(*ty),
            };
            settings.rules.extend(rules.iter().map(rule));
            let graph = attention();
            graph.nodes.iter().map(|node| settings.activations_of(&graph, node)).collect::<Vec<_>>()
        };
        let (narrow, wide) = (Some(DType::Uint8), Some(DType::Uint16));
        let narrow_rule = ActivationType::from(precision.activations_8);
        assert_eq!(types(Scheme::W8a8, &[]), [narrow, wide, wide]);
        assert_eq!(types(Scheme::W8a8, &[("block.attn1", narrow_rule)]), [narrow, wide, wide]);
        assert_eq!(types(Scheme::W8a8, &[("Softmax", narrow_rule)]), [narrow, narrow, wide]);
        assert_eq!(types(Scheme::W8a8, &[("attn1", ActivationType::Float)]), [None, None, None]);
        assert_eq!(types(Scheme::W8a16, &[]), [wide, wide, wide]);
        assert_eq!(types(Scheme::W8, &[]), [None, None, None]);
    }

    #[test]
    fn the_first_and_the_last_convolution_have_weights_of_the_next_wider_type() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 4]);
        let w = b.floats("w", &[4, 4], &[0.5; 16]);
        let first = b.node("MatMul", "conv_in", &[x, w], &[]).expect("fits");
        let between = b.node("MatMul", "mid.conv1", &[first, w], &[]).expect("fits");
        let last = b.node("MatMul", "conv_out", &[between, w], &[]).expect("fits");
        b.output("y", last);
        let graph = b.finish().expect("a graph").into_inner();
        let types = |target: &str, scheme| {
            let precision = Target::find(target).expect("built in").precision.expect("some");
            let settings = Settings::of(scheme, &precision, 21);
            graph.nodes.iter().map(|node| settings.weights_of(node).expect("a type")).collect::<Vec<_>>()
        };
        for (target, scheme, ends, others) in [
            ("qnn", Scheme::W4a16, DType::Int8, DType::Int4),
            ("qnn", Scheme::W8, DType::Float16, DType::Int8),
            ("openvino", Scheme::W8, DType::Float16, DType::Int8),
            ("qnn", Scheme::W8a16, DType::Int8, DType::Int8),
        ] {
            assert_eq!(types(target, scheme), [ends, others, ends], "{target} {scheme}");
        }
    }
}
