//! Two models, what they are to draw, and what comes of it.

use std::path::Path;

use anyhow::{Result, ensure};
use edge_import::Options;
use edge_onnxruntime::Library;
use edge_run::{Noise, Request};
use edge_spec::{
    Measured, Part, Profile, Prompt, PromptRun, REPORT_FILE, REPORT_SCHEMA, Report, Run, SecondOpinion, Verdict, WhatIf,
};
use edge_verify::{Apart, Drawing, Evidence, Findings, Precision, Saturation, Shown, Suspicion, judge};

use super::asked::Asked;
use super::cache::Cache;
use super::drawn::{Drawn, draw};
use super::golden::Golden;
use super::player::{Player, common, for_model};
use super::{PAGE_FILE, bundle, layers, page, second, what_if};
use crate::cli::Verify;
use crate::commands::evaluate::Bench;
use crate::commands::model::{Model, is_zip};
use crate::report;

/// What is compared.
pub(super) struct Case {
    pub(super) candidate: Player,
    pub(super) reference: Reference,
    pub(super) prompts: Vec<Prompt>,
    noises: Vec<Noise>,
    pairs: Vec<(usize, usize)>,
    /// The files of both.
    measured: [Vec<Measured>; 2],
    cache: Cache,
}

pub(super) enum Reference {
    Model(Box<Player>),
    Golden(Box<Golden>),
}

/// What is of use on the way.
pub(super) struct Tools {
    pub(super) library: Option<Library>,
    pub(super) bench: Option<Bench>,
}

/// What both made, and what came of it.
pub(super) struct Outcome {
    findings: Findings,
    profile: Option<Profile>,
    what_if: Vec<WhatIf>,
    executor: Option<String>,
    /// For the page; the first prompts'.
    pub(super) shown: Vec<Shown>,
}

/// What the models made of the prompts.
pub(super) struct Made<'a> {
    pub(super) candidate: &'a [Drawn],
    pub(super) reference: &'a [Drawn],
    pub(super) saturation: &'a [Saturation],
    pub(super) second: &'a [Apart],
    pub(super) accuracy: Option<(f64, f64)>,
}

impl Case {
    pub(super) fn open(args: &Verify, asked: &Asked) -> Result<Self> {
        let ours = measured(&args.candidate)?;
        let theirs = measured(&asked.against)?;
        let measured = [ours, theirs];
        let candidate = Model::open(&args.candidate, args.how.config.as_deref(), Options::default())?;
        if asked.against.extension().is_some_and(|e| e == "safetensors") && args.how.config.is_none() {
            return Self::against_golden(args, asked, candidate, measured);
        }
        let pipeline = candidate.pipeline();
        let size = Options { height: Some(pipeline.height), width: Some(pipeline.width), ..Options::default() };
        let reference = Model::open(&asked.against, args.how.config.as_deref(), size)?;
        let sampling = common(&asked.sampling, &[&candidate, &reference])?;
        let ours = for_model(&sampling, &candidate);
        let theirs = for_model(&sampling, &reference);
        let candidate = Player::new(&args.candidate, candidate, &ours)?;
        let reference = Player::new(&asked.against, reference, &theirs)?;
        ensure!(
            candidate.steps() == reference.steps() && candidate.guidance().to_bits() == reference.guidance().to_bits(),
            "the candidate takes {} steps at guidance {}, the reference {} at {}",
            candidate.steps(),
            candidate.guidance(),
            reference.steps(),
            reference.guidance()
        );
        let mut prompts = asked.prompts()?;
        if prompts.len() == 1 {
            // One prompt says nothing of its own influence.
            prompts.push(Prompt::default());
        }
        // Two prompts on one noise show what the prompt changes.
        let seeds = (0..prompts.len()).map(|index| args.seed + index as u64 / 2);
        let pairs = (1..prompts.len()).step_by(2).map(|odd| (odd - 1, odd)).collect();
        // A file's configurations lie elsewhere, and are not measured.
        let cache = if args.no_cache || args.how.config.is_some() {
            Cache::none()
        } else {
            let mut settings = vec![
                format!("{}x{}", pipeline.height, pipeline.width),
                format!("{} steps, guidance {}, {:?}", reference.steps(), reference.guidance(), theirs),
            ];
            settings
                .extend(prompts.iter().zip(seeds.clone()).map(|(prompt, seed)| format!("{seed} {:?}", prompt.text)));
            Cache::open(&measured[1], &settings)
        };
        let noises = seeds.map(Noise::Seed).collect();
        Ok(Self {
            candidate,
            reference: Reference::Model(Box::new(reference)),
            prompts,
            noises,
            pairs,
            measured,
            cache,
        })
    }

