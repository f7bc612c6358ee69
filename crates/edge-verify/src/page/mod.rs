//! `report.html`: the report for a person, one file that needs no other.

mod chart;
mod histogram;

use edge_spec::{Check, Comparison, Gain, Layer, Part, PictureComparison, RangeUse, Report, Verdict, WhatIf};
use minijinja::{Environment, context};
use serde::Serialize;

use crate::metrics::MOST_DB;

const TEMPLATE: &str = include_str!("page.html");
/// The ending tells the template engine to escape.
const NAME: &str = "page.html";

/// Rows of the table of the worst layers.
const WORST: usize = 12;
/// Ranges where most is cut, and as many that are used least.
const RANGES: usize = 8;
/// Pictures up to this width are shown with their pixels as squares.
const SMALL: usize = 128;

/// A prompt's pictures, as PNG files.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The reference's.
    pub reference: Vec<u8>,
    /// The candidate's.
    pub candidate: Vec<u8>,
    /// Where they differ.
    pub difference: Vec<u8>,
    /// How much brighter it is than the difference.
    pub gain: u8,
    /// Pixels in a row.
    pub width: usize,
    /// The latents after each step that both models show.
    pub steps: Vec<ShownStep>,
}

/// A latent after a step, as PNG files.
#[derive(Clone, Debug, Default)]
pub struct ShownStep {
    /// The step's index.
    pub step: usize,
    /// The reference's.
    pub reference: Vec<u8>,
    /// The candidate's.
    pub candidate: Vec<u8>,
}

/// The page. `names` are those of the candidate and the reference; `shown` has the pictures of the first prompts.
///
/// # Errors
/// If the template does not fit the report: a fault of this crate.
pub fn page(report: &Report, names: [&str; 2], shown: &[Shown]) -> Result<String, PageError> {
    let mut environment = Environment::new();
    environment.add_filter("number", number);
    environment.add_filter("db", decibels);
    environment.add_template(NAME, TEMPLATE)?;
    let mut failed = report.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    let failures = failed.clone().count();
    let small = shown.first().is_none_or(|s| s.width <= SMALL);
    let text = environment.get_template(NAME)?.render(context! {
        word => word(report.verdict),
        verdict => report.verdict,
        candidate => names[0],
        reference => names[1],
        failed => failed.next().map(CheckRow::new),
        failures => failures,
        profiled => report.profile.is_some(),
        culprit => report.profile.as_ref().and_then(|p| p.culprit.as_ref()),
        precision => &report.precision,
        run => &report.run,
        producer => &report.producer,
        checks => checks(report),
        gallery => shown.iter().enumerate().map(|(i, s)| gallery(report, i, s)).collect::<Vec<_>>(),
        rendering => if small { "pixelated" } else { "auto" },
        chart => chart::chart(report),
        worst => worst(report),
        histograms => histogram::histograms(report),
        ranges => ranges(report),
        quantizers => report.ranges.len(),
        second => &report.second,
        what_if => what_if(report),
        tensors => report.tensors.iter().map(TensorRow::new).collect::<Vec<_>>(),
        components => report.components.iter().map(PartRow::new).collect::<Vec<_>>(),
        measured => &report.measured,
    })?;
    Ok(text)
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the page of the report")]
pub struct PageError(#[from] minijinja::Error);

#[derive(Serialize)]
struct CheckRow<'a> {
    #[serde(flatten)]
    check: &'a Check,
    word: &'static str,
    limit: String,
    /// Where, as text without marks.
    place: String,
    /// Whether a row above has the same reason.
    again: bool,
}

fn checks(report: &Report) -> Vec<CheckRow<'_>> {
    let mut rows: Vec<CheckRow<'_>> = Vec::new();
    for check in &report.checks {
        let again = rows.iter().any(|row| row.check.name == check.name);
        rows.push(CheckRow { again, ..CheckRow::new(check) });
    }
    rows
}

impl<'a> CheckRow<'a> {
    fn new(check: &'a Check) -> Self {
        let least = check.least.map(|least| format!("≥ {least}"));
        let most = check.most.map(|most| format!("≤ {most}"));
        let limit = least.into_iter().chain(most).collect::<Vec<_>>().join(", ");
        Self { check, word: word(check.verdict), limit, place: check.at.replace('`', ""), again: false }
    }
}

#[derive(Serialize)]
struct TensorRow<'a> {
    #[serde(flatten)]
    tensor: &'a Comparison,
    limits: String,
    float16: String,
}

impl<'a> TensorRow<'a> {
    fn new(tensor: &'a Comparison) -> Self {
        Self { tensor, limits: percent(tensor.at_limits), float16: percent(tensor.float16_use) }
    }
}

