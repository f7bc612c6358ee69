//! `edgetool verify`: does a model do what another does, and if not, what is wrong with it.

mod bisect;
mod golden;
mod page;
mod player;
mod saturation;
mod summary;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_import::Options;
use edge_run::{Noise, Request};
use edge_spec::{
    Measured, Part, Profile, Prompt, PromptRun, REPORT_FILE, REPORT_SCHEMA, Report, Run, SpecError, Tolerances, Verdict,
};
use edge_verify::{Drawing, Evidence, Findings, Limits, Precision, Shown, judge};

use self::golden::Golden;
use self::player::{Drawn, Player, common, for_model};
use super::evaluate::Bench;
use super::model::Model;
use crate::cli::{Format, Verify};
use crate::report;
use crate::staging::Staging;

/// Prompts where none are named: two pairs, of which each has one thing changed.
const PROMPTS: [&str; 4] = ["a photo of a cat", "a photo of a dog", "a red house on a hill", "a blue house on a hill"];

/// The page's file name.
const PAGE_FILE: &str = "report.html";

/// Draws with both models, compares, and says pass or fail.
pub(crate) fn verify(args: &Verify) -> Result<()> {
    super::set_threads(args.threads)?;
    let cannot = || format!("cannot verify `{}` against `{}`", args.candidate.display(), args.against.display());
    let output = args.report.as_deref().map(|folder| Staging::folder(folder, args.force)).transpose()?;
    let names = Limits::names();
    let limits = Limits::new(args.thresholds.as_deref().map(|path| Tolerances::read(path, &names)).transpose()?);
    let bench = args.judge.as_deref().map(Bench::open).transpose()?;
    let bar = report::progress_bar(args.quiet || args.format == Format::Json);
    let case = Case::open(args).with_context(cannot)?;
    let outcome = case.run(args, &limits, bench, &mut |what| bar.set_message(what.to_owned())).with_context(cannot)?;
    bar.finish_and_clear();
    let report = case.report(args, &outcome)?;
    write(args, &case, &report, &outcome.shown, output)?;
    report::data(match args.format {
        Format::Json => report.text().trim_end().to_owned(),
        Format::Text => summary::text(&args.candidate, &args.against, &report),
    })?;
    match summary::reason(&report) {
        Some(reason) => Err(report::no(reason, summary::hint(args, &report))),
        None => Ok(()),
    }
}

/// What is compared.
struct Case {
    candidate: Player,
    reference: Reference,
    prompts: Vec<Prompt>,
    noises: Vec<Noise>,
    pairs: Vec<(usize, usize)>,
}

enum Reference {
    Model(Box<Player>),
    Golden(Box<Golden>),
}

/// What both made, and what came of it.
struct Outcome {
    findings: Findings,
    profile: Option<Profile>,
    /// For the page; the first prompts'.
    shown: Vec<Shown>,
}

impl Case {
    fn open(args: &Verify) -> Result<Self> {
        let candidate = Model::open(&args.candidate, args.config.as_deref(), Options::default())?;
        if args.against.extension().is_some_and(|e| e == "safetensors") && args.config.is_none() {
            return Self::against_golden(args, candidate);
        }
        let pipeline = candidate.pipeline();
        let size = Options { height: Some(pipeline.height), width: Some(pipeline.width), ..Options::default() };
        let reference = Model::open(&args.against, args.config.as_deref(), size)?;
        let sampling = common(&args.sampling, &[&candidate, &reference])?;
        let ours = for_model(&sampling, &candidate);
        let theirs = for_model(&sampling, &reference);
        let candidate = Player::new(&args.candidate, candidate, &ours)?;
        let reference = Player::new(&args.against, reference, &theirs)?;
        ensure!(
            candidate.steps() == reference.steps() && candidate.guidance().to_bits() == reference.guidance().to_bits(),
            "the candidate takes {} steps at guidance {}, the reference {} at {}",
            candidate.steps(),
            candidate.guidance(),
            reference.steps(),
            reference.guidance()
        );
        let mut prompts = prompts(args)?;
        if prompts.len() == 1 {
            // One prompt says nothing of its own influence.
            prompts.push(Prompt::default());
        }
        // Two prompts on one noise show what the prompt changes.
        let noises = (0..prompts.len()).map(|index| Noise::Seed(args.seed + index as u64 / 2)).collect();
        let pairs = (1..prompts.len()).step_by(2).map(|odd| (odd - 1, odd)).collect();
        Ok(Self { candidate, reference: Reference::Model(Box::new(reference)), prompts, noises, pairs })
    }

