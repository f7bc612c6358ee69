//! What a report says, in the lines of a terminal.

use std::path::Path;

use edge_spec::{Check, Layer, Report, SecondOpinion, Verdict, WhatIf};
use edge_verify::PICTURE;

/// Measures that failed and have a line each; the others are named together.
const FAILED: usize = 3;

/// Ten lines at most, and one for each what-if: verdict first, then the worst check of each measure, those of a component
/// in one line. Where some failed, each of the first has a line, with its place. What has no limit, and tokens that are
/// right, are for the report.
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
    lines.extend(measures(&report.checks));
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

fn measures(checks: &[Check]) -> Vec<String> {
    let news: Vec<&Check> = worst(checks).into_iter().filter(|check| is_news(check)).collect();
    let (failed, passed): (Vec<&Check>, Vec<&Check>) = news.into_iter().partition(|c| c.verdict == Verdict::Fail);
    if failed.is_empty() {
        return by_component(&passed);
    }
    let mut lines: Vec<String> = failed.iter().take(FAILED).copied().map(line).collect();
    let names = |checks: &[&Check]| checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ");
    if failed.len() > FAILED {
        lines.push(format!("  FAIL  {}", names(&failed[FAILED..])));
    }
    if !passed.is_empty() {
        lines.push(format!("  pass  {}", names(&passed)));
    }
    lines
}

/// A line for each component, in the order of use.
fn by_component(passed: &[&Check]) -> Vec<String> {
    let mut lines: Vec<(&str, Vec<String>)> = Vec::new();
    for check in passed {
        let text = format!("{} {} ({})", check.name, check.value, limit(check));
        match lines.iter_mut().find(|(component, _)| *component == check.component) {
            Some((_, texts)) => texts.push(text),
            None => lines.push((&check.component, vec![text])),
        }
    }
    lines.into_iter().map(|(component, texts)| format!("  pass  {component:<13} {}", texts.join(", "))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(component: &str, name: &str, verdict: Verdict) -> Check {
        Check {
            name: name.into(),
            component: component.into(),
            step: None,
            at: "prompt 1".into(),
            value: 30.0,
            least: Some(if verdict == Verdict::Pass { 20.0 } else { 40.0 }),
            most: None,
            verdict,
            reason: String::new(),
        }
    }

    #[test]
    fn measures_of_a_component_share_a_line_until_some_fail() {
        let of = |failed: usize| {
            let names = [
                ("text_encoder", "a"),
                ("unet", "b"),
                ("unet", "c"),
                ("scheduler", "d"),
                ("unet", "e"),
                ("decoder", "f"),
            ];
            let verdict = |at: usize| if at < failed { Verdict::Fail } else { Verdict::Pass };
            let checks: Vec<Check> =
                names.iter().enumerate().map(|(at, (component, name))| check(component, name, verdict(at))).collect();
            measures(&checks)
        };
        let passed = of(0);
        assert_eq!(passed.len(), 4, "{passed:#?}");
        assert!(passed[1].ends_with("b 30 (at least 20), c 30 (at least 20), e 30 (at least 20)"), "{passed:#?}");
        let some = of(2);
        assert_eq!((some.len(), some[2].as_str()), (3, "  pass  c, d, e, f"), "{some:#?}");
        assert!(some[1].contains("at least 40") && some[1].ends_with("prompt 1"), "{some:#?}");
        let all = of(6);
        assert_eq!((all.len(), all[3].as_str()), (4, "  FAIL  d, e, f"), "{all:#?}");
    }
}
