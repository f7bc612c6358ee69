//! The error of each layer, and the first that makes one.
//!
//! Nodes of the two models are compared where they have one place and shape. Folding and lowering move work from one node
//! to another (a time embedding's projection becomes a convolution's bias), so that two nodes of one name may differ
//! and all that follows be equal: such a node is left out. What is left and goes wrong where its inputs were right is the
//! culprit.

use std::collections::BTreeMap;

use edge_ir::{Graph, ValueId};
use edge_spec::{Check, Layer, LayerHistogram, Profile, Verdict};

use crate::checks::SATURATED;
use crate::metrics::{MOST_DB, rounded};
use crate::place::place;
use crate::sample::Histogram;
use crate::saturation::{Saturation, quantizers};

/// How far below its inputs the culprit's signal to error is, in dB: an error of twice their size.
const JUMP_DB: f64 = 6.0;
/// How far above that of the component's output it may be: what follows a fault in a part of a network dilutes it.
const DILUTION_DB: f64 = 6.0;

/// Layers whose histograms are kept.
const HISTOGRAMS: usize = 12;

/// A layer, where its values lie, and whether it is the reference's.
struct Found {
    layer: Layer,
    histogram: Option<LayerHistogram>,
    credible: bool,
}

/// What was found of one node's output.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Signal to error, in dB.
    pub sqnr_db: f64,
    /// The candidate's greatest magnitude as a part of what float16 holds.
    pub float16_use: f64,
    /// Where the values of both lie.
    pub histogram: Option<Histogram>,
}

/// One run of a graph of the candidate.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The component that the graph is.
    pub component: &'a str,
    /// The step's index, where the same graph is run for each.
    pub step: Option<usize>,
    /// The graph.
    pub graph: &'a Graph,
    /// What was found, by the nodes' indices.
    pub measures: &'a BTreeMap<usize, Measure>,
}

/// What is known of a candidate before its layers are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion<'a> {
    /// All checks, in the order of use.
    pub checks: &'a [Check],
    /// The share of numbers that are cut, in the order of use.
    pub saturation: &'a [Saturation],
    /// Layers below this signal to error may be at fault, in dB.
    pub least_db: f64,
}