#[derive(Serialize)]
struct PartRow<'a> {
    #[serde(flatten)]
    part: &'a Part,
    size: String,
}

impl<'a> PartRow<'a> {
    fn new(part: &'a Part) -> Self {
        let tenths = part.weight_bytes.saturating_mul(10) >> 20;
        Self { part, size: format!("{}.{} MiB", tenths / 10, tenths % 10) }
    }
}

#[derive(Serialize)]
struct RangeRow<'a> {
    #[serde(flatten)]
    range: &'a RangeUse,
    use_of: String,
    cut: String,
}

/// The places where most is cut, then those whose range is used least.
fn ranges(report: &Report) -> Vec<RangeRow<'_>> {
    let mut cut: Vec<&RangeUse> = report.ranges.iter().collect();
    cut.sort_by(|a, b| b.saturated.total_cmp(&a.saturated));
    cut.truncate(RANGES);
    let mut idle: Vec<&RangeUse> = report.ranges.iter().filter(|range| !cut.contains(range)).collect();
    idle.sort_by(|a, b| a.used.total_cmp(&b.used));
    let rows = cut.into_iter().chain(idle.into_iter().take(RANGES));
    rows.map(|range| RangeRow { range, use_of: percent(range.used), cut: percent(range.saturated) }).collect()
}

#[derive(Serialize)]
struct WhatIfRow<'a> {
    float: String,
    nodes: usize,
    gains: Vec<&'a Gain>,
}

/// What changes; what is the same is left out.
fn what_if<'a>(report: &'a Report) -> Vec<WhatIfRow<'a>> {
    let changed = |gain: &&Gain| gain.before.to_bits() != gain.after.to_bits();
    let row = |WhatIf { float, nodes, checks }: &'a WhatIf| WhatIfRow {
        float: float.join(", "),
        nodes: *nodes,
        gains: checks.iter().filter(changed).collect(),
    };
    report.what_if.iter().map(row).collect()
}

#[derive(Serialize)]
struct LayerRow<'a> {
    #[serde(flatten)]
    layer: &'a Layer,
    float16: String,
}

/// The layers with the greatest errors.
fn worst(report: &Report) -> Vec<LayerRow<'_>> {
    let mut layers: Vec<&Layer> = report.profile.iter().flat_map(|profile| &profile.layers).collect();
    layers.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    layers.truncate(WORST);
    layers.into_iter().map(|layer| LayerRow { layer, float16: percent(layer.float16_use) }).collect()
}

#[derive(Serialize)]
struct GalleryRow<'a> {
    text: &'a str,
    reference: String,
    candidate: String,
    difference: String,
    gain: u8,
    measures: String,
    steps: Vec<StepRow>,
}

#[derive(Serialize)]
struct StepRow {
    number: usize,
    reference: String,
    candidate: String,
    sqnr_db: f64,
}

fn gallery<'a>(report: &'a Report, index: usize, shown: &Shown) -> GalleryRow<'a> {
    let found = report.pictures.iter().find(|picture| picture.prompt == index + 1);
    let latent = |step: usize| {
        let fits = |t: &&Comparison| t.tensor == "latent" && t.prompt == index + 1 && t.step == Some(step + 1);
        report.tensors.iter().find(fits).map_or(-MOST_DB, |t| t.sqnr_db)
    };
    let step = |s: &ShownStep| StepRow {
        number: s.step + 1,
        reference: data_uri(&s.reference),
        candidate: data_uri(&s.candidate),
        sqnr_db: latent(s.step),
    };
    GalleryRow {
        text: report.run.prompts.get(index).map_or("", |prompt| &prompt.text),
        reference: data_uri(&shown.reference),
        candidate: data_uri(&shown.candidate),
        difference: data_uri(&shown.difference),
        gain: shown.gain,
        measures: found.map_or_else(String::new, measures),
        steps: shown.steps.iter().map(step).collect(),
    }
}

fn measures(picture: &PictureComparison) -> String {
    let perceived = picture.ssimulacra2.map_or_else(String::new, |score| format!(", SSIMULACRA 2 {score:.1}"));
    format!("{}, SSIM {:.4}{perceived}", decibels(picture.psnr_db), picture.ssim)
}

fn decibels(value: f64) -> String {
    if value >= MOST_DB { "equal".to_owned() } else { format!("{value:.1} dB") }
}

/// With five digits; the report has all.
fn number(value: f64) -> String {
    let shown = format!("{value:.4e}").parse().unwrap_or(value);
    f64::to_string(&shown)
}

fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::encode(png))
}