    fn against_golden(args: &Verify, candidate: Model) -> Result<Self> {
        let golden = Golden::open(&args.against, &args.sampling, &candidate)?;
        let (steps, guidance) = golden.settings;
        let mut sampling = common(&args.sampling, &[&candidate])?;
        (sampling.steps, sampling.guidance) = (Some(steps), Some(guidance));
        let noise = golden.noise(&candidate.pipeline())?;
        let ours = for_model(&sampling, &candidate);
        let candidate = Player::new(&args.candidate, candidate, &ours)?;
        let text = "a golden file is of one prompt, which it does not name";
        let prompts = match &args.prompts {
            Some(path) => Prompt::read_all(path)?,
            None => return Err(report::with_hint(text, "write the prompt into a file and name it with `--prompts`")),
        };
        ensure!(prompts.len() == 1, "{text}: expected one line in the list of prompts, got {}", prompts.len());
        if args.bisect {
            let text = "`--bisect` compares layers, of which a golden file has none";
            return Err(report::with_hint(text, "name a model with `--against`: the checkpoint, or a conversion"));
        }
        let reference = Reference::Golden(Box::new(golden));
        Ok(Self { candidate, reference, prompts, noises: vec![noise], pairs: Vec::new() })
    }

    fn run(
        &self,
        args: &Verify,
        limits: &Limits,
        bench: Option<Bench>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let theirs = match &self.reference {
            Reference::Golden(golden) => vec![golden.drawn()?],
            Reference::Model(model) => {
                model.draw(&self.requests(model), &mut |what| progress(&format!("reference: {what}")))?
            }
        };
        let ours = self
            .candidate
            .draw(&self.requests(&self.candidate), &mut |what| progress(&format!("candidate: {what}")))?;
        if ours.iter().any(|drawn| drawn.truncated) {
            report::warn("a prompt is longer than the text encoder takes: its end was left out");
        }
        let accuracy = bench.map(|mut bench| -> Result<_> {
            Ok((self.accuracy(&mut bench, &ours)?, self.accuracy(&mut bench, &theirs)?))
        });
        let drawings = |drawn: &[Drawn]| drawn.iter().map(|d| d.drawing.clone()).collect::<Vec<Drawing>>();
        let precisions = self.candidate.precisions()?;
        let findings = judge(
            &Evidence {
                candidate: &drawings(&ours),
                reference: &drawings(&theirs),
                pairs: &self.pairs,
                decoder: self.candidate.decoder(),
                precisions,
                saturation: &saturation::saturation(&self.candidate, &self.prompts[0], &self.noises[0], progress)?,
                accuracy: accuracy.transpose()?,
            },
            limits,
        );
        let profile = match &self.reference {
            Reference::Model(reference) if args.bisect => {
                let coarsest = precisions.text_encoder.max(precisions.unet).max(precisions.decoder);
                let least = limits.get("layer_sqnr_db", coarsest).least.unwrap_or(f64::NEG_INFINITY);
                let failed = findings.failed();
                let what = bisect::Bisect { prompt: &self.prompts[0], noise: &self.noises[0], failed, least_db: least };
                Some(bisect::bisect(&self.candidate, reference, &what, progress)?)
            }
            _ => None,
        };
        let shown = if args.report.is_some() { page::shown(&ours, &theirs)? } else { Vec::new() };
        Ok(Outcome { findings, profile, shown })
    }