/// The profile of a candidate whose graphs ran in this order. The culprit is looked for in the component and step of the
/// first check that failed. Where too many numbers are cut it is the first layer that has them of good inputs; else, or
/// if there is none, the first that spoils good inputs, among the layers below `least_db`, else among those not much better than
/// what the component gave in this step.
pub fn profile(runs: &[Run<'_>], suspicion: &Suspicion<'_>) -> Profile {
    let Suspicion { checks, saturation, least_db } = *suspicion;
    let failed = checks.iter().find(|check| check.verdict == Verdict::Fail);
    let given = |failed: &Check| {
        let here = |c: &&Check| c.component == failed.component && c.step == failed.step && c.name.ends_with("sqnr_db");
        let check = checks.iter().find(here)?;
        // What failed by another measure may be well within this one.
        let shows = failed.name.ends_with("sqnr_db");
        Some(check.least.filter(|_| !shows).map_or(check.value, |least| least.min(check.value)) + DILUTION_DB)
    };
    let right_db = least_db;
    let least_db = failed.and_then(given).map_or(least_db, |db| db.max(least_db));
    let mut found = Vec::new();
    let mut carried = MOST_DB;
    for run in runs {
        carried = run.layers(least_db, failed.is_some(), carried, &mut found);
    }
    // What moved into the text encoder is of all steps.
    let here = |layer: &Layer, check: &Check| {
        let step = layer.step.is_none_or(|step| check.step.is_none_or(|failed| failed == step));
        step && layer.component == check.component
    };
    let spoils = |layer: &Layer, db: f64, jump: f64| layer.sqnr_db < db && layer.input_sqnr_db - layer.sqnr_db >= jump;
    // What is plainly wrong comes before what might be the noise of integers.
    let spoiler = |check: &Check| {
        let first = |db, jump| found.iter().find(|f| f.credible && here(&f.layer, check) && spoils(&f.layer, db, jump));
        first(right_db, 2.0 * JUMP_DB).or_else(|| first(least_db, JUMP_DB))
    };
    let cutter = |check: &Check| {
        let most = check.most.filter(|_| check.name == SATURATED)?;
        let beyond = |cut: &&Saturation| cut.component == check.component && cut.share() > most;
        let mut places = saturation.iter().filter(beyond);
        places.find_map(|cut| {
            let same = |f: &&Found| {
                here(&f.layer, check) && f.layer.node == cut.node && f.layer.step == cut.step.map(|s| s + 1)
            };
            found.iter().find(same).filter(|f| f.layer.input_sqnr_db >= right_db)
        })
    };
    let culprit = failed.and_then(|check| cutter(check).or_else(|| spoiler(check))).map(|f| f.layer.clone());
    found.retain(|found| found.credible);
    let histograms = worst(&found);
    Profile { culprit, layers: found.into_iter().map(|found| found.layer).collect(), histograms }
}

/// The histograms of the layers with the greatest errors, the worst step of each.
fn worst(found: &[Found]) -> Vec<LayerHistogram> {
    let mut found: Vec<_> = found.iter().filter_map(|f| Some((f.layer.sqnr_db, f.histogram.as_ref()?))).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut worst: Vec<LayerHistogram> = Vec::new();
    for (_, histogram) in found {
        let same = |h: &LayerHistogram| (&h.component, &h.node) == (&histogram.component, &histogram.node);
        if worst.len() < HISTOGRAMS && !worst.iter().any(same) {
            worst.push(histogram.clone());
        }
    }
    worst
}

impl Run<'_> {
    /// Adds this run's layers; takes and gives the signal to error that goes from graph to graph.
    fn layers(&self, least_db: f64, failed: bool, carried: f64, found: &mut Vec<Found>) -> f64 {
        let measured = self.credible(least_db, failed);
        let ranges: BTreeMap<ValueId, [f32; 2]> =
            quantizers(self.component, self.graph).into_iter().map(|q| (q.input, q.range)).collect();
        let mut quality: BTreeMap<ValueId, f64> = self.graph.inputs.iter().map(|id| (*id, carried)).collect();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let inputs = node.inputs.iter().flatten().filter_map(|id| quality.get(id)).copied();
            let Some(input) = inputs.reduce(f64::min) else { continue };
            let measure = measured.get(&index);
            let sqnr = measure.map_or(input, |m| m.sqnr_db);
            quality.extend(node.outputs.iter().map(|id| (*id, sqnr)));
            let place = place(self.component, &node.name);
            let Some(measure) = self.measures.get(&index).filter(|_| !place.negative) else { continue };
            let layer = Layer {
                component: place.component,
                step: place.step.or(self.step).map(|step| step + 1),
                node: place.node,
                op: node.op.name.into(),
                input_sqnr_db: rounded(input),
                sqnr_db: measure.sqnr_db,
                float16_use: measure.float16_use,
            };
            let range = node.outputs.first().and_then(|id| ranges.get(id));
            let histogram = measure.histogram.as_ref().map(|histogram| shown(&layer, histogram, range.copied()));
            found.push(Found { layer, histogram, credible: measured.contains_key(&index) });
        }
        self.graph.outputs.iter().filter_map(|id| quality.get(id)).copied().reduce(f64::min).unwrap_or(carried)
    }

    /// The measures of nodes that are the reference's: a bad one counts only if a reader of it, or the caller, has the
    /// error too. What the caller gets from a node that the reference lacks has it if a check
    /// failed.
    fn credible(&self, least_db: f64, failed: bool) -> BTreeMap<usize, &Measure> {
        let readers = self.graph.consumers();
        // Whether an error in a node's output reaches what is measured after it; from the last node to the first.
        let mut spreads = vec![false; self.graph.nodes.len()];
        for (index, node) in self.graph.nodes.iter().enumerate().rev() {
            let given = failed || self.measures.contains_key(&index);
            let seen = node.outputs.iter().any(|id| {
                (given && self.graph.outputs.contains(id))
                    || readers[self.graph.index_of(*id)].iter().any(|reader| match self.measures.get(reader) {
                        Some(measure) => measure.sqnr_db < least_db && spreads[*reader],
                        None => spreads[*reader],
                    })
            });
            spreads[index] = seen;
        }
        let credible = |(index, measure): (&usize, &Measure)| measure.sqnr_db >= least_db || spreads[*index];
        self.measures.iter().filter(|(index, measure)| credible((*index, *measure))).map(|(i, m)| (*i, m)).collect()
    }
}

fn shown(layer: &Layer, histogram: &Histogram, range: Option<[f32; 2]>) -> LayerHistogram {
    let ends = |ends: [f32; 2]| ends.map(|v| rounded(f64::from(v)));
    LayerHistogram {
        component: layer.component.clone(),
        step: layer.step,
        node: layer.node.clone(),
        sqnr_db: layer.sqnr_db,
        span: ends(histogram.span),
        range: range.map(ends),
        reference: histogram.reference.clone(),
        candidate: histogram.candidate.clone(),
    }
}

