//! What a report says, in the lines of a terminal.

use std::path::Path;

use edge_spec::{Check, Layer, Report, SecondOpinion, Verdict, WhatIf};
use edge_verify::PICTURE;

/// Verdict first, then a line for each measure: its worst check. What has no limit, and tokens that are right, are for the
/// report.
pub(super) fn text(candidate: &Path, reference: &Path, report: &Report) -> String {
    let verdict = word(report.verdict);
    let (steps, prompts) = (report.run.steps, report.run.prompts.len());
    let head = format!(
        "{verdict}  `{}` against `{}`: {}, {steps} {}, guidance {}, {prompts} {}",
        candidate.display(),
        reference.display(),
        report.precision,
        plural(steps, "step"),
        report.run.guidance,
        plural(prompts, "prompt")
    );
    let mut lines = vec![head];
    lines.extend(worst(&report.checks).into_iter().filter(|check| is_news(check)).map(line));
    if let Some(profile) = &report.profile {
        lines.push(match &profile.culprit {
            Some(culprit) => format!("first layer at fault: {}", layer(culprit)),
            None if report.verdict == Verdict::Pass => format!("no layer at fault among {}", profile.layers.len()),
            None => format!("no layer at fault among {} that both models have", profile.layers.len()),
        });
    }
    if let Some(SecondOpinion { executor, outputs, verdict }) = &report.second {
        let worst = outputs.iter().filter(|o| o.output != PICTURE).map(|o| o.sqnr_db).reduce(f64::min);
        let worst = worst.map_or_else(String::new, |db| format!(", {db} dB at the worst"));
        lines.push(format!(
            "{}  {executor} and the built-in executor: {} outputs{worst}",
            word(*verdict),
            outputs.len()
        ));
    }
    lines.extend(report.what_if.iter().map(what_if));
    lines.join("\n")
}

/// Of each measure the check that failed first, else the one that is nearest to its limit, in the order of use.
fn worst(checks: &[Check]) -> Vec<&Check> {
    let margin = |check: &Check| {
        let least = check.least.map(|least| check.value - least);
        least.or(check.most.map(|most| most - check.value)).unwrap_or(f64::INFINITY)
    };
    let is_worse = |a: &Check, b: &Check| match (a.verdict, b.verdict) {
        (Verdict::Fail, Verdict::Pass) => true,
        (Verdict::Pass, Verdict::Pass) => margin(a) < margin(b),
        _ => false,
    };
    let mut found: Vec<&Check> = Vec::new();
    for check in checks {
        match found.iter_mut().find(|there| there.name == check.name) {
            Some(there) if is_worse(check, there) => *there = check,
            Some(_) => {}
            None => found.push(check),
        }
    }
    found
}

fn is_news(check: &Check) -> bool {
    let limited = check.least.is_some() || check.most.is_some();
    check.verdict == Verdict::Fail || (limited && check.name != "token_mismatches")
}

/// What changes most where some layers are in float.
fn what_if(what_if: &WhatIf) -> String {
    let WhatIf { float, nodes, checks } = what_if;
    let shown = ["unet_output_sqnr_db", "latent_sqnr_db", "conditioning_deviation", "picture_psnr_db"];
    let gains = checks.iter().filter(|gain| shown.contains(&gain.name.as_str())).map(|gain| {
        let step = gain.step.map_or_else(String::new, |step| format!(" {step}"));
        format!("{}{step} {} -> {}", gain.name, gain.before, gain.after)
    });
    let gains: Vec<_> = gains.collect();
    format!("with {} in float ({nodes} {}): {}", float.join(", "), plural(*nodes, "node"), gains.join("; "))
}

/// Why the answer is no.
pub(super) fn reason(report: &Report) -> Option<String> {
    let check = report.checks.iter().find(|check| check.verdict == Verdict::Fail)?;
    let Check { name, component, at, value, .. } = check;
    Some(format!("{component}: {name} is {value} ({at}), expected {}", limit(check)))
}

/// What to do about it.
pub(super) fn hint(reference: &Path, report: &Report) -> Option<String> {
    if let Some(profile) = &report.profile {
        return profile.culprit.as_ref().map(|culprit| format!("look at {}", layer(culprit)));
    }
    let golden = reference.extension().is_some_and(|e| e == "safetensors");
    (!golden).then(|| "`--bisect` finds the layer at which the models part".to_owned())
}

fn line(check: &Check) -> String {
    let Check { name, component, at, value, verdict, .. } = check;
    format!("  {}  {component:<13} {name:<26} {value:<10} {:<18} {at}", word(*verdict), limit(check)).trim_end().into()
}

fn limit(check: &Check) -> String {
    let least = check.least.map(|least| format!("at least {least}"));
    let most = check.most.map(|most| format!("at most {most}"));
    least.into_iter().chain(most).collect::<Vec<_>>().join(", ")
}

fn layer(layer: &Layer) -> String {
    let Layer { component, step, node, op, input_sqnr_db, sqnr_db, .. } = layer;
    let step = step.map_or_else(String::new, |step| format!(", step {step}"));
    format!("`{node}` ({op}) of {component}{step}: {sqnr_db} dB, its inputs {input_sqnr_db} dB")
}

fn word(verdict: Verdict) -> &'static str {
    if verdict == Verdict::Pass { "pass" } else { "FAIL" }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}
