//! What a plan says in its comments.

use edge_ir::DType;
use edge_quant::mixed::Part;
use edge_spec::Target;

use super::bench::{Effect, decibels};
use super::study::{Measured, Row, Study};

/// How many of the most sensitive parts are named.
const NAMED: usize = 5;

/// The lines before the plan.
pub(super) fn about(
    study: &Study<'_>,
    target: &Target,
    all: &Measured,
    picked: &[usize],
    whole: Effect,
) -> Vec<String> {
    let scheme: Vec<usize> = all.parts.iter().map(|row| row.at(row.part.base)).collect();
    let [before, after] = [&scheme[..], picked].map(|picked| study.estimate(&all.parts, picked));
    let prompts = study.args.calibration.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let drawn = study.bench.prompts();
    let checked = study.check.as_ref().map_or(drawn, super::Bench::prompts);
    vec![
        format!("Made by `edgetool sensitivity`: {} for {}, {drawn} prompts of {prompts}.", study.scheme, target.name),
        "Behind each part: what each type costs with all else in float, and the bytes of the type before and after."
            .to_owned(),
        "dB: signal to error of the denoised latents. Parts that carry the text: loss of the picture's similarity (SSIM),"
            .to_owned(),
        "and deviation of the prompts' influence (conditioning).".to_owned(),
        format!("As a whole, on {checked} prompts:"),
        format!("The scheme alone: {}, {}{before}.", self::whole(&all.scheme_checked), kib(base(&all.parts))),
        format!("This plan:        {}, {}{after}.", self::whole(&whole), kib(bytes(all, picked))),
    ]
}

/// What stands behind each rule.
pub(super) fn comments(all: &Measured, picked: &[usize]) -> Vec<String> {
    all.parts.iter().zip(picked).map(|(row, index)| comment(row, *index)).collect()
}

/// What is said when the plan is written.
pub(super) fn lines(study: &Study<'_>, all: &Measured, picked: &[usize], whole: Effect) -> Vec<String> {
    let base = base(&all.parts);
    let wider =
        all.parts.iter().zip(picked).filter(|(row, i)| row.part.bytes(row.types[**i]) > row.part.bytes(row.part.base));
    let mut lines = vec![
        format!("  {:<12} {}, {}", "scheme", self::whole(&all.scheme_checked), kib(base)),
        format!(
            "  {:<12} {}, {}{}, {} of {} parts wider",
            "plan",
            self::whole(&whole),
            kib(bytes(all, picked)),
            study.estimate(&all.parts, picked),
            wider.count(),
            all.parts.len()
        ),
        "  most sensitive:".to_owned(),
    ];
    let mut order: Vec<&Row> = all.parts.iter().collect();
    let loss = |row: &Row| row.menu(&all.scheme).first().map_or(0.0, |offer| offer.loss);
    order.sort_by(|a, b| loss(b).total_cmp(&loss(a)));
    lines.extend(order.iter().take(NAMED).map(|row| format!("    {:<64} {}", row.part.of, measures(row))));
    lines
}

/// A whole model's loss.
pub(super) fn whole(effect: &Effect) -> String {
    format!(
        "{:.1} dB, similarity {:.4}, conditioning off by {:.1} % at worst",
        decibels(effect.noise),
        1.0 - effect.dissimilarity,
        100.0 * effect.worst_conditioning
    )
}

fn comment(row: &Row, picked: usize) -> String {
    let Part { base, .. } = row.part;
    let (before, after) = (row.part.bytes(base), row.part.bytes(row.types[picked]));
    let size = if before == after { kib(before) } else { format!("{} to {}", kib(before), kib(after)) };
    format!("{}; {size}", measures(row))
}

/// What each type costs.
fn measures(row: &Row) -> String {
    let name = |ty: &Option<DType>| ty.map_or("float", DType::name);
    let one = |(ty, effect): (&Option<DType>, &Effect)| {
        if row.part.text {
            format!("{} {:.4} and {:.2} %", name(ty), effect.dissimilarity.max(0.0), 100.0 * effect.conditioning)
        } else {
            format!("{} {:.1} dB", name(ty), decibels(effect.noise))
        }
    };
    let text = if row.part.text { "text: " } else { "" };
    format!("{text}{}", row.types.iter().zip(&row.effects).map(one).collect::<Vec<_>>().join(", "))
}

/// Bytes of all parts in the scheme's types.
pub(super) fn base(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.part.bytes(row.part.base)).sum()
}

fn bytes(all: &Measured, picked: &[usize]) -> u64 {
    all.parts.iter().zip(picked).map(|(row, index)| row.part.bytes(row.types[*index])).sum()
}

#[expect(clippy::cast_precision_loss, reason = "shown with a digit")]
fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