#[cfg(test)]
mod tests {
    use edge_ir::{Builder, Checked, DType};

    use super::*;

    /// `a` and `b` read the input, `c` reads both, `d` reads `c`.
    fn graph() -> Checked<Graph> {
        let mut g = Builder::new("unet");
        let x = g.input("x", DType::Float32, &[2]);
        let a = g.node("Relu", "a", &[x], &[]).expect("a node");
        let b = g.node("Relu", "b", &[x], &[]).expect("a node");
        let c = g.node("Add", "c", &[a, b], &[]).expect("a node");
        let d = g.node("Relu", "d", &[c], &[]).expect("a node");
        g.output("out", d);
        g.finish().expect("a graph")
    }

    fn profiled(measures: &[(usize, f64)]) -> (Option<String>, Vec<String>) {
        let graph = graph();
        let measures = measures.iter().map(|(i, db)| (*i, Measure { sqnr_db: *db, float16_use: 0.0, histogram: None }));
        let measures = measures.collect();
        let run = Run { component: "unet", step: Some(0), graph: &graph, measures: &measures };
        let check = Check {
            name: "unet_output_sqnr_db".into(),
            component: "unet".into(),
            step: Some(1),
            at: String::new(),
            value: 29.0,
            least: Some(60.0),
            most: None,
            reason: String::new(),
            verdict: Verdict::Fail,
        };
        let profile = profile(&[run], &Suspicion { checks: &[check], saturation: &[], least_db: 60.0 });
        (profile.culprit.map(|l| l.node), profile.layers.into_iter().map(|l| l.node).collect())
    }

    #[test]
    fn the_first_layer_that_spoils_good_inputs_is_the_culprit() {
        let (culprit, layers) = profiled(&[(0, 120.0), (1, 30.0), (2, 33.0), (3, 29.0)]);
        assert_eq!(culprit.as_deref(), Some("b"));
        assert_eq!(layers, ["a", "b", "c", "d"]);
        assert_eq!(profiled(&[(0, 120.0), (1, 118.0), (2, 110.0), (3, 61.0)]).0, None);
        // `b` cannot be compared: what reads it is the first to show the error.
        assert_eq!(profiled(&[(0, 120.0), (2, 33.0), (3, 33.0)]).0.as_deref(), Some("c"));
    }

    #[test]
    fn where_too_much_is_cut_the_first_layer_that_has_it_is_the_culprit() {
        let graph = graph();
        let measures = (0..4).map(|i| (i, Measure { sqnr_db: 90.0, float16_use: 0.0, histogram: None })).collect();
        let run = Run { component: "unet", step: Some(0), graph: &graph, measures: &measures };
        let check = Check {
            name: SATURATED.into(),
            component: "unet".into(),
            step: Some(1),
            at: String::new(),
            value: 0.6,
            least: None,
            most: Some(0.05),
            reason: String::new(),
            verdict: Verdict::Fail,
        };
        let cut = |node: &str, step: usize, cut: u64| Saturation {
            component: "unet".into(),
            node: node.into(),
            step: Some(step),
            count: 100,
            cut,
            range: [0.0, 1.0],
            seen: [0.0, 2.0],
        };
        let cuts = [cut("a", 0, 1), cut("a", 1, 70), cut("b", 0, 40), cut("c", 0, 60)];
        let found = |check: Check| {
            profile(&[run], &Suspicion { checks: &[check], saturation: &cuts, least_db: 60.0 }).culprit.map(|l| l.node)
        };
        assert_eq!(found(check.clone()).as_deref(), Some("b"));
        assert_eq!(found(Check { name: "latent_sqnr_db".into(), ..check }), None);
    }

    #[test]
    fn a_layer_whose_readers_are_right_is_not_the_reference_s() {
        let (culprit, layers) = profiled(&[(0, 3.0), (1, 118.0), (2, 110.0), (3, 108.0)]);
        assert_eq!(culprit, None);
        assert_eq!(layers, ["b", "c", "d"]);
        // Two in a row are no more of an error than one, if what reads them is right.
        assert_eq!(profiled(&[(0, 3.0), (1, 118.0), (2, 4.0), (3, 108.0)]).0, None);
        // The last one has no reader but the caller.
        assert_eq!(profiled(&[(0, 120.0), (1, 118.0), (2, 110.0), (3, 8.0)]).0.as_deref(), Some("d"));
    }
}
