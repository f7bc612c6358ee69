//! What each part costs in integers, and which types are chosen for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use edge_ir::{Checked, DType, Executor, Graph};
use edge_quant::calibration::{HEADROOM, Method, Statistics};
use edge_quant::mixed::{self, Menu, Offer, Part, Role, parts, path, within};
use edge_quant::{Inputs, Range, Settings, SharedWeights, fold_casts};
use edge_spec::{PrecisionRule, Scheme, Speed, WeightType};

use super::super::calibrate::lock;
use super::super::quantize;
use super::super::repair::Repairs;
use super::bench::{Bench, Drawn, Effect, Forms, decibels, loaded};
use super::chain::{Chain, Network};
use super::{Types, page};
use crate::cli::{Budget, Sensitivity};
use crate::report;

/// The budget if nothing is said.
const BUDGET: Budget = Budget::Times(1.1);
/// Prompts that all forms are drawn with first.
const FEW: usize = 2;
/// A form that loses less of what the scheme loses is drawn with no more prompts.
const HARMLESS: f64 = 0.01;

/// A part, its types, and what each of them costs when all else is in float.
pub(super) struct Row {
    pub(super) part: Part,
    pub(super) types: Vec<Option<DType>>,
    /// What each of them takes: bytes, or picoseconds beside what the fastest plan takes.
    costs: Vec<u64>,
    pub(super) effects: Vec<Effect>,
}

/// All that was measured.
pub(super) struct Measured {
    pub(super) parts: Vec<Row>,
    /// What the scheme costs as a whole, on the prompts of the parts.
    pub(super) scheme: Effect,
    /// The same on the prompts of whole plans.
    pub(super) scheme_checked: Effect,
}

/// What is measured with what.
pub(super) struct Study<'a> {
    pub(super) args: &'a Sensitivity,
    pub(super) scheme: Scheme,
    pub(super) settings: Settings,
    /// What estimates of time follow from, if types cost time.
    pub(super) speed: Option<Speed>,
    pub(super) statistics: Option<Statistics>,
    /// What `quantize` does to weights and biases.
    pub(super) repairs: Repairs,
    pub(super) inputs: Option<&'a Inputs>,
    /// The folder of each component.
    pub(super) folders: &'a BTreeMap<String, String>,
    /// The integers of each folder's weights that were made so far.
    pub(super) weights: BTreeMap<&'a str, Mutex<SharedWeights<'a>>>,
    pub(super) graphs: BTreeMap<String, Checked<Graph>>,
    /// The same, loaded in pieces.
    pub(super) networks: &'a BTreeMap<String, Arc<Network>>,
    /// Draws for parts.
    pub(super) bench: Bench<'a>,
    /// Draws for whole plans, if for more prompts.
    pub(super) check: Option<Bench<'a>>,
    /// Ranges that were chosen, by component, tensor and type.
    pub(super) ranges: Mutex<BTreeMap<(String, String, DType), Option<Range>>>,
}

/// A component in float. If it `keeps` what its pieces give, forms of it need not make that again.
pub(super) fn float(networks: &BTreeMap<String, Arc<Network>>, name: &str, keeps: bool) -> Result<Box<dyn Executor>> {
    Ok(Box::new(networks.get(name).with_context(|| format!("there is no {name}"))?.float(keeps)))
}

