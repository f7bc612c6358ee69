//! `edgetool evaluate`: the share of pictures that show what their prompts ask for.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_import::Options;
use edge_run::picture::{Picture, write_png};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Noise, Request, Sampler, Session};
use edge_spec::{JudgeSpec, Prompt};
use edge_verify::{Judge, Share, Tally};
use serde_json::{Map, Value, json};

use super::model::Model;
use super::sampling::Sampling;
use crate::cli::{Evaluate, Format};
use crate::report;
use crate::staging::Staging;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-evaluation/v1";

/// Draws for each prompt, lets the judge read, and shows the shares.
pub(crate) fn evaluate(args: &Evaluate) -> Result<()> {
    super::set_threads(args.how.threads)?;
    let cannot = || format!("cannot evaluate `{}`", args.model.display());
    let output = args.output.as_deref().map(|folder| Staging::folder(folder, args.force)).transpose()?;
    let mut prompts = Prompt::read_all(&args.prompts)?;
    prompts.truncate(args.limit.map_or(usize::MAX, std::num::NonZero::get));
    let mut judge = open_judge(&args.judge)?;
    let model = Model::open(&args.model, args.how.config.as_deref(), Options::default()).with_context(cannot)?;
    let (pictures, steps) = draw(args, &model, &prompts).with_context(cannot)?;
    let mut tally = judge.tally();
    let mut readings = Vec::new();
    for (index, (prompt, picture)) in prompts.iter().zip(&pictures).enumerate() {
        let values: Vec<f32> = as_seen(picture);
        let reading = judge.read(&values, [picture.height as usize, picture.width as usize])?;
        let right = judge.count(&mut tally, prompt, &reading)?;
        let seen: Map<_, _> = judge.labels(&reading).map(|(head, label)| (head.to_owned(), json!(label))).collect();
        let (seed, truth) = (args.seed + index as u64, &prompt.truth);
        readings.push(
            json!({"file": file_name(index), "prompt": prompt.text, "seed": seed, "asked": truth, "seen": seen, "right": right}),
        );
    }
    if let Some(staging) = output {
        write(args, staging.path(), &prompts, &pictures, &summary(args, steps, &tally, Some(readings)))?;
        staging.commit()?;
    }
    report::data(match args.how.format {
        Format::Json => summary(args, steps, &tally, None).to_string(),
        Format::Text => table(&tally),
    })
}

/// A judge, for whoever has pictures.
pub(super) struct Bench(Judge);

impl Bench {
    /// Opens the judge of a folder.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Ok(Self(open_judge(folder)?))
    }

    /// The share of pictures that show what their prompts ask for.
    pub(super) fn accuracy(&mut self, pictures: &[(&Prompt, &Picture)]) -> Result<f64> {
        let mut tally = self.0.tally();
        for (prompt, picture) in pictures {
            let reading = self.0.read(&as_seen(picture), [picture.height as usize, picture.width as usize])?;
            self.0.count(&mut tally, prompt, &reading)?;
        }
        Ok(tally.accuracy.value())
    }
}

fn open_judge(folder: &Path) -> Result<Judge> {
    let spec = JudgeSpec::open(folder)?;
    let graph = edge_ir::onnx::read(&folder.join(&spec.model))?;
    let session = Session::load(&graph)?;
    Ok(Judge::new(spec, &graph, Box::new(session))?)
}

fn draw(args: &Evaluate, model: &Model, prompts: &[Prompt]) -> Result<(Vec<Picture>, usize)> {
    let pipeline = model.pipeline();
    ensure!(
        pipeline.batch == 1,
        "expected a model that draws one picture at a time, got a batch of {}",
        pipeline.batch
    );
    let sampling = Sampling::new(&args.sampling, &args.model, model)?;
    let tokenizer = Tokenizer::from_folder(&model.root().join("tokenizer"))?;
    let request = |(index, prompt): (usize, &Prompt)| Request {
        prompt: prompt.text.clone(),
        negative_prompt: String::new(),
        guidance: sampling.guidance,
        noise: Noise::Seed(args.seed + index as u64),
    };
    let requests: Vec<_> = prompts.iter().enumerate().map(request).collect();
    let bar = report::progress_bar(args.how.quiet);
    let graphs = model.graphs();
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan: sampling.plan(), decoder: sampling.decoder };
    let mut drawn = Vec::new();
    sampler.draw_each(&requests, &mut |what| bar.set_message(what.to_owned()), &mut |_, pictures, _| {
        drawn.extend(pictures);
    })?;
    bar.finish_and_clear();
    Ok((drawn, sampling.steps()))
}

/// `[3, height, width]` with the values of the 8-bit pixels, which are what a person sees.
fn as_seen(picture: &Picture) -> Vec<f32> {
    (0..3).flat_map(|channel| picture.rgb.iter().skip(channel).step_by(3).map(|v| f32::from(*v) / 255.0)).collect()
}

fn file_name(index: usize) -> String {
    format!("{:04}.png", index + 1)
}

fn write(args: &Evaluate, folder: &Path, prompts: &[Prompt], pictures: &[Picture], report: &Value) -> Result<()> {
    for (index, (prompt, picture)) in prompts.iter().zip(pictures).enumerate() {
        let path = folder.join(file_name(index));
        let write = || format!("cannot write `{}`", path.display());
        let settings = [
            ("prompt".to_owned(), prompt.text.replace('\0', "\u{fffd}")),
            ("seed".to_owned(), (args.seed + index as u64).to_string()),
        ];
        write_png(BufWriter::new(File::create(&path).with_context(write)?), picture, &settings).with_context(write)?;
    }
    let path = folder.join("evaluation.json");
    std::fs::write(&path, format!("{report:#}\n")).with_context(|| format!("cannot write `{}`", path.display()))
}

fn summary(args: &Evaluate, steps: usize, tally: &Tally, readings: Option<Vec<Value>>) -> Value {
    let share = |share: &Share| json!({"right": share.right, "of": share.of, "share": share.value()});
    let heads: Map<_, _> = tally.heads.iter().map(|(name, of)| (name.clone(), share(of))).collect();
    let mut object = json!({
        "schema": SCHEMA,
        "steps": steps,
        "seed": args.seed,
        "prompt_accuracy": share(&tally.accuracy),
        "counts": tally.accuracy_heads,
        "heads": heads,
    });
    if let Some(readings) = readings {
        object["pictures"] = Value::from(readings);
    }
    object
}

fn table(tally: &Tally) -> String {
    let line = |name: &str, share: &Share| {
        format!("{name:<16} {:>6.1} %  {:>5} of {}", 100.0 * share.value(), share.right, share.of)
    };
    let counted = tally.accuracy_heads.join(" and ");
    let first = format!("{}  ({counted})", line("prompt accuracy", &tally.accuracy));
    let rest = tally.heads.iter().map(|(name, share)| line(name, share));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
}
