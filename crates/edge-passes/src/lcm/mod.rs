//! The LCM sampler goes into the graphs: what is known before the first step becomes constants.
//!
//! [`fold`] takes a model as it was imported and gives one for a fixed schedule, in one of four forms. In all of them
//! no operator and no weight of the time embedding is left, the step of the scheduler is a few products and sums, and
//! the decoder takes the sampler's latent and gives a picture from 0 to 1.

mod decoder;
mod error;
mod guidance;
mod hoist;
mod known;
mod slice;
mod step;
mod time;

use std::collections::BTreeMap;

use edge_ir::{Builder, Checked, DType, Graph, Model, Scope, ValueId};
use edge_lcm::{Affine, Schedule, guidance_embedding};

pub use decoder::{IMAGE, Layout};
pub use error::FoldError;
pub use guidance::Branches;

use guidance::{Guide, NEGATIVE};
use time::Moment;

/// How the steps lie in graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One UNet for all steps; its input `step` chooses from tables.
    Table,
    /// A UNet for each step.
    PerStep,
    /// All steps in one graph, `sampler`.
    Unrolled,
    /// Token ids and noise to picture in one graph, `pipeline`.
    Pipeline,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How the steps lie in graphs.
    pub form: Form,
    /// The steps.
    pub schedule: &'a Schedule,
    /// The guidance scale; none leaves it an input: `timestep_cond` where the UNet has an embedding for it, else
    /// `guidance`.
    pub guidance: Option<f32>,
    /// How a UNet without embedding answers to two prompts.
    pub branches: Branches<'a>,
    /// The scheduler's step stays outside: the UNet gives its own output.
    pub host: bool,
    /// The projections of the prompt to keys and values go into the text encoder.
    pub hoist: bool,
    /// The picture's layout.
    pub layout: Layout,
    /// The decoders and what their latents are divided by.
    pub decoders: &'a [(&'a str, f32)],
    /// Which of them ends the pipeline.
    pub decoder: &'a str,
}

/// A graph and its place on disk.
#[derive(Clone, Debug)]
pub struct Part {
    /// The component's name.
    pub name: String,
    /// The folder, which parts share that have the same weights.
    pub folder: String,
    /// The file's name without its ending.
    pub file: String,
    /// The graph.
    pub graph: Checked<Graph>,
}

/// A folded model.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The graphs in the order of use.
    pub parts: Vec<Part>,
    /// The scheduler's steps, which are in the graphs unless they were to stay outside.
    pub steps: Vec<Affine>,
}

/// Whether a UNet answers to two prompts at this guidance scale.
pub fn needs_branches(embedding: bool, guidance: Option<f32>) -> bool {
    !embedding && guidance.is_none_or(|scale| scale > 1.0)
}

/// Folds.
///
/// # Errors
/// If the model is not one of text encoder, UNet and decoders as they are imported, or the request goes against it.
pub fn fold(model: &Model, request: &Request<'_>) -> Result<Folded, FoldError> {
    let steps = request.schedule.affine().ok_or(FoldError::Thresholding)?;
    if request.host && matches!(request.form, Form::Unrolled | Form::Pipeline) {
        return Err(FoldError::Request("the scheduler's step cannot stay outside of a graph of several steps"));
    }
    let component =
        |name: &str| model.components.get(name).ok_or_else(|| FoldError::Missing { what: format!("`{name}`") });
    let text = component("text_encoder")?.clone();
    let text = if request.hoist { hoist::into_text(&text, component("unet")?)? } else { text };
    let unets = step_graphs(component("unet")?, &steps, request)?;
    let mut decoders = Vec::new();
    for (name, factor) in request.decoders {
        decoders.push((*name, decoder::fold(component(name)?, *factor, request.layout)?));
    }
    let part = |name: &str, graph| Part { name: name.into(), folder: name.into(), file: "model".into(), graph };
    let mut parts = vec![part("text_encoder", text)];
    match request.form {
        Form::Table => parts.extend(unets.into_iter().map(|graph| part("unet", graph))),
        Form::PerStep => parts.extend(unets.into_iter().enumerate().map(|(index, graph)| {
            let file = format!("step_{index}");
            Part { name: format!("unet_{file}"), folder: "unet".into(), file, graph }
        })),
        Form::Unrolled => parts.push(part("sampler", unroll(&unets)?)),
        Form::Pipeline => {
            let sampler = unroll(&unets)?;
            let last = decoders.iter().find(|(name, _)| *name == request.decoder);
            let (name, decoder) = last.ok_or_else(|| FoldError::Missing { what: format!("`{}`", request.decoder) })?;
            let graph = pipeline(&parts[0].graph, &sampler, name, decoder)?;
            return Ok(Folded { parts: vec![part("pipeline", graph)], steps });
        }
    }
    parts.extend(decoders.into_iter().map(|(name, graph)| part(name, graph)));
    parts.extend(model.components.get("vae_encoder").map(|graph| part("vae_encoder", graph.clone())));
    Ok(Folded { parts, steps })
}

