//! `edgetool sensitivity`: which layers need more bits.

mod bench;
mod chain;
mod page;
mod study;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use edge_ir::{Checked, DType, Graph};
use edge_quant::Settings;
use edge_quant::calibration::{self, Statistics};
use edge_quant::mixed::Role;
use edge_spec::{ActivationType, Manifest, Precision, PrecisionPlan, PrecisionRule, Scheme, Speed, Target, WeightType};

use super::calibrate::{SharedInputs, lock};
use super::copies::directory;
use super::model::Model;
use super::repair::Repairs;
use super::{plan, quantize};
use crate::cli::{Budget, By, Sensitivity};
use crate::report;
use crate::staging::Staging;

pub(super) use bench::{Bench, Drawn, decibels, loaded, prompts};
use chain::Network;
use study::Study;

/// Prompts that are drawn if nothing is said.
const PROMPTS: usize = 8;
/// Prompts that are drawn once, to see what layers read and what values tensors take: times of those that are drawn for
/// each part.
const SEEN: usize = 4;

/// Measures, chooses, and writes the plan.
pub(crate) fn sensitivity(args: &Sensitivity) -> Result<()> {
    super::set_threads(args.threads)?;
    let cannot = || format!("cannot choose precisions for `{}`", args.model.display());
    let model = quantize::open(&args.model)?;
    let Model::Converted { manifest, .. } = &model else { return Err(quantize::not_converted(&args.model)) };
    let target = quantize::target(&args.model, args.target.as_deref(), manifest).with_context(cannot)?;
    let (scheme, precision) = plan::scheme(args.precision, &target)?;
    if scheme == Scheme::Fp16 {
        let text = "fp16 has no integers to choose for".to_owned();
        return Err(report::with_hint(text, "begin with w4a16, w8a16, w8a8 or w8"));
    }
    let chosen = quantize::chosen(&args.model, &args.component, manifest)?;
    let prompts = prompts(&args.calibration, args.number, PROMPTS)?;
    let output = Staging::file(&args.output)?;
    let settings = Settings::of(scheme, &precision, manifest.opset);
    let types = Types::new(args, scheme, &precision, &target)?;
    let speed = speed(args, &target)?;
    let repairs = Repairs::usual(args.rounding);
    let inputs = repairs.inputs(manifest, &chosen);
    let statistics = statistics(args, &model, &settings, &types, &chosen, inputs.as_ref())?;
    let inputs = inputs.map(|inputs| lock(&inputs).clone());
    let graphs =
        chosen.iter().map(|name| Ok((name.clone(), model.graph(name)?))).collect::<Result<BTreeMap<_, _>>>()?;
    if let Some(statistics) = &statistics {
        graphs.iter().try_for_each(|(name, graph)| statistics.check_graph(name, graph))?;
    }
    let network = |(name, graph): (&String, &Checked<Graph>)| Ok((name.clone(), Arc::new(Network::load(graph)?)));
    let networks = graphs.iter().map(network).collect::<Result<BTreeMap<_, _>>>().with_context(cannot)?;
    // The inputs of the first network are the same in each form of it and of those after it.
    let float = |name: &str| study::float(&networks, name, *name == chosen[0]);
    let bench = Bench::new(&args.model, &model, &prompts, &chosen, &float).with_context(cannot)?;
    let check = args.check.map(|number| {
        let prompts = self::prompts(&args.calibration, Some(number), PROMPTS)?;
        Bench::new(&args.model, &model, &prompts, &chosen, &|name| study::float(&networks, name, false))
    });
    let check = check.transpose().with_context(cannot)?;
    let folders = folders(manifest, &chosen);
    let weights = folders.values().map(|f| (f.as_str(), Mutex::new(repairs.weights(inputs.as_ref(), f)))).collect();
    let study = Study {
        args,
        scheme,
        settings,
        speed,
        statistics,
        repairs,
        inputs: inputs.as_ref(),
        folders: &folders,
        weights,
        graphs,
        networks: &networks,
        bench,
        check,
        ranges: Mutex::default(),
    };
    let mut measured = study.measure(study.rows(&types).with_context(cannot)?).with_context(cannot)?;
    if study.check.is_some() {
        measured.scheme_checked = study.whole(&study.settings)?;
    }
    let (picked, effect) = study.choose(&measured)?;
    let rules: Vec<PrecisionRule> = measured.parts.iter().zip(&picked).map(|(p, i)| p.part.rule(p.types[*i])).collect();
    let plan = PrecisionPlan { rules, ..PrecisionPlan::new(scheme) };
    let about = page::about(&study, &target, &measured, &picked, effect);
    fs::write(output.path(), plan.text(&about, &page::comments(&measured, &picked)))
        .with_context(|| format!("cannot write `{}`", args.output.display()))?;
    output.commit()?;
    if !args.quiet {
        report::say(format!("wrote `{}`", args.output.display()));
        page::lines(&study, &measured, &picked, effect).into_iter().for_each(report::say);
    }
    Ok(())
}

