//! An estimate of what a network takes on a device, from a target's figures.

use edge_ir::ops::Context;
use edge_ir::{DType, Graph, Node};
use edge_spec::Speed;

use crate::Settings;
use crate::plan::is_move;
use crate::rules::{Operand, Rule};

/// Picoseconds of a run of a graph whose casts of weights were folded: all products, and all bytes of weights that are
/// read and of activations that are made, one after the other. What only moves elements takes nothing.
pub fn estimate(graph: &Graph, settings: &Settings, speed: &Speed) -> f64 {
    graph.nodes.iter().filter(|node| !is_move(node)).map(|node| of_node(graph, node, settings, speed)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn of_node(graph: &Graph, node: &Node, settings: &Settings, speed: &Speed) -> f64 {
    let activations = settings.activations_of(graph, node);
    let rule = Rule::of(node);
    let weight = node.inputs.iter().enumerate().find_map(|(index, id)| {
        let is_weight = matches!(rule?.operand(graph, node, index)?, Operand::Weight(_));
        is_weight.then(|| graph.ty((*id)?).elements().into())?
    });
    let weights = settings.weights_of(node);
    // The other operand of a product: a weight, or what another layer made.
    let other =
        if weight.is_some() { weights } else { settings.second.filter(|_| is_wide(activations)).or(activations) };
    let outputs: Vec<_> = node.outputs.iter().map(|id| graph.ty(*id).clone()).collect();
    let types = node.inputs.iter().map(|id| id.map(|id| graph.ty(id))).collect();
    let macs = (node.op.macs)(&Context { node, types, data: Vec::new() }, &outputs) as f64;
    let bytes = |ty: Option<DType>, elements: u64| ty.unwrap_or(DType::Float16).bytes(elements) as f64;
    let made: f64 = outputs.iter().map(|ty| bytes(activations, ty.elements())).sum();
    let moved = made + weight.map_or(0.0, |elements| bytes(weights, elements));
    1000.0 * (macs * times(activations, other, speed) / speed.gmacs_per_s + moved / speed.gb_per_s)
}

/// How long a product takes, in times of one of 8 bits with 8 bits.
fn times(activations: Option<DType>, other: Option<DType>, speed: &Speed) -> f64 {
    match (activations.zip(other), is_wide(activations), is_wide(other)) {
        (None, ..) => speed.times.float,
        (_, false, false) => 1.0,
        (_, true, true) => speed.times.w16a16,
        _ => speed.times.w8a16,
    }
}

fn is_wide(ty: Option<DType>) -> bool {
    matches!(ty, Some(DType::Int16 | DType::Uint16))
}

#[cfg(test)]
mod tests {
    use edge_ir::{Attribute, Builder};
    use edge_spec::{ActivationType, PrecisionRule, Scheme, Target, Times, WeightType};

    use super::*;

    #[test]
    fn products_and_bytes_take_what_the_target_says() {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 2, 4, 4]);
        let w = b.floats("w", &[3, 2, 1, 1], &[0.5; 6]);
        let ones = || Attribute::Ints(vec![1, 1]);
        let attributes = [
            ("dilations", ones()),
            ("group", Attribute::Int(1)),
            ("kernel_shape", ones()),
            ("pads", Attribute::Ints(vec![0; 4])),
            ("strides", ones()),
        ];
        let y = b.node("Conv", "a", &[x, w], &attributes).expect("a node");
        let shape = b.ints(&[1, 48]);
        let y = b.node("Reshape", "a/Reshape", &[y, shape], &[]).expect("a node");
        let y = b.node("Mul", "b", &[y, y], &[]).expect("a node");
        b.output("y", y);
        let graph = b.finish().expect("a graph");
        let precision = Target::find("qnn").expect("a target").precision.expect("a precision");
        let times = Times { w8a16: 2.0, w16a16: 5.0, float: 7.0 };
        let speed = Speed { gmacs_per_s: 4.0, gb_per_s: 8.0, times };
        // 96 products, 6 weights, 48 elements made twice.
        let check = |scheme, rule: Option<PrecisionRule>, times: f64, bytes: f64| {
            let mut settings = Settings::of(scheme, &precision, 21);
            settings.rules.extend(rule);
            let found = estimate(&graph, &settings, &speed);
            let expected = 1000.0 * (96.0 * times / 4.0 + bytes / 8.0);
            assert!((found - expected).abs() < 1e-6, "{scheme}: {found}, expected {expected}");
        };
        check(Scheme::W8a8, None, 1.0, 102.0);
        check(Scheme::W8a16, None, 2.0, 198.0);
        check(Scheme::W4a16, None, 2.0, 195.0);
        check(Scheme::W8, None, 7.0, 198.0);
        let rule = |weights, activations| Some(PrecisionRule { of: "a".into(), weights, activations });
        check(Scheme::W8a8, rule(None, Some(ActivationType::Uint16)), 2.0, 150.0);
        check(Scheme::W8a16, rule(Some(WeightType::Int16), None), 5.0, 204.0);
        check(Scheme::W8a16, rule(Some(WeightType::Float16), None), 7.0, 204.0);
    }
}