    fn against_golden(args: &Verify, asked: &Asked, candidate: Model, measured: [Vec<Measured>; 2]) -> Result<Self> {
        let golden = Golden::open(&asked.against, &asked.sampling, &candidate)?;
        let (steps, guidance) = golden.settings;
        let mut sampling = common(&asked.sampling, &[&candidate])?;
        (sampling.steps, sampling.guidance) = (Some(steps), Some(guidance));
        let noise = golden.noise(&candidate.pipeline())?;
        let ours = for_model(&sampling, &candidate);
        let candidate = Player::new(&args.candidate, candidate, &ours)?;
        let text = "a golden file is of one prompt, which it does not name";
        if asked.prompts.is_none() {
            return Err(report::with_hint(text, "write the prompt into a file and name it with `--prompts`"));
        }
        let prompts = asked.prompts()?;
        ensure!(prompts.len() == 1, "{text}: expected one line in the list of prompts, got {}", prompts.len());
        let (layers, model) =
            ("which a golden file has none", "name a model with `--against`: the checkpoint, or a conversion");
        if args.bisect {
            return Err(report::with_hint(format!("`--bisect` compares layers, of {layers}"), model));
        }
        if !args.float.is_empty() {
            return Err(report::with_hint(
                format!("`--float` takes float weights from the reference, of {layers}"),
                model,
            ));
        }
        let reference = Reference::Golden(Box::new(golden));
        let (noises, pairs, cache) = (vec![noise], Vec::new(), Cache::none());
        Ok(Self { candidate, reference, prompts, noises, pairs, measured, cache })
    }

    pub(super) fn run(
        &self,
        args: &Verify,
        asked: &Asked,
        tools: Tools,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        let theirs = match &self.reference {
            Reference::Golden(golden) => vec![golden.drawn()?],
            Reference::Model(model) => self.cache.drawn(|| {
                let mut progress = |what: &str| progress(&format!("reference: {what}"));
                Ok(draw(model, &model.model.graphs(), &self.requests(model), &mut progress)?.0)
            })?,
        };
        let mut of_candidate = |what: &str| progress(&format!("candidate: {what}"));
        let graphs = self.candidate.model.graphs();
        let (ours, saturation) = draw(&self.candidate, &graphs, &self.requests(&self.candidate), &mut of_candidate)?;
        if ours.iter().any(|drawn| drawn.truncated) {
            report::warn("a prompt is longer than the text encoder takes: its end was left out");
        }
        let accuracy = tools.bench.map(|mut bench| -> Result<_> {
            Ok((self.accuracy(&mut bench, &ours)?, self.accuracy(&mut bench, &theirs)?))
        });
        let first = (&self.prompts[0], &self.noises[0]);
        let second = tools.library.as_ref().map(|library| {
            let mut progress = |what: &str| progress(&format!("ONNX Runtime: {what}"));
            second::opinion(&self.candidate, library, first, &ours[0], &mut progress)
        });
        let made = Made {
            candidate: &ours,
            reference: &theirs,
            saturation: &saturation,
            second: &second.transpose()?.unwrap_or_default(),
            accuracy: accuracy.transpose()?,
        };
        let findings = self.judge(asked, &made)?;
        let profile = match &self.reference {
            Reference::Model(reference) if args.bisect => {
                Some(self.profile(asked, reference, (&made, &findings), progress)?)
            }
            _ => None,
        };
        let what_if = what_if::gains(self, args, asked, (&made, &findings), progress)?;
        let shown = if args.report.is_some() { page::shown(&ours, &theirs)? } else { Vec::new() };
        let executor = tools.library.map(|library| format!("onnxruntime {}", library.version()));
        Ok(Outcome { findings, profile, what_if, executor, shown })
    }

