//! What a model made of prompts: what its components hand on to each other, pictures, and how its integers are used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use edge_ir::{Checked, Graph, Tensor, ValueId};
use edge_run::picture::Picture;
use edge_run::{Graphs, Request, Trace};
use edge_verify::metrics::pictures::Pixels;
use edge_verify::{Drawing, Landmark, Quantizer, Saturation, UNET, landmarks, place, quantizers};

use super::player::{Look, Player, Seen, locked};

/// A drawing, and its picture as a file is made of it.
#[derive(Clone)]
pub(super) struct Drawn {
    pub(super) drawing: Drawing,
    pub(super) picture: Option<Picture>,
    pub(super) truncated: bool,
    /// The runner knows the UNet's outputs and latents itself.
    traced: [bool; 2],
}

/// Draws with these graphs, and gives what the components hand on to each other, and what became integers.
pub(super) fn draw(
    player: &Player,
    graphs: Graphs<'_>,
    requests: &[Request],
    progress: &mut dyn FnMut(&str),
) -> Result<(Vec<Drawn>, Vec<Saturation>)> {
    let marks = Arc::new(Marks { shape: Shape::of(player, requests.len()), heard: Mutex::default() });
    let look: Arc<dyn Look> = marks.clone();
    let traces = player.play(graphs, requests, &look, progress)?;
    let mut drawn: Vec<Drawn> = traces.into_iter().map(|(pictures, trace)| Drawn::new(pictures, &trace)).collect();
    let heard = std::mem::take(&mut *locked(&marks.heard));
    for (component, heard) in &heard.components {
        for (run, mark, tensor) in &heard.seen {
            let (request, step) = marks.shape.of_run(component, heard.runs, *run);
            if let Some(drawn) = drawn.get_mut(request) {
                drawn.add(*mark, step, tensor);
            }
        }
    }
    let saturation = player.used().into_iter().filter_map(|name| heard.components.get(&name));
    let saturation = saturation.flat_map(|heard| &heard.quantizers).flat_map(|(_, steps)| steps.values().cloned());
    Ok((drawn, saturation.collect()))
}

/// How a model's runs belong to requests and steps.
struct Shape {
    steps: usize,
    requests: usize,
    passes: usize,
}

impl Shape {
    fn of(player: &Player, requests: usize) -> Self {
        Self { steps: player.steps(), requests, passes: if player.two_passes() { 2 } else { 1 } }
    }

    /// The request and the step of a component's run, of so many. A graph for every step does one step for all requests
    /// before the next one.
    fn of_run(&self, component: &str, runs: usize, run: usize) -> (usize, usize) {
        let rounds = if component == UNET { self.steps } else { 1 };
        let each = (runs / (rounds * self.requests).max(1)).max(1);
        let round = run / (each * self.requests);
        (run / each % self.requests, place(component, "").step.unwrap_or(round * each + run % each))
    }

    /// The step of a run of a graph for every step, while it runs.
    fn step(&self, component: &str, run: usize) -> Option<usize> {
        (component == UNET).then_some(run / (self.passes * self.requests))
    }
}

/// Hears what components hand on, and what becomes integers.
struct Marks {
    shape: Shape,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    components: BTreeMap<String, OfComponent>,
}

#[derive(Default)]
struct OfComponent {
    marks: BTreeMap<ValueId, Vec<Landmark>>,
    /// By the value that becomes integers.
    places: BTreeMap<ValueId, Vec<usize>>,
    /// In the order of use, with what came in each step.
    quantizers: Vec<(Quantizer, BTreeMap<Option<usize>, Saturation>)>,
    runs: usize,
    seen: Vec<(usize, Landmark, Tensor)>,
}

impl Look for Marks {
    fn wanted(&self, component: &str, graph: &Checked<Graph>) -> Vec<ValueId> {
        let mut heard = locked(&self.heard);
        let here = heard.components.entry(component.to_owned()).or_default();
        for (mark, id) in landmarks(component, graph) {
            here.marks.entry(id).or_default().push(mark);
        }
        for (index, quantizer) in quantizers(component, graph).into_iter().enumerate() {
            here.places.entry(quantizer.input).or_default().push(index);
            here.quantizers.push((quantizer, BTreeMap::new()));
        }
        let wanted: std::collections::BTreeSet<_> = here.marks.keys().chain(here.places.keys()).copied().collect();
        wanted.into_iter().collect()
    }

    fn see(&self, component: &str, run: usize, value: ValueId, seen: Seen<'_>) {
        let mut heard = locked(&self.heard);
        let Some(here) = heard.components.get_mut(component) else { return };
        here.runs = here.runs.max(run + 1);
        for mark in here.marks.get(&value).into_iter().flatten() {
            here.seen.push((run, *mark, Tensor::f32s(seen.shape, seen.numbers)));
        }
        let step = self.shape.step(component, run);
        for index in here.places.get(&value).into_iter().flatten() {
            let (quantizer, steps) = &mut here.quantizers[*index];
            steps.entry(step).or_insert_with(|| Saturation::new(quantizer, step)).add(seen.numbers);
        }
    }
}

impl Drawn {
    fn new(pictures: Vec<Picture>, trace: &Trace) -> Self {
        let tensor = |name: &str| trace.tensors.get(name);
        let rows = |name: &str| tensor(name).map(rows).unwrap_or_default();
        let (outputs, latents) = (rows("model_output"), rows("prev_sample"));
        let traced = [!outputs.is_empty(), !latents.is_empty()];
        let picture = pictures.into_iter().next();
        let drawing = Drawing {
            tokens: tensor("ids").map(indices),
            context: None,
            outputs,
            latents,
            picture: picture.as_ref().map(pixels),
        };
        Self { drawing, picture, truncated: trace.truncated, traced }
    }

    /// What stood in a file.
    pub(super) fn given(drawing: Drawing, picture: Option<Picture>, truncated: bool) -> Self {
        Self { drawing, picture, truncated, traced: [true; 2] }
    }

    fn add(&mut self, mark: Landmark, run: usize, tensor: &Tensor) {
        match mark {
            // Of two prompts the negative comes first.
            Landmark::Context => self.drawing.context = Some(tensor.clone()),
            Landmark::Output(step) if !self.traced[0] => {
                self.drawing.outputs.insert(step.unwrap_or(run), tensor.clone());
            }
            Landmark::Latent(step) if !self.traced[1] => {
                self.drawing.latents.insert(step.unwrap_or(run), tensor.clone());
            }
            _ => {}
        }
    }
}

/// The parts of a tensor along its first dimension, by their indices.
pub(super) fn rows(tensor: &Tensor) -> BTreeMap<usize, Tensor> {
    let shape = tensor.ty.shape.get(1..).unwrap_or_default();
    let size: usize = shape.iter().product();
    tensor.to_f32s().chunks(size.max(1)).map(|row| Tensor::f32s(shape, row)).enumerate().collect()
}

/// The numbers of a tensor of indices.
pub(super) fn indices(tensor: &Tensor) -> Vec<i64> {
    if tensor.ty.dtype == edge_ir::DType::Int32 {
        return tensor.bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect();
    }
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

/// A picture as it is compared.
pub(super) fn pixels(picture: &Picture) -> Pixels {
    Pixels { width: picture.width as usize, height: picture.height as usize, rgb: picture.rgb.clone() }
}
