//! The error of each layer: both models draw the first prompt again and again, a part of their layers watched each time,
//! so that memory does not grow with the models.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::Result;
use edge_ir::{Checked, Graph, Tensor, ValueId};
use edge_run::Noise;
use edge_spec::{Check, GuidanceBy, Profile, Prompt};
use edge_verify::metrics::tensors;
use edge_verify::{Measure, Place, Run, TEXT_ENCODER, UNET, aligned, comparable, place, profile};

use super::player::{Hear, Player};

/// Bytes of one model's watched values that are held at a time.
pub(super) const BUDGET: u64 = 256 << 20;

/// A node's place, whatever the step.
type Base = (String, bool, String);

/// What was found, by component, run and node.
type Measures = BTreeMap<(String, usize), BTreeMap<usize, Measure>>;

/// What to look for.
pub(super) struct Bisect<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) noise: &'a Noise,
    /// The first check that failed.
    pub(super) failed: Option<&'a Check>,
    /// A layer whose signal to error is below may be at fault.
    pub(super) least_db: f64,
}

/// The profile of the candidate against the reference.
pub(super) fn bisect(
    candidate: &Player,
    reference: &Player,
    what: &Bisect<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Profile> {
    let (ours, theirs) = (Layers::new(candidate)?, Layers::new(reference)?);
    let common: BTreeSet<Base> = theirs.sizes().map(|(base, _)| base).collect();
    let batches = batches(ours.sizes().filter(|(base, _)| common.contains(base)));
    let measures: Rc<RefCell<Measures>> = Rc::default();
    for (index, batch) in batches.iter().enumerate() {
        progress(&format!("layers, part {} of {}", index + 1, batches.len()));
        let expected: Rc<RefCell<BTreeMap<Place, Tensor>>> = Rc::default();
        let hear: Hear = Rc::new(RefCell::new({
            let (watched, expected) = (theirs.watched(batch), Rc::clone(&expected));
            move |component: &str, run: usize, tensors: Vec<Tensor>| {
                let nodes = watched.get(component).into_iter().flatten();
                nodes.zip(tensors).for_each(|((_, place), tensor)| {
                    expected.borrow_mut().insert(place.at(run), tensor);
                });
            }
        }));
        theirs.play(batch, &hear, what)?;
        let hear: Hear = Rc::new(RefCell::new({
            let (watched, measures) = (ours.watched(batch), Rc::clone(&measures));
            move |component: &str, run: usize, tensors: Vec<Tensor>| {
                let nodes = watched.get(component).into_iter().flatten();
                for ((node, place), tensor) in nodes.zip(tensors) {
                    let measure = expected.borrow().get(&place.at(run)).and_then(|wanted| measure(&tensor, wanted));
                    let key = (component.to_owned(), run);
                    measure.map(|measure| measures.borrow_mut().entry(key).or_default().insert(*node, measure));
                }
            }
        }));
        ours.play(batch, &hear, what)?;
    }
    let measures = measures.borrow();
    Ok(profile(&ours.runs(&measures), what.failed, what.least_db))
}

/// The layers of a model that can be compared.
struct Layers<'a> {
    player: &'a Player,
    /// Component, graph, and the indices of its nodes.
    graphs: Vec<(String, Checked<Graph>, Vec<usize>)>,
}

/// A node's place in a graph that may run several times.
#[derive(Clone)]
struct Watched {
    place: Place,
    /// Whether the graph's runs are the steps, and how many runs a step has.
    runs_of_step: Option<usize>,
    /// Whether the first of two runs is for the negative prompt.
    negative_first: bool,
}

impl Watched {
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

impl<'a> Layers<'a> {
    fn new(player: &'a Player) -> Result<Self> {
        let mut graphs = Vec::new();
        for name in player.used() {
            let graph = player.model.graph(&name)?;
            let nodes = comparable(&graph);
            graphs.push((name, graph, nodes));
        }
        Ok(Self { player, graphs })
    }