fn word(verdict: Verdict) -> &'static str {
    if verdict == Verdict::Pass { "pass" } else { "FAIL" }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use edge_spec::{Agreement, LayerHistogram, Profile, PromptRun, Run, SecondOpinion};

    use super::*;

    fn report() -> Report {
        let layer = |node: &str, sqnr_db| Layer {
            component: "unet".into(),
            step: Some(1),
            node: node.into(),
            op: "Conv".into(),
            input_sqnr_db: 120.0,
            sqnr_db,
            float16_use: 0.001,
        };
        let check = |name: &str, value: f64, verdict| Check {
            name: name.into(),
            component: "unet".into(),
            step: None,
            at: "prompt 1".into(),
            value,
            least: Some(65.0),
            most: None,
            reason: "because".into(),
            verdict,
        };
        Report {
            verdict: Verdict::Fail,
            precision: "float32".into(),
            run: Run {
                steps: 1,
                guidance: 8.0,
                prompts: vec![PromptRun { text: "<b>cats & dogs</b>".into(), seed: Some(0) }],
            },
            checks: vec![check("fine", 99.0, Verdict::Pass), check("poor", 31.0, Verdict::Fail)],
            profile: Some(Profile {
                culprit: Some(layer("conv_in", 31.0)),
                layers: vec![layer("conv_in", 31.0), layer("conv_out", 30.0)],
                histograms: vec![LayerHistogram {
                    component: "unet".into(),
                    step: Some(1),
                    node: "conv_out".into(),
                    sqnr_db: 30.0,
                    span: [-1.0, 1.0],
                    range: Some([-2.0, 2.0]),
                    reference: vec![1, 2],
                    candidate: vec![2, 1],
                }],
            }),
            ranges: vec![RangeUse {
                component: "unet".into(),
                step: Some(1),
                node: "conv_out/QuantizeLinear".into(),
                range: [-2.0, 2.0],
                seen: [-1.0, 1.0],
                used: 0.5,
                saturated: 0.0,
            }],
            second: Some(SecondOpinion {
                executor: "onnxruntime 1.2".into(),
                verdict: Verdict::Pass,
                outputs: vec![Agreement {
                    component: "unet".into(),
                    output: "out".into(),
                    sqnr_db: 99.0,
                    max_error: 0.5,
                    least: 45.0,
                    verdict: Verdict::Pass,
                }],
            }),
            what_if: vec![WhatIf {
                float: vec!["conv_in".into(), "attn2".into()],
                nodes: 3,
                checks: vec![Gain {
                    name: "poor".into(),
                    component: "unet".into(),
                    step: None,
                    before: 31.0,
                    after: 44.0,
                }],
            }],
            ..Report::default()
        }
    }

    #[test]
    fn the_page_is_whole_and_safe() {
        let shown = Shown { reference: vec![1], candidate: vec![2], difference: vec![3], gain: 8, ..Shown::default() };
        let page = page(&report(), ["a", "b"], &[shown]).expect("a page");
        for part in [
            "<div class=\"word\">FAIL</div>",
            "<strong>unet</strong>: <code>poor</code> is 31 at prompt 1, expected ≥ 65. 1 of 2 checks failed.",
            "First layer at fault: <code>conv_in</code> (Conv), unet, step 1: 31.0 dB, its inputs: 120.0 dB.",
            "1. &lt;b&gt;cats &amp; dogs&lt;&#x2f;b&gt;",
            "<img src=\"data:image&#x2f;png;base64,AQ==\" alt=\"reference, prompt 1\">",
            "<title>conv_out (Conv), unet, step 1: 30 dB</title>",
            "<title>0 to 1: reference 2, candidate 1</title>",
            "<figcaption><code>conv_out</code>, unet, step 1: 30.0 dB. Its integers go from -2 to 2; 50.00 % of that is used.",
            "<code>conv_out&#x2f;QuantizeLinear</code>",
            "onnxruntime 1.2",
            "<code>conv_in, attn2</code>",
            "<td class=\"number\">31</td><td class=\"number\">44</td>",
        ] {
            assert!(page.contains(part), "`{part}` is not in\n{page}");
        }
        for foreign in ["http:", "https:", "<script", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn numbers_have_as_many_digits_as_a_person_reads() {
        let shown = [0.000_073_396_7, 32.090_512, -0.340_616, 65_504.0, 200.0, 0.0].map(number);
        assert_eq!(shown, ["0.000073397", "32.091", "-0.34062", "65504", "200", "0"]);
    }

    #[test]
    fn an_empty_report_has_a_page() {
        let page = page(&Report::default(), ["a", "b"], &[]).expect("a page");
        assert!(!page.contains("<svg") && page.contains("Components"));
    }
}
