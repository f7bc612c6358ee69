//! The verdict: every drawing of the candidate against the reference's, every measure against its limit.

use edge_ir::Tensor;
use edge_spec::{Agreement, Check, Comparison, PictureComparison, RangeUse, Verdict};

use crate::drawing::{Drawing, aligned};
use crate::metrics::{MOST_DB, conditioning, pictures, rounded, tensors};
use crate::place::{SCHEDULER, TEXT_ENCODER, UNET, place};
use crate::{Limits, Precision, Saturation};

/// What both models made.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The candidate's drawings.
    pub candidate: &'a [Drawing],
    /// The reference's drawings of the same prompts on the same noise.
    pub reference: &'a [Drawing],
    /// Pairs of drawings that began with the same noise and have different prompts.
    pub pairs: &'a [(usize, usize)],
    /// The decoder's name.
    pub decoder: &'a str,
    /// The arithmetic of text encoder, UNet and decoder of the candidate.
    pub precisions: Precisions,
    /// The share of numbers that are cut, at each place where activations become integers.
    pub saturation: &'a [Saturation],
    /// How far another executor is from the built-in one, where it was asked.
    pub second: &'a [Apart],
    /// The shares of pictures that show what was asked for, the candidate's first, where a judge read them.
    pub accuracy: Option<(f64, f64)>,
}

/// What two executors make of one output of a component, at its worst.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// The component.
    pub component: String,
    /// The output, or [`PICTURE`].
    pub output: String,
    /// Signal to the difference of the two, in dB; of the picture, peak signal.
    pub sqnr_db: f64,
    /// The greatest difference of two elements.
    pub max_error: f64,
}

/// The output that the other executor's whole drawing is.
pub const PICTURE: &str = "picture";

/// The arithmetic of the candidate's components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precisions {
    /// The text encoder's.
    pub text_encoder: Precision,
    /// The UNet's.
    pub unet: Precision,
    /// The decoder's.
    pub decoder: Precision,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Every check, in the order of use of the components.
    pub checks: Vec<Check>,
    /// Every tensor.
    pub tensors: Vec<Comparison>,
    /// Every picture.
    pub pictures: Vec<PictureComparison>,
    /// The ranges of the candidate's integers.
    pub ranges: Vec<RangeUse>,
    /// What another executor makes of it.
    pub second: Vec<Agreement>,
}

/// Names of tensors in a report.
const CONTEXT: &str = "context";
const OUTPUT: &str = "unet_output";
const LATENT: &str = "latent";

/// The checks of another executor.
const EXECUTORS: &str = "executors_sqnr_db";
const EXECUTORS_PICTURE: &str = "executors_picture_psnr_db";

/// Cosine of two errors from which on they are one.
const ONE_ERROR: f64 = 0.9;

/// Numbers from which on a share of them says something.
const MANY: u64 = 1024;

/// The check of integers' ranges.
pub(crate) const SATURATED: &str = "saturated_share";

/// A wrong shape has no signal at all.
const NOTHING: f64 = -MOST_DB;

impl Findings {
    /// Whether no check fails.
    pub fn verdict(&self) -> Verdict {
        if self.failed().is_none() { Verdict::Pass } else { Verdict::Fail }
    }

    /// The first check that fails: what comes after it may only pass its error on.
    pub fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Fail)
    }
}

/// Compares and judges. A measure that one of the two models does not show is not among the checks.
pub fn judge(evidence: &Evidence<'_>, limits: &Limits) -> Findings {
    let mut court = Court { evidence, limits, findings: Findings::default() };
    court.tokens();
    court.saturation(TEXT_ENCODER, None);
    court.tensor(CONTEXT, TEXT_ENCODER, None, |d| d.context.as_ref());
    let steps = |d: &Drawing| d.outputs.keys().chain(d.latents.keys()).max().map_or(0, |last| last + 1);
    for step in 0..evidence.reference.iter().map(steps).max().unwrap_or(0) {
        court.saturation(UNET, Some(step));
        court.tensor(OUTPUT, UNET, Some(step), |d| d.outputs.get(&step));
        if step == 0 {
            court.conditioning();
        }
        court.saturation(SCHEDULER, Some(step));
        court.tensor(LATENT, SCHEDULER, Some(step), |d| d.latents.get(&step));
    }
    court.float16();
    court.saturation(evidence.decoder, None);
    court.pictures();
    court.accuracy();
    court.second();
    court.findings.ranges = evidence.saturation.iter().map(range).collect();
    court.findings
}