    /// Each layer with the bytes of its output in all steps.
    fn sizes(&self) -> impl Iterator<Item = (Base, u64)> {
        let steps = self.player.steps() as u64;
        self.graphs.iter().flat_map(move |(name, graph, nodes)| {
            let runs = if name == UNET { steps } else { 1 };
            nodes.iter().map(move |node| {
                let node = &graph.nodes[*node];
                (base(&place(name, &node.name)), runs * graph.ty(node.outputs[0]).bytes())
            })
        })
    }

    /// By component, the nodes of a batch.
    fn watched(&self, batch: &BTreeSet<Base>) -> BTreeMap<String, Vec<(usize, Watched)>> {
        let passes = if self.player.two_passes() { 2 } else { 1 };
        let folded = self.player.model.fold().map(|fold| fold.guidance.by);
        let two_texts = passes == 2 || matches!(folded, Some(GuidanceBy::Calls | GuidanceBy::Batch));
        let of = |(name, graph, nodes): &(String, Checked<Graph>, Vec<usize>)| {
            let watched = |node: &usize| {
                let place = place(name, &graph.nodes[*node].name);
                let runs_of_step = (name == UNET).then_some(passes);
                let negative_first = (name == UNET && passes == 2) || (name == TEXT_ENCODER && two_texts);
                batch.contains(&base(&place)).then_some((*node, Watched { place, runs_of_step, negative_first }))
            };
            (name.clone(), nodes.iter().filter_map(watched).collect())
        };
        self.graphs.iter().map(of).collect()
    }

    /// Draws, with the nodes of a batch watched.
    fn play(&self, batch: &BTreeSet<Base>, hear: &Hear, what: &Bisect<'_>) -> Result<()> {
        let watched = self.watched(batch);
        let watch = |name: &str, graph: &Checked<Graph>| -> Vec<ValueId> {
            watched.get(name).into_iter().flatten().map(|(node, _)| graph.nodes[*node].outputs[0]).collect()
        };
        let request = self.player.request(what.prompt, what.noise.clone());
        self.player.play(&[request], &watch, hear, &mut |_| {}, &mut |_, _| {})
    }

    /// The runs of all graphs in their order, but those for the negative prompt.
    fn runs<'m>(&'m self, measures: &'m Measures) -> Vec<Run<'m>> {
        let mut runs = Vec::new();
        let all = self.watched(&self.sizes().map(|(base, _)| base).collect());
        for (name, graph, _) in &self.graphs {
            for ((_, run), measures) in measures.iter().filter(|((component, _), _)| component == name) {
                let first = all.get(name).and_then(|nodes| nodes.first());
                let negative = first.is_some_and(|(_, place)| place.negative_first && run.is_multiple_of(2));
                let step = first.and_then(|(_, place)| Some(run / place.runs_of_step?));
                if !negative {
                    runs.push(Run { component: name, step, graph, measures });
                }
            }
        }
        runs
    }
}

fn base(place: &Place) -> Base {
    (place.component.clone(), place.negative, place.node.clone())
}

/// Layers in groups whose values are held at once; a layer of any size is in one.
fn batches(layers: impl Iterator<Item = (Base, u64)>) -> Vec<BTreeSet<Base>> {
    let mut batches: Vec<BTreeSet<Base>> = Vec::new();
    let mut bytes = 0;
    for (base, size) in layers {
        match batches.last_mut() {
            Some(batch) if bytes + size <= BUDGET => {
                batch.insert(base);
                bytes += size;
            }
            _ => {
                batches.push(BTreeSet::from([base]));
                bytes = size;
            }
        }
    }
    batches
}

fn measure(candidate: &Tensor, reference: &Tensor) -> Option<Measure> {
    let difference = tensors::compare(&aligned(candidate, reference)?, &reference.to_f32s())?;
    Some(Measure { sqnr_db: difference.sqnr_db, float16_use: difference.range.float16_use() })
}
