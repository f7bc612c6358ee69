//! `edgetool sensitivity`: which layers need more bits.

mod bench;
mod page;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use edge_ir::{Checked, DType, Graph};
use edge_quant::calibration::{self, Method, Statistics};
use edge_quant::mixed::{Menu, Offer, Part, Role, parts, path, within};
use edge_quant::{Range, Settings, SharedWeights, fold_casts};
use edge_spec::{ActivationType, Precision, PrecisionPlan, PrecisionRule, Scheme, Target, WeightType};

use super::model::Model;
use super::{plan, quantize};
use crate::cli::{Budget, Sensitivity};
use crate::report;
use crate::staging::Staging;

use bench::Effect;
pub(super) use bench::{Bench, Drawn, decibels, prompts};

/// Prompts that are drawn if nothing is said.
const PROMPTS: usize = 8;
/// The budget if nothing is said.
const BUDGET: Budget = Budget::Times(1.1);

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
    let statistics = statistics(args, &model, &settings, &types, &chosen)?;
    let graphs =
        chosen.iter().map(|name| Ok((name.clone(), model.graph(name)?))).collect::<Result<BTreeMap<_, _>>>()?;
    if let Some(statistics) = &statistics {
        graphs.iter().try_for_each(|(name, graph)| statistics.check_graph(name, graph))?;
    }
    let bench = Bench::new(&args.model, &model, &prompts, &chosen).with_context(cannot)?;
    let check = args.check.map(|number| {
        let prompts = self::prompts(&args.calibration, Some(number), PROMPTS)?;
        Bench::new(&args.model, &model, &prompts, &chosen)
    });
    let check = check.transpose().with_context(cannot)?;
    let study = Study { args, scheme, settings, statistics, graphs, bench, check, ranges: Mutex::default() };
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
        page::lines(&measured, &picked, effect).into_iter().for_each(report::say);
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
            precision.refuses(&target.name, &rule).map_or(Ok(()), |reason| Err(anyhow::Error::msg(reason)))
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

/// A part, its types, and what each of them costs when all else is in float.
struct Row {
    part: Part,
    types: Vec<Option<DType>>,
    effects: Vec<Effect>,
}

/// All that was measured.
struct Measured {
    parts: Vec<Row>,
    /// What the scheme costs as a whole, on the prompts of the parts.
    scheme: Effect,
    /// The same on the prompts of whole plans.
    scheme_checked: Effect,
}

/// What is measured with what.
struct Study<'a> {
    args: &'a Sensitivity,
    scheme: Scheme,
    settings: Settings,
    statistics: Option<Statistics>,
    graphs: BTreeMap<String, Checked<Graph>>,
    /// Draws for parts.
    bench: Bench<'a>,
    /// Draws for whole plans, if for more prompts.
    check: Option<Bench<'a>>,
    /// Ranges that were chosen, by component, tensor and type.
    ranges: Mutex<BTreeMap<(String, String, DType), Option<Range>>>,
}