struct Court<'a> {
    evidence: &'a Evidence<'a>,
    limits: &'a Limits,
    findings: Findings,
}

impl Court<'_> {
    fn drawings(&self) -> impl Iterator<Item = (usize, &Drawing, &Drawing)> {
        let pairs = self.evidence.candidate.iter().zip(self.evidence.reference);
        pairs.enumerate().map(|(index, (c, r))| (index + 1, c, r))
    }

    /// The coarsest arithmetic up to a component: an error is passed on.
    fn precision(&self, component: &str) -> Precision {
        let Precisions { text_encoder, unet, decoder } = self.evidence.precisions;
        match component {
            TEXT_ENCODER => text_encoder,
            UNET | SCHEDULER => text_encoder.max(unet),
            _ => text_encoder.max(unet).max(decoder),
        }
    }

    fn check(&mut self, name: &str, component: &str, (step, at): (Option<usize>, String), value: f64) {
        let limit = self.limits.get(name, self.precision(component));
        let within = limit.least.is_none_or(|least| value >= least) && limit.most.is_none_or(|most| value <= most);
        self.findings.checks.push(Check {
            name: name.into(),
            component: component.into(),
            step: step.map(|step| step + 1),
            at,
            value,
            least: limit.least,
            most: limit.most,
            reason: limit.reason,
            verdict: if within { Verdict::Pass } else { Verdict::Fail },
        });
    }

    fn tokens(&mut self) {
        let mismatches = |(prompt, c, r): (usize, &Drawing, &Drawing)| {
            let (c, r) = (c.tokens.as_ref()?, r.tokens.as_ref()?);
            let different = c.iter().zip(r).filter(|(a, b)| a != b).count() + c.len().abs_diff(r.len());
            Some((prompt, different))
        };
        let worst = self.drawings().filter_map(mismatches).max_by_key(|(prompt, n)| (*n, std::cmp::Reverse(*prompt)));
        if let Some((prompt, different)) = worst {
            let value = f64::from(u32::try_from(different).unwrap_or(u32::MAX));
            self.check("token_mismatches", "tokenizer", (None, format!("prompt {prompt}")), value);
        }
    }

    /// Compares one tensor of all drawings; the check is on the worst. A latent that fails by the UNet's error counts as
    /// the UNet's.
    fn tensor(
        &mut self,
        tensor: &str,
        component: &str,
        step: Option<usize>,
        pick: impl Fn(&Drawing) -> Option<&Tensor>,
    ) {
        let both = |(prompt, c, r)| Some((prompt, pick(c)?, pick(r)?));
        let found: Vec<_> = self.drawings().filter_map(both).map(|(p, c, r)| (p, difference(c, r))).collect();
        let mut worst: Option<(usize, f64)> = None;
        for (prompt, difference) in found {
            let sqnr = difference.as_ref().map_or(NOTHING, |d| d.sqnr_db);
            if worst.is_none_or(|(_, least)| sqnr < least) {
                worst = Some((prompt, sqnr));
            }
            if let Some(d) = difference {
                self.findings.tensors.push(comparison(tensor, component, prompt, step, &d));
            }
        }
        let Some((prompt, sqnr)) = worst else { return };
        let later = if tensor == OUTPUT && step != Some(0) { "later_" } else { "" };
        let name = format!("{later}{tensor}_sqnr_db");
        let fails = self.limits.get(&name, self.precision(component)).least.is_some_and(|least| sqnr < least);
        let component = if fails && tensor == LATENT && self.passed_on(prompt, step) { UNET } else { component };
        let at = step.map_or_else(String::new, |step| format!(", step {}", step + 1));
        self.check(&name, component, (step, format!("prompt {prompt}{at}")), sqnr);
    }

    /// Whether a latent's error is the UNet's own, times what the step multiplies it by.
    fn passed_on(&self, prompt: usize, step: Option<usize>) -> bool {
        let Evidence { candidate, reference, .. } = *self.evidence;
        let (Some(c), Some(r), Some(step)) = (candidate.get(prompt - 1), reference.get(prompt - 1), step) else {
            return false;
        };
        let error = |c: Option<&Tensor>, r: Option<&Tensor>| -> Option<Vec<f32>> {
            let candidate = aligned(c?, r?)?;
            Some(candidate.iter().zip(r?.to_f32s()).map(|(c, r)| c - r).collect())
        };
        let output = error(c.outputs.get(&step), r.outputs.get(&step));
        let latent = error(c.latents.get(&step), r.latents.get(&step));
        let compared = output.zip(latent).and_then(|(output, latent)| tensors::compare(&latent, &output));
        compared.is_some_and(|compared| compared.cosine.abs() >= ONE_ERROR)
    }

    /// How far the ratio of the prompts' influence is from 1.
    fn conditioning(&mut self) {
        let Evidence { candidate, reference, pairs, .. } = *self.evidence;
        let numbers = |drawings: &[Drawing], at: usize| drawings.get(at)?.outputs.get(&0).map(Tensor::to_f32s);
        let influence = |drawings: &[Drawing], (a, b): (usize, usize)| {
            conditioning::influence(&numbers(drawings, a)?, &numbers(drawings, b)?)
        };
        let both = |pair: &(usize, usize)| Some((*pair, [influence(candidate, *pair)?, influence(reference, *pair)?]));
        let (pairs, influences): (Vec<_>, Vec<_>) = pairs.iter().filter_map(both).unzip();
        let deviation = |((a, b), ratio): ((usize, usize), Option<f64>)| {
            Some((format!("prompts {} and {}", a + 1, b + 1), rounded((ratio? - 1.0).abs())))
        };
        let deviations = pairs.into_iter().zip(conditioning::ratios(&influences)).filter_map(deviation);
        let worst = deviations.reduce(|a, b| if b.1 > a.1 { b } else { a });
        if let Some((at, deviation)) = worst {
            self.check("conditioning_deviation", UNET, (Some(0), at), deviation);
        }
    }

    /// The worst place of a component in a step.
    fn saturation(&mut self, component: &str, step: Option<usize>) {
        // What moved into the text encoder comes before the first step.
        let is_here =
            |s: &&Saturation| s.component == component && s.step.unwrap_or(0) == step.unwrap_or(0) && s.count >= MANY;
        let here = self.evidence.saturation.iter().filter(is_here);
        let Some(worst) = here.reduce(|a, b| if b.share() > a.share() { b } else { a }) else { return };
        let at = step.map_or_else(String::new, |step| format!(", step {}", step + 1));
        self.check(SATURATED, component, (step, format!("`{}`{at}", worst.node)), worst.share());
    }

    fn float16(&mut self) {
        let mut worst: Option<&Comparison> = None;
        for tensor in &self.findings.tensors {
            if worst.is_none_or(|w| tensor.float16_use > w.float16_use) {
                worst = Some(tensor);
            }
        }
        let Some(Comparison { tensor, component, prompt, float16_use, .. }) = worst.cloned() else { return };
        if self.limits.get("float16_use", self.precision(&component)).most.is_some() {
            self.check("float16_use", &component, (None, format!("{tensor}, prompt {prompt}")), float16_use);
        }
    }

    fn pictures(&mut self) {
        let decoder = self.evidence.decoder.to_owned();
        let both = |(prompt, c, r): (usize, &Drawing, &Drawing)| {
            Some((prompt, pictures::compare(c.picture.as_ref()?, r.picture.as_ref()?)))
        };
        let found: Vec<_> = self.drawings().filter_map(both).collect();
        let psnr = |d: &Option<pictures::Difference>| d.map_or(NOTHING, |d| d.psnr_db);
        let ssim = |d: &Option<pictures::Difference>| d.map_or(-1.0, |d| d.ssim);
        let least = |of: &dyn Fn(&Option<pictures::Difference>) -> f64| {
            let values = found.iter().map(|(prompt, d)| (*prompt, of(d)));
            values.reduce(|a, b| if b.1 < a.1 { b } else { a })
        };
        let perceived = found.iter().filter_map(|(prompt, d)| Some((*prompt, d.as_ref()?.ssimulacra2?)));
        let worst = [
            ("picture_psnr_db", least(&psnr)),
            ("picture_ssim", least(&ssim)),
            ("picture_ssimulacra2", perceived.reduce(|a, b| if b.1 < a.1 { b } else { a })),
        ];
        for (name, worst) in worst {
            if let Some((prompt, value)) = worst {
                self.check(name, &decoder, (None, format!("prompt {prompt}")), value);
            }
        }
        let of = |(prompt, d): (usize, Option<pictures::Difference>)| {
            let d = d?;
            let pictures::Difference { psnr_db, ssim, ssimulacra2, max_error } = d;
            Some(PictureComparison { prompt, psnr_db, ssim, ssimulacra2, max_error })
        };
        self.findings.pictures = found.into_iter().filter_map(of).collect();
    }

    /// The worst output of each component, and the picture.
    fn second(&mut self) {
        let name = |apart: &Apart| if apart.output == PICTURE { EXECUTORS_PICTURE } else { EXECUTORS };
        let mut worst: Vec<&Apart> = Vec::new();
        for apart in self.evidence.second {
            let least = self.limits.get(name(apart), self.precision(&place(&apart.component, "").component)).least;
            let least = least.unwrap_or(-MOST_DB);
            let verdict = if apart.sqnr_db >= least { Verdict::Pass } else { Verdict::Fail };
            let Apart { component, output, sqnr_db, max_error } = apart.clone();
            self.findings.second.push(Agreement { component, output, sqnr_db, max_error, least, verdict });
            match worst.iter_mut().find(|w| (&w.component, name(w)) == (&apart.component, name(apart))) {
                Some(there) if there.sqnr_db > apart.sqnr_db => *there = apart,
                Some(_) => {}
                None => worst.push(apart),
            }
        }
        for apart in worst {
            let component = place(&apart.component, "").component;
            let at = (None, format!("`{}` of {}", apart.output, apart.component));
            self.check(name(apart), &component, at, apart.sqnr_db);
        }
    }

    fn accuracy(&mut self) {
        if let Some((candidate, reference)) = self.evidence.accuracy {
            let at = format!("{} of the pictures, {} of the reference's", percent(candidate), percent(reference));
            self.check("prompt_accuracy_loss", "pipeline", (None, at), rounded(reference - candidate));
        }
    }
}