    fn requests(&self, player: &Player) -> Vec<Request> {
        self.prompts.iter().zip(&self.noises).map(|(prompt, noise)| player.request(prompt, noise.clone())).collect()
    }

    fn accuracy(&self, bench: &mut Bench, drawn: &[Drawn]) -> Result<f64> {
        let pictures = self.prompts.iter().zip(drawn).filter_map(|(p, d)| Some((p, d.picture.as_ref()?)));
        bench.accuracy(&pictures.collect::<Vec<_>>())
    }

    fn report(&self, args: &Verify, outcome: &Outcome) -> Result<Report> {
        let Findings { checks, tensors, pictures } = outcome.findings.clone();
        let failed = outcome.findings.failed().map(|check| check.component.clone());
        let seed = |noise: &Noise| match noise {
            Noise::Seed(seed) => Some(*seed),
            Noise::Given { .. } => None,
        };
        let prompts = self.prompts.iter().zip(&self.noises);
        let mut components = Vec::new();
        let mut coarsest = Precision::Float32;
        for name in self.candidate.used() {
            let graph = self.candidate.model.graph(&name)?;
            let (stats, precision) = (edge_ir::stats(&graph), self.candidate.precision(&name, &graph));
            coarsest = coarsest.max(precision);
            components.push(Part {
                name,
                precision: precision.name().into(),
                nodes: graph.nodes.len(),
                parameters: stats.parameters,
                weight_bytes: stats.weight_bytes,
            });
        }
        Ok(Report {
            schema: REPORT_SCHEMA.into(),
            producer: concat!("edgetool ", env!("CARGO_PKG_VERSION")).into(),
            verdict: outcome.findings.verdict(),
            component: failed,
            precision: coarsest.name().into(),
            run: Run {
                steps: self.candidate.steps(),
                guidance: self.candidate.guidance(),
                prompts: prompts.map(|(p, noise)| PromptRun { text: p.text.clone(), seed: seed(noise) }).collect(),
            },
            checks,
            tensors,
            pictures,
            profile: outcome.profile.clone(),
            components,
            measured: measured(&self.candidate.path)?,
            reference: measured(&args.against)?,
        })
    }
}

fn prompts(args: &Verify) -> Result<Vec<Prompt>> {
    let mut prompts = match &args.prompts {
        Some(path) => Prompt::read_all(path)?,
        None => PROMPTS.iter().map(|text| Prompt { text: (*text).into(), ..Prompt::default() }).collect(),
    };
    prompts.truncate(args.limit.map_or(usize::MAX, std::num::NonZero::get));
    Ok(prompts)
}

/// The files of a model.
fn measured(path: &Path) -> Result<Vec<Measured>, SpecError> {
    if path.is_dir() {
        return Measured::folder(path, &[REPORT_FILE, PAGE_FILE]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(vec![Measured::file(path, name)?])
}

/// Writes the report into the folder that was asked for, or beside the candidate's manifest.
fn write(args: &Verify, case: &Case, report: &Report, shown: &[Shown], output: Option<Staging>) -> Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    };
    if let Some(staging) = output {
        let names = [&args.candidate, &args.against].map(|path| path.display().to_string());
        let page = edge_verify::page(report, [&names[0], &names[1]], shown)?;
        write(&staging.path().join(REPORT_FILE), report.text())?;
        write(&staging.path().join(PAGE_FILE), page)?;
        return staging.commit();
    }
    if let Model::Converted { folder, .. } = &case.candidate.model {
        let staging = Staging::file(&folder.join(REPORT_FILE))?;
        write(staging.path(), report.text())?;
        staging.commit()?;
    } else if !args.quiet && args.format == Format::Text && report.verdict == Verdict::Pass {
        report::say("no report was written: the candidate is no converted folder, and `--report` names none");
    }
    Ok(())
}