/// The UNet of each step, or one for all, with guidance and with the scheduler's step.
fn step_graphs(unet: &Graph, steps: &[Affine], request: &Request<'_>) -> Result<Vec<Checked<Graph>>, FoldError> {
    let condition = unet.inputs.iter().find(|id| unet.value(**id).name == "timestep_cond");
    let width = condition.and_then(|id| unet.ty(*id).shape.last().copied());
    let embedding = width.zip(request.guidance).map(|(width, scale)| guidance_embedding(scale - 1.0, width));
    let moments: Vec<Moment<'_>> =
        steps.iter().map(|s| Moment { timestep: s.timestep, condition: embedding.as_deref() }).collect();
    let (guide, source) = match (needs_branches(width.is_some(), request.guidance), request.branches) {
        (false, _) => (Guide::Plain, unet),
        (true, Branches::Calls) => (Guide::Combined { batch: false, scale: request.guidance }, unet),
        (true, Branches::Batch(twice)) => (Guide::Combined { batch: true, scale: request.guidance }, twice),
    };
    let hoisted = request.hoist.then(|| hoist::out_of(source)).transpose()?;
    let source = hoisted.as_deref().unwrap_or(source);
    let shape = latent(unet)?;
    let finish = |graph: &Graph, steps: &[Affine]| step_graph(graph, shape.clone(), steps, guide, request.host);
    if request.form == Form::Table {
        return Ok(vec![finish(&*time::tabulate(source, &moments)?, steps)?]);
    }
    let graph =
        |(moment, step): (&Moment<'_>, &Affine)| finish(&*time::bake(source, *moment)?, std::slice::from_ref(step));
    moments.iter().zip(steps).map(graph).collect()
}

/// In: `sample`, what the prompt gives, `noise` unless the only step takes none, `step` if there are several. Out:
/// `prev_sample`, or `out_sample` if the scheduler's step stays outside.
fn step_graph(
    unet: &Graph,
    (dtype, shape): (DType, Vec<usize>),
    steps: &[Affine],
    guide: Guide,
    host: bool,
) -> Result<Checked<Graph>, FoldError> {
    let mut b = Builder::new(&unet.name);
    let sample = b.input("sample", dtype, &shape);
    let output = guidance::add(&mut b, unet, sample, guide)?;
    if host {
        b.output("out_sample", output);
        return Ok(b.finish()?);
    }
    let noise = steps.iter().any(|s| s.noise != 0.0).then(|| b.input("noise", dtype, &shape));
    let index = b.find_input(time::STEP);
    let next = step::add(&mut b, steps, step::Inputs { sample, output, noise, index })?;
    b.output("prev_sample", next);
    Ok(b.finish()?)
}

/// All steps one after another. The noise of step k is the input `noise_k`; the output is `denoised`.
fn unroll(steps: &[Checked<Graph>]) -> Result<Checked<Graph>, FoldError> {
    let first = steps.first().ok_or(FoldError::Request("there are no steps"))?;
    let mut b = Builder::new("sampler");
    let (dtype, shape) = latent(first)?;
    let mut sample = b.input("sample", dtype, &shape);
    for (index, graph) in steps.iter().enumerate() {
        let mut feeds = BTreeMap::from([("sample".to_owned(), sample)]);
        if graph.inputs.iter().any(|id| graph.value(*id).name == "noise") {
            feeds.insert("noise".to_owned(), b.input(&format!("noise_{index}"), dtype, &shape));
        }
        let module = format!("steps.{index}");
        sample = only(b.inline(graph, Scope { module: &module, weights: "" }, &feeds)?)?;
    }
    b.output("denoised", sample);
    Ok(b.finish()?)
}

/// Text encoder, sampler and decoder in one: from `input_ids`, and `negative_input_ids` where the sampler wants them.
fn pipeline(text: &Graph, sampler: &Graph, decoder_name: &str, decoder: &Graph) -> Result<Checked<Graph>, FoldError> {
    let mut b = Builder::new("pipeline");
    let ids = *text.inputs.first().ok_or_else(|| FoldError::Missing { what: "input of the text encoder".into() })?;
    let (ids, ty) = (text.value(ids).name.clone(), text.ty(ids).clone());
    let mut feeds = BTreeMap::new();
    let prompted = b.inline(text, Scope { module: "text_encoder", weights: "text_encoder" }, &BTreeMap::new())?;
    let names: Vec<&str> = sampler.inputs.iter().map(|id| sampler.value(*id).name.as_str()).collect();
    let context = |name: &str| if name == "last_hidden_state" { "encoder_hidden_states" } else { name }.to_owned();
    let doubled = prompted.iter().any(|(name, id)| {
        let wanted = sampler.inputs.iter().find(|i| sampler.value(**i).name == context(name));
        wanted.is_some_and(|i| sampler.ty(*i).shape != b.shape(*id))
    });
    if doubled || names.iter().any(|name| name.starts_with(NEGATIVE)) {
        let negative_ids = b.input(&format!("{NEGATIVE}{ids}"), ty.dtype, &ty.shape);
        let scope = Scope { module: "negative_text_encoder", weights: "text_encoder" };
        let negative = b.inline(text, scope, &BTreeMap::from([(ids, negative_ids)]))?;
        for (name, id) in &negative {
            if doubled {
                let axis = [("axis", edge_ir::Attribute::Int(0))];
                let joined = b.node("Concat", &format!("guidance/Concat.{name}"), &[*id, prompted[name]], &axis)?;
                feeds.insert(context(name), joined);
            } else {
                feeds.insert(format!("{NEGATIVE}{}", context(name)), *id);
            }
        }
    }
    for (name, id) in &prompted {
        feeds.entry(context(name)).or_insert(*id);
    }
    let denoised = only(b.inline(sampler, Scope { module: "unet", weights: "unet" }, &feeds)?)?;
    let latent = decoder.inputs.first().map(|id| (decoder.value(*id).name.clone(), denoised)).into_iter().collect();
    let image = only(b.inline(decoder, Scope { module: decoder_name, weights: decoder_name }, &latent)?)?;
    b.output(IMAGE, image);
    Ok(b.finish()?)
}

fn latent(graph: &Graph) -> Result<(DType, Vec<usize>), FoldError> {
    let sample = graph.inputs.iter().find(|id| graph.value(**id).name == "sample");
    let ty = sample.map(|id| graph.ty(*id)).ok_or_else(|| FoldError::Missing { what: "input `sample`".into() })?;
    Ok((ty.dtype, ty.shape.clone()))
}

fn only(outputs: BTreeMap<String, ValueId>) -> Result<ValueId, FoldError> {
    outputs.into_values().next().ok_or_else(|| FoldError::Missing { what: "output".into() })
}
