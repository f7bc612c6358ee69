//! What the arguments of `quantize` say of single layers: a precision plan, and shorthands for its rules.

use anyhow::Result;
use edge_ir::{Checked, Graph};
use edge_spec::{Precision, PrecisionPlan, PrecisionRule, Scheme, Target, WeightType};

use crate::cli::Quantize;
use crate::report;

/// The scheme, the target's types, and the rules, each of which the target can follow.
pub(super) fn asked(args: &Quantize, target: &Target) -> Result<(Scheme, Precision, Vec<PrecisionRule>)> {
    let plan = args.plan.as_deref().map(PrecisionPlan::read).transpose()?;
    let (scheme, mut precision) = scheme(plan.as_ref().map(|plan| plan.scheme).or(args.precision), target)?;
    precision.block = args.block.or(precision.block);
    let mut rules = plan.map_or_else(Vec::new, |plan| plan.rules);
    let only = |option: &str, why: &str| {
        report::with_hint(format!("`{option}` has no use with {scheme}"), format!("it gives layers {why}"))
    };
    if !args.fine.is_empty() && scheme != Scheme::W8a8 {
        return Err(only("--fine", "activations of 16 bits where others have 8, as in w8a8"));
    }
    if !args.wide.is_empty() && scheme != Scheme::W4a16 {
        return Err(only("--wide", "weights of 8 bits where others have 4, as in w4a16"));
    }
    if args.block.is_some() && scheme != Scheme::W4a16 {
        let text = format!("`--block` has no use with {scheme}");
        return Err(report::with_hint(text, "it gives weights of 4 bits scales of their own, as in w4a16"));
    }
    let fine = |of: &String| (of.clone(), None, Some(precision.activations_16.into()));
    let wide = |of: &String| (of.clone(), Some(WeightType::Int8), None);
    let named = args.fine.iter().map(fine).chain(args.wide.iter().map(wide));
    rules.extend(named.map(|(of, weights, activations)| PrecisionRule { of, weights, activations }));
    match rules.iter().find_map(|rule| precision.refuses(&target.full_name(), rule)) {
        Some(reason) => Err(anyhow::Error::msg(reason)),
        None => Ok((scheme, precision, rules)),
    }
}

/// The scheme of this name, or the target's default.
pub(super) fn scheme(asked: Option<Scheme>, target: &Target) -> Result<(Scheme, Precision)> {
    let Some(precision) = &target.precision else {
        let text = format!("target `{}` takes no quantized graphs", target.name);
        let hint =
            "its SDK quantizes float graphs itself: give it the converted folder, or what `--export-float` makes of it";
        return Err(report::with_hint(text, hint));
    };
    let scheme = asked.unwrap_or(precision.schemes[0]);
    if !precision.schemes.contains(&scheme) {
        let known: Vec<String> = precision.schemes.iter().map(ToString::to_string).collect();
        let text = format!("target `{}` has no precision {scheme}", target.name);
        return Err(report::with_hint(text, format!("it has {}", known.join(", "))));
    }
    Ok((scheme, precision.clone()))
}

/// Every rule changes a layer of one of the graphs.
pub(super) fn check(rules: &[PrecisionRule], graphs: &[Checked<Graph>]) -> Result<()> {
    let graphs: Vec<Graph> = graphs.iter().map(|graph| edge_quant::fold_casts(graph)).collect();
    let idle = |rule: &&PrecisionRule| !graphs.iter().any(|graph| edge_quant::applies(rule, graph));
    let Some(rule) = rules.iter().find(idle) else { return Ok(()) };
    let of = &rule.of;
    let everything =
        PrecisionRule { weights: None, activations: Some(edge_spec::ActivationType::Float), ..rule.clone() };
    if graphs.iter().any(|graph| edge_quant::applies(&everything, graph)) {
        let text = format!("the rule of `{of}` gives weights to layers that have none");
        return Err(report::with_hint(text, "say what `activations` they have, or name a convolution or linear layer"));
    }
    let near = edge_quant::near(of, graphs.iter());
    let hint = match &near[..] {
        [] => "`edgetool inspect --nodes` lists the layers: a name is an operator, a module's path or a piece of it"
            .into(),
        names => format!("near names: {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    Err(report::with_hint(format!("`{of}`, which a rule names, is no layer that is quantized"), hint))
}
