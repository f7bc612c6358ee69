//! The error of each layer: both models draw the first prompt once more, with every layer looked at. Of the reference's
//! layers samples are kept, so that memory does not grow with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use edge_ir::{Checked, Graph, ValueId};
use edge_run::Noise;
use edge_spec::{GuidanceBy, Profile, Prompt};
use edge_verify::{Measure, Place, Run, Sample, Suspicion, TEXT_ENCODER, UNET, comparable, place, profile};

use super::player::{Look, Player, Seen, locked};

/// The reference's layers.
pub(super) type Samples = BTreeMap<Place, Sample>;

/// What was found, by component, run and node.
type Measures = BTreeMap<(String, usize), BTreeMap<usize, Measure>>;

/// The layers of a model while it draws one prompt.
pub(super) fn samples(
    reference: &Player,
    prompt: &Prompt,
    noise: &Noise,
    progress: &mut dyn FnMut(&str),
) -> Result<Samples> {
    let keep = Arc::new(Keep { layers: Layers::of(reference)?, samples: Mutex::default() });
    let look: Arc<dyn Look> = keep.clone();
    let request = reference.request(prompt, noise.clone());
    reference.play(&reference.model.graphs(), &[request], &look, progress)?;
    Ok(std::mem::take(&mut *locked(&keep.samples)))
}

/// The profile of a candidate against these.
pub(super) fn against(
    samples: Samples,
    candidate: &Player,
    (prompt, noise): (&Prompt, &Noise),
    suspicion: &Suspicion<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Profile> {
    let mut layers = Layers::of(candidate)?;
    let common: BTreeSet<Base> = samples.keys().map(base).collect();
    layers.keep(&common);
    let compare = Arc::new(Compare { layers, samples, measures: Mutex::default() });
    let look: Arc<dyn Look> = compare.clone();
    let request = candidate.request(prompt, noise.clone());
    candidate.play(&candidate.model.graphs(), &[request], &look, progress)?;
    let measures = std::mem::take(&mut *locked(&compare.measures));
    Ok(profile(&compare.layers.runs(&measures), suspicion))
}

/// Keeps the reference's layers.
struct Keep {
    layers: Layers,
    samples: Mutex<Samples>,
}

impl Look for Keep {
    fn wanted(&self, component: &str, graph: &Checked<Graph>) -> Vec<ValueId> {
        self.layers.wanted(component, graph)
    }

    fn see(&self, component: &str, run: usize, value: ValueId, seen: Seen<'_>) {
        if let Some(layer) = self.layers.layer(component, value) {
            locked(&self.samples).insert(layer.at(run), Sample::of(seen.numbers, seen.shape));
        }
    }
}

/// Compares the candidate's layers with them.
struct Compare {
    layers: Layers,
    samples: Samples,
    measures: Mutex<Measures>,
}

impl Look for Compare {
    fn wanted(&self, component: &str, graph: &Checked<Graph>) -> Vec<ValueId> {
        self.layers.wanted(component, graph)
    }

    fn see(&self, component: &str, run: usize, value: ValueId, seen: Seen<'_>) {
        let Some(layer) = self.layers.layer(component, value) else { return };
        let sample = self.samples.get(&layer.at(run));
        if let Some(measure) = sample.and_then(|sample| sample.compare(seen.numbers, seen.shape)) {
            let key = (component.to_owned(), run);
            locked(&self.measures).entry(key).or_default().insert(layer.node, measure);
        }
    }
}

/// A node's place, whatever the step.
type Base = (String, bool, String);

fn base(place: &Place) -> Base {
    (place.component.clone(), place.negative, place.node.clone())
}

/// The layers of a model that can be compared, by component: its graph, and its layers by what they give.
struct Layers(Vec<(String, Checked<Graph>, BTreeMap<ValueId, Layer>)>);

/// A node in a graph that may run several times.
#[derive(Clone)]
struct Layer {
    node: usize,
    place: Place,
    /// Whether the graph's runs are the steps, and how many runs a step has.
    runs_of_step: Option<usize>,
    /// Whether the first of two runs is for the negative prompt.
    negative_first: bool,
}

impl Layer {
    /// The place in one run.
    fn at(&self, run: usize) -> Place {
        let mut place = self.place.clone();
        if self.negative_first {
            place.negative |= run.is_multiple_of(2);
        }
        if place.step.is_none() && place.component != TEXT_ENCODER && !place.component.ends_with("_decoder") {
            // What moved into the text encoder is there once for all steps.
            place.step = Some(self.runs_of_step.map_or(0, |runs| run / runs));
        }
        place
    }
}

impl Layers {
    fn of(player: &Player) -> Result<Self> {
        let passes = if player.two_passes() { 2 } else { 1 };
        let folded = player.model.fold().map(|fold| fold.guidance.by);
        let two_texts = passes == 2 || matches!(folded, Some(GuidanceBy::Calls | GuidanceBy::Batch));
        let mut graphs = Vec::new();
        for name in player.used() {
            let graph = player.model.graph(&name)?;
            let layer = |node: usize| {
                let place = place(&name, &graph.nodes[node].name);
                let runs_of_step = (name == UNET).then_some(passes);
                let negative_first = (name == UNET && passes == 2) || (name == TEXT_ENCODER && two_texts);
                (graph.nodes[node].outputs[0], Layer { node, place, runs_of_step, negative_first })
            };
            let layers = comparable(&graph).into_iter().map(layer).collect();
            graphs.push((name, graph, layers));
        }
        Ok(Self(graphs))
    }

    /// Forgets all others.
    fn keep(&mut self, common: &BTreeSet<Base>) {
        for (_, _, layers) in &mut self.0 {
            layers.retain(|_, layer| common.contains(&base(&layer.place)));
        }
    }

    fn of_component(&self, component: &str) -> Option<&BTreeMap<ValueId, Layer>> {
        self.0.iter().find(|(name, _, _)| name == component).map(|(_, _, layers)| layers)
    }

    fn layer(&self, component: &str, value: ValueId) -> Option<&Layer> {
        self.of_component(component)?.get(&value)
    }

    fn wanted(&self, component: &str, _: &Checked<Graph>) -> Vec<ValueId> {
        self.of_component(component).into_iter().flatten().map(|(id, _)| *id).collect()
    }

    /// The runs of all graphs in their order, but those for the negative prompt.
    fn runs<'m>(&'m self, measures: &'m Measures) -> Vec<Run<'m>> {
        let mut runs = Vec::new();
        for (name, graph, layers) in &self.0 {
            let first = layers.values().next();
            for ((_, run), measures) in measures.iter().filter(|((component, _), _)| component == name) {
                let negative = first.is_some_and(|layer| layer.negative_first && run.is_multiple_of(2));
                let step = first.and_then(|layer| Some(run / layer.runs_of_step?));
                if !negative {
                    runs.push(Run { component: name, step, graph, measures });
                }
            }
        }
        runs
    }
}