fn range(saturation: &Saturation) -> RangeUse {
    let ends = |ends: [f32; 2]| ends.map(|v| rounded(f64::from(v)));
    RangeUse {
        component: saturation.component.clone(),
        step: saturation.step.map(|step| step + 1),
        node: saturation.node.clone(),
        range: ends(saturation.range),
        seen: ends(saturation.seen),
        used: saturation.range_use(),
        saturated: saturation.share(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn difference(candidate: &Tensor, reference: &Tensor) -> Option<tensors::Difference> {
    tensors::compare(&aligned(candidate, reference)?, &reference.to_f32s())
}

fn comparison(
    tensor: &str,
    component: &str,
    prompt: usize,
    step: Option<usize>,
    d: &tensors::Difference,
) -> Comparison {
    Comparison {
        tensor: tensor.into(),
        component: component.into(),
        prompt,
        step: step.map(|step| step + 1),
        sqnr_db: d.sqnr_db,
        cosine: d.cosine,
        max_error: d.max_error,
        range: [d.range.min, d.range.max],
        reference_range: [d.reference.min, d.reference.max],
        at_limits: d.range.at_limits,
        float16_use: d.range.float16_use(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: Precisions =
        Precisions { text_encoder: Precision::Float32, unet: Precision::Float32, decoder: Precision::Float32 };

    fn drawing(context: f32, output: f32, latent: f32) -> Drawing {
        let tensor = |v: f32| Tensor::f32s([1, 2], &[v, 1.0]);
        Drawing {
            tokens: Some(vec![1, 2]),
            context: Some(tensor(context)),
            outputs: BTreeMap::from([(0, tensor(output))]),
            latents: BTreeMap::from([(0, tensor(latent))]),
            picture: None,
        }
    }

    fn found(candidate: &[Drawing], reference: &[Drawing], precisions: Precisions) -> (Findings, Option<String>) {
        let evidence = Evidence {
            candidate,
            reference,
            pairs: &[(0, 1)],
            decoder: "vae_decoder",
            precisions,
            saturation: &[],
            second: &[],
            accuracy: Some((0.9, 0.9)),
        };
        let findings = judge(&evidence, &Limits::default());
        let failed = findings.failed().map(|check| format!("{} {} {}", check.component, check.name, check.at));
        (findings, failed)
    }

    #[test]
    fn the_first_component_that_fails_is_named() {
        let reference = [drawing(1.0, 2.0, 3.0), drawing(2.0, 3.0, 4.0)];
        assert_eq!(found(&reference, &reference, ALL).1, None);
        for (second, expect) in [
            (drawing(2.1, 3.1, 4.1), "text_encoder context_sqnr_db prompt 2"),
            (drawing(2.0, 3.1, 4.1), "unet unet_output_sqnr_db prompt 2, step 1"),
            (drawing(2.0, 3.0, 4.1), "scheduler latent_sqnr_db prompt 2, step 1"),
            (Drawing { tokens: Some(vec![1, 3]), ..drawing(2.1, 3.0, 4.0) }, "tokenizer token_mismatches prompt 2"),
        ] {
            let candidate = [reference[0].clone(), second];
            assert_eq!(found(&candidate, &reference, ALL).1.as_deref(), Some(expect));
        }
    }

    #[test]
    fn a_latent_s_error_is_of_whom_it_comes_from() {
        let drawing = |output: [f32; 3], latent: [f32; 3]| Drawing {
            outputs: BTreeMap::from([(0, Tensor::f32s([1, 3], &output))]),
            latents: BTreeMap::from([(0, Tensor::f32s([1, 3], &latent))]),
            ..drawing(1.0, 1.0, 1.0)
        };
        let coarse = Precisions { unet: Precision::W8, ..ALL };
        let reference = [drawing([10.0, 20.0, 30.0], [1.0, 2.0, 3.0])];
        let failed = |output, latent| found(&[drawing(output, latent)], &reference, coarse).1;
        let expect = |component| Some(format!("{component} latent_sqnr_db prompt 1, step 1"));
        assert_eq!(failed([10.1, 20.0, 29.8], [0.5, 2.0, 4.0]), expect("unet"));
        assert_eq!(failed([10.1, 20.0, 29.8], [2.0, 2.0, 3.0]), expect("scheduler"));
        assert_eq!(failed([10.0, 20.0, 30.0], [0.5, 2.0, 4.0]), expect("scheduler"));
    }

    #[test]
    fn a_prompt_without_influence_fails_where_the_error_alone_would_not() {
        let coarse = Precisions { unet: Precision::W8A8, ..ALL };
        let far = |output: f32| Drawing {
            outputs: BTreeMap::from([(0, Tensor::f32s([1, 3], &[output, 1.0, 90.0]))]),
            ..drawing(1.0, 1.0, 1.0)
        };
        let reference = [far(1.0), far(2.0)];
        let (findings, failed) = found(&[far(1.0), far(1.0)], &reference, coarse);
        assert_eq!(failed.as_deref(), Some("unet conditioning_deviation prompts 1 and 2"));
        assert_eq!(findings.verdict(), Verdict::Fail);
        assert_eq!(found(&[far(1.0), far(2.04)], &reference, coarse).1, None);
    }
}