impl Study<'_> {
    /// The parts, with nothing measured yet.
    fn rows(&self, types: &Types) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = Vec::new();
        for role in [Role::Weights, Role::Activations].into_iter().filter(|role| types.of(*role).len() > 1) {
            for graph in self.graphs.values() {
                for part in parts(&fold_casts(graph), &self.settings, role) {
                    let wanted = |of: &String| format!(".{}.", part.of).contains(&format!(".{of}."));
                    let asked = self.args.only.is_empty() || self.args.only.iter().any(wanted);
                    if !asked || rows.iter().any(|row| row.part.of == part.of && row.part.role == role) {
                        continue;
                    }
                    let mut types = types.of(role).to_vec();
                    if !types.contains(&part.base) {
                        types.push(part.base);
                    }
                    rows.push(Row { part, types, effects: Vec::new() });
                }
            }
        }
        if rows.is_empty() {
            let text = format!("there is nothing to choose in {}", self.scheme);
            let hint =
                "name two types or more with `--weights` or `--activations`, and parts that there are with `--only`";
            return Err(report::with_hint(text, hint));
        }
        let least = |row: &Row| row.types.iter().map(|ty| row.part.bytes(*ty)).min().unwrap_or_default();
        let (least, budget) = (rows.iter().map(least).sum::<u64>(), self.budget(&rows));
        if least > budget {
            let (budget, least) = (budget / 1024, least.div_ceil(1024));
            bail!("a budget of {budget} KiB is too small: the narrowest types take {least} KiB");
        }
        Ok(rows)
    }

    /// Bytes that weights and activations may take.
    fn budget(&self, rows: &[Row]) -> u64 {
        let args = self.args;
        let aims = args.sqnr.is_some() || args.conditioning.is_some();
        match args.budget.or((!aims).then_some(BUDGET)) {
            None => u64::MAX,
            Some(Budget::Bytes(bytes)) => bytes,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "sizes"
            )]
            Some(Budget::Times(times)) => (page::base(rows) as f64 * times) as u64,
        }
    }

    /// Quantizes each part alone.
    fn measure(&self, mut rows: Vec<Row>) -> Result<Measured> {
        let forms: Vec<(usize, usize)> =
            rows.iter().enumerate().flat_map(|(r, row)| (0..row.types.len()).map(move |t| (r, t))).collect();
        let bar = report::progress_bar(self.args.quiet);
        let total = forms.len() + 1;
        let form = |index: usize, name: &str| match forms.get(index) {
            Some((row, ty)) => self.graph(name, &self.alone(&rows, *row, *ty)),
            None => self.graph(name, &self.settings),
        };
        let done = |count: usize| bar.set_message(format!("{count} of {total} forms of {} parts", rows.len()));
        let mut effects = self.bench.effects(total, self.bytes(), &form, &done)?;
        bar.finish_and_clear();
        let scheme = effects.pop().context("the scheme was not measured")?;
        let mut effects = effects.into_iter();
        for row in &mut rows {
            row.effects = effects.by_ref().take(row.types.len()).collect();
        }
        Ok(Measured { parts: rows, scheme, scheme_checked: scheme })
    }

    /// All in float but one part.
    fn alone(&self, rows: &[Row], row: usize, ty: usize) -> Settings {
        let Row { part, types, .. } = &rows[row];
        let mut rules = vec![part.rule(types[ty])];
        if part.role == Role::Activations {
            let inner = rows.iter().filter(|other| other.part.role == part.role && part.holds(&other.part));
            rules.extend(inner.map(|other| other.part.rule(None)));
            // A layer whose weights are float has float activations: weights of 16 bits cost nothing beside them.
            rules.push(PrecisionRule { of: part.of.clone(), weights: Some(WeightType::Int16), activations: None });
        }
        Settings { activations: None, weights: None, rules, ..self.settings.clone() }
    }

    /// A component's graph.
    fn graph(&self, name: &str, settings: &Settings) -> Result<Checked<Graph>> {
        let graph = self.graphs.get(name).with_context(|| format!("there is no {name}"))?;
        let method = if self.scheme == Scheme::W8a8 { Method::Mse } else { Method::MinMax };
        let choose = quantize::ranges(self.statistics.as_ref(), name, method);
        // The choice takes longer than all else, and is the same in each form.
        let range = |tensor: &str, dtype: DType| {
            let key = (name.to_owned(), tensor.to_owned(), dtype);
            let lock = || self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = lock().get(&key) {
                return *known;
            }
            let range = choose(tensor, dtype);
            lock().insert(key, range);
            range
        };
        Ok(edge_quant::quantize(graph, settings, &range, &mut SharedWeights::default())?.graph)
    }

    /// Bytes of the largest component that changes, as it is loaded.
    fn bytes(&self) -> u64 {
        let size = |graph: &Checked<Graph>| graph.initializers().map(|(_, v, _)| 4 * v.ty.elements()).sum();
        self.graphs.values().map(size).max().unwrap_or_default()
    }

    /// Chooses a type for each part, and measures the whole.
    fn choose(&self, measured: &Measured) -> Result<(Vec<usize>, Effect)> {
        let menus: Vec<Menu> = measured.parts.iter().map(|row| row.menu(&measured.scheme)).collect();
        let budget = self.budget(&measured.parts);
        let most = within(&menus, budget).context("the budget was checked before")?;
        let effect = self.effect(measured, &most)?;
        if self.args.sqnr.is_none() && self.args.conditioning.is_none() {
            return Ok((most, effect));
        }
        if !self.reached(&effect) {
            let text =
                format!("no plan within the budget reaches what is asked: the best has {}", page::whole(&effect));
            return Err(report::with_hint(
                text,
                "raise `--budget`, or offer wider types with `--weights` and `--activations`",
            ));
        }
        let cost = |picked: &[usize]| menus.iter().zip(picked).map(|(menu, i)| menu[*i].cost).sum::<u64>();
        let choices: Vec<Vec<usize>> = path(&menus).into_iter().filter(|picked| cost(picked) <= budget).collect();
        let (mut best, mut low, mut high) = ((most, effect), 0, choices.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let effect = self.effect(measured, &choices[middle])?;
            if self.reached(&effect) {
                best = (choices[middle].clone(), effect);
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(best)
    }

    fn reached(&self, effect: &Effect) -> bool {
        self.args.sqnr.is_none_or(|least| decibels(effect.noise) >= least)
            && self.args.conditioning.is_none_or(|most| 100.0 * effect.worst_conditioning <= most)
    }

    /// What a choice costs as a whole.
    fn effect(&self, measured: &Measured, picked: &[usize]) -> Result<Effect> {
        let mut settings = self.settings.clone();
        settings.rules.extend(measured.parts.iter().zip(picked).map(|(row, i)| row.part.rule(row.types[*i])));
        self.whole(&settings)
    }

    /// What settings cost as a whole.
    fn whole(&self, settings: &Settings) -> Result<Effect> {
        let bench = self.check.as_ref().unwrap_or(&self.bench);
        Ok(bench.effect(&bench.draw(&|name| self.graph(name, settings))?))
    }
}

impl Row {
    /// Costs in bytes, and losses as shares of what the whole scheme loses by the same measure, so that they add up.
    fn menu(&self, whole: &Effect) -> Menu {
        let share = |part: f64, whole: f64| part.max(0.0) / whole.max(1e-12);
        let loss = |effect: &Effect| {
            if self.part.text {
                let picture = share(effect.dissimilarity, whole.dissimilarity);
                f64::midpoint(picture, share(effect.conditioning, whole.conditioning))
            } else {
                share(effect.noise, whole.noise)
            }
        };
        let offer = |(ty, effect): (&Option<DType>, &Effect)| Offer { cost: self.part.bytes(*ty), loss: loss(effect) };
        self.types.iter().zip(&self.effects).map(offer).collect()
    }
}

/// What values the tensors take, where activations are quantized.
fn statistics(
    args: &Sensitivity,
    model: &Model,
    settings: &Settings,
    types: &Types,
    chosen: &[String],
) -> Result<Option<Statistics>> {
    let needed = settings.quantizes_activations() || types.activations.iter().any(Option::is_some);
    match &args.statistics {
        _ if !needed => Ok(None),
        Some(path) => Ok(Some(calibration::read(path)?)),
        None => {
            let number = args.number.or(std::num::NonZero::new(PROMPTS));
            super::calibrate::see(&args.model, model, &args.calibration, number, chosen, true, None).map(Some)
        }
    }
}
