//! The golden run of a bundle, and runs that are examples.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result};
use edge_ir::{Checked, Executor, Graph, Tensor, TensorType};
use edge_lcm::TorchGenerator;
use edge_package::{Call, Played};
use edge_run::picture::{Picture, write_png};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Guidance, Noise, Plan, Request, Sampler, Session, Trace};
use edge_spec::{FoldStep, Prompt};

use super::model::Model;
use super::sampling::Sampling;
use crate::cli::Package;
use crate::report;

/// What a request came to.
type Drawn = (Vec<Picture>, Trace);

/// Runs the model on the golden prompt, and on the examples' prompts; the golden run is the example where there are none.
pub(super) fn play(args: &Package, model: &Model) -> Result<(Played, Vec<Call>)> {
    let examples = args.examples.as_deref().map(Prompt::read_all).transpose()?.unwrap_or_default();
    let sampling = Sampling::new(&args.sampling, &args.model, model)?;
    let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
    let request = |(prompt, index): (&str, u64)| Request {
        prompt: prompt.to_owned(),
        negative_prompt: String::new(),
        guidance: sampling.guidance,
        noise: Noise::Seed(args.seed.wrapping_add(index)),
    };
    let bar = report::progress_bar(args.quiet);
    let graphs = model.graphs();
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan: sampling.plan(), decoder: sampling.decoder };
    let record = |requests: &[Request]| -> Result<(Vec<Call>, Vec<Drawn>)> {
        let calls: Rc<RefCell<Vec<Call>>> = Rc::default();
        let session = |name: &str| Ok(Box::new(recorded(&graphs(name)?, name, &calls)?) as _);
        let mut drawn = Vec::new();
        let mut done = |_, pictures, trace| drawn.push((pictures, trace));
        sampler.draw_on(&session, requests, &mut |what| bar.set_message(what.to_owned()), &mut done)?;
        Ok((calls.take(), drawn))
    };
    let golden = request((&args.prompt, 0));
    let (calls, drawn) = record(std::slice::from_ref(&golden))?;
    let (pictures, trace) = drawn.into_iter().next().context("the golden run drew nothing")?;
    let texts = examples.iter().map(|p| p.text.as_str());
    let requests: Vec<_> = texts.zip(1..).map(request).collect();
    let samples = if requests.is_empty() { calls.clone() } else { record(&requests)?.0 };
    bar.finish_and_clear();
    let steps = steps(model, &sampling);
    let whole = whole(model, &calls, &trace, &steps, args.seed)?;
    let mut png = Vec::new();
    let picture = pictures.first().context("the golden run drew nothing")?;
    write_png(&mut png, picture, &[])?;
    let (Guidance::Embedding { scale, .. } | Guidance::TwoPasses { scale }) = sampling.guidance;
    Ok((Played { prompt: args.prompt.clone(), seed: args.seed, guidance: scale, steps, calls, whole, png }, samples))
}

/// A session whose runs are put into `calls`.
fn recorded(graph: &Checked<Graph>, name: &str, calls: &Rc<RefCell<Vec<Call>>>) -> Result<Session, edge_run::Error> {
    let mut session = Session::load(graph)?;
    let names = |ports: &[(String, TensorType)]| ports.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (component, calls) = (name.to_owned(), Rc::clone(calls));
    let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
    session.record(move |fed, got| {
        let named = |names: &[String], tensors: &[Tensor]| names.iter().cloned().zip(tensors.iter().cloned()).collect();
        let (inputs, outputs) = (named(&inputs, fed), named(&outputs, got));
        calls.borrow_mut().push(Call { component: component.clone(), inputs, outputs });
    });
    Ok(session)
}

/// The scheduler's steps as the manifest has them; none where they are no weighted sums.
fn steps(model: &Model, sampling: &Sampling) -> Vec<FoldStep> {
    match (model.fold(), sampling.plan()) {
        (Some(fold), _) => fold.steps.clone(),
        (None, Plan::Schedule(schedule)) => {
            schedule.affine().unwrap_or_default().iter().map(super::fold::step).collect()
        }
        (None, Plan::Folded(folded)) => folded.steps.iter().map(super::fold::step).collect(),
    }
}

/// Token ids and noise, and the picture's numbers.
fn whole(model: &Model, calls: &[Call], trace: &Trace, steps: &[FoldStep], seed: u64) -> Result<Call> {
    let p = model.pipeline();
    let shape = [p.batch, p.latent_channels, p.height / p.vae_scale_factor, p.width / p.vae_scale_factor];
    let ids = calls.iter().flat_map(|c| &c.inputs).filter(|(name, _)| name.ends_with("input_ids"));
    let mut ids: Vec<(String, Tensor)> = ids.cloned().collect();
    // Where the text encoder ran twice, the negative prompt came first.
    if let [(first, _), (second, _)] = &mut ids[..]
        && first == second
    {
        first.insert_str(0, "negative_");
    }
    let mut torch = TorchGenerator::new(seed);
    let mut draw = |name: String| (name, Tensor::f32s(shape, &torch.randn(shape.iter().product())));
    let mut inputs = ids;
    inputs.push(draw("latent".to_owned()));
    for (index, _) in steps.iter().enumerate().filter(|(_, step)| step.noise != 0.0) {
        inputs.push(draw(format!("noise_{index}")));
    }
    let image = trace.tensors.get("image").context("the golden run drew nothing")?.clone();
    Ok(Call { component: "pipeline".into(), inputs, outputs: vec![("image".into(), image)] })
}