impl Study<'_> {
    /// The parts, with nothing measured yet.
    pub(super) fn rows(&self, types: &Types) -> Result<Vec<Row>> {
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
                    let costs = types.iter().map(|ty| part.bytes(*ty)).collect();
                    rows.push(Row { part, types, costs, effects: Vec::new() });
                }
            }
        }
        if rows.is_empty() {
            let text = format!("there is nothing to choose in {}", self.scheme);
            let hint =
                "name two types or more with `--weights` or `--activations`, and parts that there are with `--only`";
            return Err(report::with_hint(text, hint));
        }
        if let Some(speed) = &self.speed {
            self.take_time(&mut rows, speed);
        }
        let least = rows.iter().map(|row| row.costs.iter().min().copied().unwrap_or_default()).sum::<u64>();
        let budget = self.budget(&rows);
        if least > budget {
            let [budget, least] = [budget, least].map(|cost| self.cost(cost));
            bail!("a budget of {budget} is too small: the narrowest types take {least}");
        }
        Ok(rows)
    }

    /// What types cost in estimated time: what a run takes more with each of them, all else as in the scheme. The rest of
    /// the run stands with the first row, so that costs add up to the whole.
    fn take_time(&self, rows: &mut [Row], speed: &Speed) {
        let graphs: Vec<Graph> = self.graphs.values().map(|graph| fold_casts(graph)).collect();
        let time =
            |settings: &Settings| graphs.iter().map(|graph| mixed::estimate(graph, settings, speed)).sum::<f64>();
        let scheme = time(&self.settings);
        let mut rest = scheme;
        for row in &mut *rows {
            let more = |ty: &Option<DType>| {
                let mut settings = self.settings.clone();
                settings.rules.push(row.part.rule(*ty));
                time(&settings) - scheme
            };
            let times: Vec<f64> = row.types.iter().map(more).collect();
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            rest += least;
            row.costs = times.iter().map(|time| whole(time - least)).collect();
        }
        for cost in rows.first_mut().into_iter().flat_map(|row| &mut row.costs) {
            *cost += whole(rest);
        }
    }

    /// What a plan may take.
    fn budget(&self, rows: &[Row]) -> u64 {
        let args = self.args;
        let aims = args.sqnr.is_some() || args.conditioning.is_some();
        let scheme = rows.iter().map(|row| row.costs[row.at(row.part.base)]).sum::<u64>();
        match args.budget.or((!aims).then_some(BUDGET)) {
            None => u64::MAX,
            Some(Budget::Bytes(cost) | Budget::Time(cost)) => cost,
            #[expect(clippy::cast_precision_loss, reason = "a budget")]
            Some(Budget::Times(times)) => whole(scheme as f64 * times),
        }
    }

    /// A cost in words.
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    pub(super) fn cost(&self, cost: u64) -> String {
        match self.speed {
            Some(_) => format!("{:.3} ms", cost as f64 / 1e9),
            None => format!("{} KiB", cost.div_ceil(1024)),
        }
    }

    /// What a plan takes by estimate, if types cost time, in words that follow others.
    pub(super) fn estimate(&self, rows: &[Row], picked: &[usize]) -> String {
        let all = rows.iter().zip(picked).map(|(row, index)| row.costs[*index]).sum();
        self.speed.as_ref().map_or(String::new(), |_| format!(", estimated to take {}", self.cost(all)))
    }

    /// Quantizes each part alone.
    pub(super) fn measure(&self, mut rows: Vec<Row>) -> Result<Measured> {
        let forms: Vec<(usize, usize)> =
            rows.iter().enumerate().flat_map(|(r, row)| (0..row.types.len()).map(move |t| (r, t))).collect();
        let bar = report::progress_bar(self.args.quiet);
        let load = |index: usize, name: &str| -> Result<Box<dyn Executor>> {
            let (row, ty) = forms[index];
            Ok(Box::new(self.form(name, rows[row].part.role, &self.alone(&rows, row, ty))?))
        };
        let pictures = |index: usize| rows[forms[index].0].part.text;
        let measure = |numbers: &[usize], prompts: usize| {
            let total = numbers.len();
            let done = |count: usize| bar.set_message(format!("{prompts} prompts: {count} of {total} forms"));
            let forms = Forms { load: &load, pictures: &pictures, numbers, prompts };
            self.bench.effects(self.bytes(), &forms, &done)
        };
        let drawn = self.drawn(&self.bench, &self.settings)?;
        let (scheme, few) = (self.bench.effect(&drawn), self.bench.effect(&drawn[..FEW.min(drawn.len())]));
        let all: Vec<usize> = (0..forms.len()).collect();
        let mut effects = measure(&all, FEW)?;
        if self.bench.prompts() > FEW {
            let loses = |index: &usize| loss(&rows[forms[*index].0].part, &effects[*index], &few) > HARMLESS;
            let harmful: Vec<usize> = all.into_iter().filter(loses).collect();
            for (index, effect) in harmful.iter().zip(measure(&harmful, self.bench.prompts())?) {
                effects[*index] = effect;
            }
        }
        bar.finish_and_clear();
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

    /// A component of which a part is quantized.
    fn form(&self, name: &str, role: Role, settings: &Settings) -> Result<Chain> {
        let network = self.networks.get(name).with_context(|| format!("there is no {name}"))?;
        // Weights of parts whose activations are measured are as good as float.
        let rounds = role == Role::Weights;
        network.form(&|piece| settings.changes(piece), &|piece| self.quantized(name, piece, settings, rounds))
    }

    /// A component's graph or a piece of it, with weights rounded as `quantize` does it or, where they do not matter, to
    /// the nearest.
    fn quantized(
        &self,
        name: &str,
        graph: &Checked<Graph>,
        settings: &Settings,
        rounds: bool,
    ) -> Result<Checked<Graph>> {
        let method = if self.scheme == Scheme::W8a8 { Method::Mse } else { Method::MinMax };
        let choose = quantize::ranges(self.statistics.as_ref(), name, (method, HEADROOM));
        // The choice takes longer than all else, and is the same in each form.
        let range = |tensor: &str, dtype: DType| {
            let key = (name.to_owned(), tensor.to_owned(), dtype);
            if let Some(known) = lock(&self.ranges).get(&key) {
                return *known;
            }
            let range = choose(tensor, dtype);
            lock(&self.ranges).insert(key, range);
            range
        };
        let weights = self.folders.get(name).and_then(|folder| self.weights.get(folder.as_str()));
        let (true, Some(weights)) = (rounds, weights) else {
            return Ok(edge_quant::quantize(graph, settings, &range, &mut SharedWeights::default())?.graph);
        };
        let mut shared = lock(weights);
        let graph = self.repairs.correct(graph.clone(), settings, self.inputs, &mut shared)?;
        Ok(edge_quant::quantize(&graph, settings, &range, &mut shared)?.graph)
    }

    /// Bytes of the largest piece that changes, as it is loaded.
    fn bytes(&self) -> u64 {
        self.networks.values().map(|network| network.largest()).max().unwrap_or_default()
    }

    /// Chooses a type for each part, and measures the whole.
    pub(super) fn choose(&self, measured: &Measured) -> Result<(Vec<usize>, Effect)> {
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
    pub(super) fn whole(&self, settings: &Settings) -> Result<Effect> {
        let bench = self.check.as_ref().unwrap_or(&self.bench);
        Ok(bench.effect(&self.drawn(bench, settings)?))
    }

    /// What they draw with these prompts.
    fn drawn(&self, bench: &Bench<'_>, settings: &Settings) -> Result<Vec<Drawn>> {
        let load = |name: &str| {
            let graph = self.graphs.get(name).with_context(|| format!("there is no {name}"))?;
            loaded(&self.quantized(name, graph, settings, true)?)
        };
        bench.draw(&load, true, usize::MAX)
    }
}

impl Row {
    /// The place of a type, which is one of its own.
    pub(super) fn at(&self, ty: Option<DType>) -> usize {
        self.types.iter().position(|own| *own == ty).unwrap_or_default()
    }

    /// Costs in bytes, and losses as shares of what the whole scheme loses by the same measure, so that they add up.
    pub(super) fn menu(&self, whole: &Effect) -> Menu {
        let offer = |(cost, effect): (&u64, &Effect)| Offer { cost: *cost, loss: loss(&self.part, effect, whole) };
        self.costs.iter().zip(&self.effects).map(offer).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cost, which saturates")]
fn whole(cost: f64) -> u64 {
    cost.round() as u64
}

/// What a form of a part loses, as a share of what the whole scheme loses by the same measure.
fn loss(part: &Part, effect: &Effect, whole: &Effect) -> f64 {
    let share = |part: f64, whole: f64| part.max(0.0) / whole.max(1e-12);
    if part.text {
        let picture = share(effect.dissimilarity, whole.dissimilarity);
        f64::midpoint(picture, share(effect.conditioning, whole.conditioning))
    } else {
        share(effect.noise, whole.noise)
    }
}