    /// Compares what was made, and holds it to the limits.
    pub(super) fn judge(&self, asked: &Asked, made: &Made<'_>) -> Result<Findings> {
        let drawings = |drawn: &[Drawn]| drawn.iter().map(|d| d.drawing.clone()).collect::<Vec<Drawing>>();
        let evidence = Evidence {
            candidate: &drawings(made.candidate),
            reference: &drawings(made.reference),
            pairs: &self.pairs,
            decoder: self.candidate.decoder(),
            precisions: self.candidate.precisions()?,
            saturation: made.saturation,
            second: made.second,
            accuracy: made.accuracy,
        };
        Ok(judge(&evidence, &asked.limits))
    }

    fn profile(
        &self,
        asked: &Asked,
        reference: &Player,
        (made, findings): (&Made<'_>, &Findings),
        progress: &mut dyn FnMut(&str),
    ) -> Result<Profile> {
        let precisions = self.candidate.precisions()?;
        let coarsest = precisions.text_encoder.max(precisions.unet).max(precisions.decoder);
        let least_db = asked.limits.get("layer_sqnr_db", coarsest).least.unwrap_or(f64::NEG_INFINITY);
        let suspicion = Suspicion { checks: &findings.checks, saturation: made.saturation, least_db };
        let (prompt, noise) = (&self.prompts[0], &self.noises[0]);
        let samples = self.cache.samples(|| {
            layers::samples(reference, prompt, noise, &mut |what| progress(&format!("reference's layers: {what}")))
        })?;
        let mut progress = |what: &str| progress(&format!("candidate's layers: {what}"));
        layers::against(samples, &self.candidate, (prompt, noise), &suspicion, &mut progress)
    }

    pub(super) fn requests(&self, player: &Player) -> Vec<Request> {
        self.prompts.iter().zip(&self.noises).map(|(prompt, noise)| player.request(prompt, noise.clone())).collect()
    }

    fn accuracy(&self, bench: &mut Bench, drawn: &[Drawn]) -> Result<f64> {
        let pictures = self.prompts.iter().zip(drawn).filter_map(|(p, d)| Some((p, d.picture.as_ref()?)));
        bench.accuracy(&pictures.collect::<Vec<_>>())
    }

    pub(super) fn report(&self, outcome: &Outcome) -> Result<Report> {
        let Findings { checks, tensors, pictures, ranges, second } = outcome.findings.clone();
        let seed = |noise: &Noise| match noise {
            Noise::Seed(seed) => Some(*seed),
            Noise::Given { .. } => None,
        };
        let prompts = self.prompts.iter().zip(&self.noises);
        let [measured, reference] = self.measured.clone();
        let (components, coarsest) = self.components()?;
        let agree = second.iter().all(|agreement| agreement.verdict == Verdict::Pass);
        let verdict = if agree { Verdict::Pass } else { Verdict::Fail };
        Ok(Report {
            schema: REPORT_SCHEMA.into(),
            producer: concat!("edgetool ", env!("CARGO_PKG_VERSION")).into(),
            verdict: outcome.findings.verdict(),
            component: outcome.findings.failed().map(|check| check.component.clone()),
            precision: coarsest.name().into(),
            run: Run {
                steps: self.candidate.steps(),
                guidance: self.candidate.guidance(),
                prompts: prompts.map(|(p, noise)| PromptRun { text: p.text.clone(), seed: seed(noise) }).collect(),
            },
            checks,
            tensors,
            pictures,
            ranges,
            second: outcome.executor.clone().map(|executor| SecondOpinion { executor, verdict, outputs: second }),
            what_if: outcome.what_if.clone(),
            profile: outcome.profile.clone(),
            components,
            measured,
            reference,
        })
    }

    /// The candidate's components, and the coarsest arithmetic of them.
    fn components(&self) -> Result<(Vec<Part>, Precision)> {
        let (mut components, mut coarsest) = (Vec::new(), Precision::Float32);
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
        Ok((components, coarsest))
    }
}

/// The files of a model. A bundle is checked first.
fn measured(path: &Path) -> Result<Vec<Measured>> {
    if path.is_dir() {
        return Ok(Measured::folder(path, &[REPORT_FILE, PAGE_FILE])?);
    }
    if is_zip(path) {
        return bundle::check(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(vec![Measured::file(path, name)?])
}