/// What can be chosen, the narrowest first.
struct Types {
    weights: Vec<Option<DType>>,
    activations: Vec<Option<DType>>,
}

impl Types {
    fn new(args: &Sensitivity, scheme: Scheme, precision: &Precision, target: &Target) -> Result<Self> {
        let asked = |weights: Option<WeightType>, activations: Option<ActivationType>| {
            let rule = PrecisionRule { of: "--weights and --activations".into(), weights, activations };
            precision.refuses(&target.full_name(), &rule).map_or(Ok(()), |reason| Err(anyhow::Error::msg(reason)))
        };
        args.weights.iter().try_for_each(|ty| asked(Some(*ty), None))?;
        args.activations.iter().try_for_each(|ty| asked(None, Some(*ty)))?;
        let has = |ty: &WeightType| precision.weight_types().contains(ty);
        let (weights, activations) = match scheme {
            Scheme::W4a16 => (vec![WeightType::Int4, WeightType::Int8], Vec::new()),
            Scheme::W8a8 => (Vec::new(), vec![precision.activations_8.into(), precision.activations_16.into()]),
            _ => (vec![WeightType::Int8, WeightType::Int16, WeightType::Float16], Vec::new()),
        };
        let weights: Vec<WeightType> = weights.into_iter().filter(has).collect();
        let or = |asked: &[WeightType], other: Vec<WeightType>| if asked.is_empty() { other } else { asked.to_vec() };
        let weights = or(&args.weights, weights);
        let activations = if args.activations.is_empty() { activations } else { args.activations.clone() };
        let sorted = |mut types: Vec<Option<DType>>| {
            types.sort_by_key(|ty| ty.map_or(u64::MAX, |ty| 2 * ty.bytes(8) + u64::from(ty.is_float())));
            types.dedup();
            types
        };
        Ok(Self {
            weights: sorted(weights.iter().map(|ty| DType::from_name(&ty.to_string())).collect()),
            activations: sorted(activations.iter().map(|ty| DType::from_name(&ty.to_string())).collect()),
        })
    }

    fn of(&self, role: Role) -> &[Option<DType>] {
        if role == Role::Weights { &self.weights } else { &self.activations }
    }
}

/// What estimates of time follow from, if that is what types cost.
fn speed(args: &Sensitivity, target: &Target) -> Result<Option<Speed>> {
    let by_time = args.by == By::Time || matches!(args.budget, Some(Budget::Time(_)));
    if args.by == By::Time && matches!(args.budget, Some(Budget::Bytes(_))) {
        let text = "`--by time` has a budget of bytes".to_owned();
        return Err(report::with_hint(text, "say it as a time, as 8ms, or in times of the scheme, as 1.2x"));
    }
    match &target.speed {
        _ if !by_time => Ok(None),
        Some(speed) => Ok(Some(speed.clone())),
        None => {
            let text = format!("target `{}` has no estimates of time", target.name);
            Err(report::with_hint(text, "give its file the figures of `speed`, or say the budget in bytes"))
        }
    }
}

/// The folder of each component.
fn folders(manifest: &Manifest, chosen: &[String]) -> BTreeMap<String, String> {
    let components = manifest.components.iter().filter(|c| chosen.contains(&c.name));
    components.map(|c| (c.name.clone(), directory(c).to_owned())).collect()
}

/// What values the tensors take, where activations are quantized. `inputs` see what layers read.
fn statistics(
    args: &Sensitivity,
    model: &Model,
    settings: &Settings,
    types: &Types,
    chosen: &[String],
    inputs: Option<&SharedInputs>,
) -> Result<Option<Statistics>> {
    let needed = settings.quantizes_activations() || types.activations.iter().any(Option::is_some);
    let ranges = needed && args.statistics.is_none();
    let number = args.seen.or(NonZero::new(SEEN * args.number.map_or(PROMPTS, NonZero::get)));
    let mut known = None;
    if ranges || inputs.is_some() {
        let seen = super::calibrate::see(&args.model, model, &args.calibration, number, chosen, ranges, inputs)?;
        known = Some(seen).filter(|_| ranges);
    }
    match &args.statistics {
        Some(path) if needed => Ok(Some(calibration::read(path)?)),
        _ => Ok(known),
    }
}
