//! The part of `edgetool convert` that rewrites graphs for a target.

use anyhow::{Result, ensure};
use edge_ir::{Checked, Graph};
use edge_passes::lower::{LOWERINGS, Unsupported, passes, unknown_operator, unsupported};
use edge_passes::{Driver, Pass, StopAfter};
use edge_spec::target::Target;
use edge_spec::{Approximation, Lowering, PassRun};

use crate::cli::Convert;
use crate::report;

/// Nodes that are named; the others are counted.
const SHOWN: usize = 8;

/// Rewrites all graphs for the target, as far as asked, and says what was done.
pub(super) fn lower<'g>(
    graphs: impl IntoIterator<Item = &'g mut Checked<Graph>>,
    target: Target,
    args: &Convert,
) -> Result<Lowering> {
    check(&target)?;
    let passes = passes(&target.graph);
    for name in args.stop_after.iter().map(|stop| &stop.pass).chain(&args.dump_after) {
        if !passes.iter().any(|p| p.name() == name) {
            let text = format!("target `{}` has no pass `{name}`", target.name);
            let names: Vec<_> = passes.iter().map(|p| p.name()).collect();
            return Err(report::with_hint(text, format!("its passes are {}", names.join(", "))));
        }
    }
    let mut printed = Ok(());
    let mut driver = Driver { stop_after: args.stop_after.clone(), ..Driver::default() };
    if let Some(name) = &args.dump_after {
        let printed = &mut printed;
        driver.after_pass = Some(Box::new(move |pass: &'static str, graph: &Checked<Graph>| {
            if pass == name && printed.is_ok() {
                *printed = report::data(edge_ir::dump(graph).trim_end());
            }
        }));
    }
    let mut lowered = Vec::new();
    for graph in graphs {
        *graph = driver.run(&passes, graph.clone())?;
        lowered.push(&*graph);
    }
    let runs = std::mem::take(&mut driver.runs);
    drop(driver);
    printed?;
    if args.stop_after.is_none() {
        lowered.into_iter().try_for_each(|graph| supported(graph, &target))?;
    }
    let stopped_after = args.stop_after.as_ref().map(|StopAfter { pass, rewrites }| match rewrites {
        Some(rewrites) => format!("{pass}:{rewrites}"),
        None => pass.clone(),
    });
    let mut record: Vec<PassRun> = Vec::new();
    for run in runs {
        let same = |r: &&mut PassRun| r.component == run.graph && r.pass == run.pass;
        match record.iter_mut().find(same) {
            Some(earlier) => earlier.rewrites += run.places.len(),
            None => record.push(entry(&passes, &run)),
        }
    }
    Ok(Lowering { target, stopped_after, passes: record })
}

fn entry(passes: &[Box<dyn Pass>], run: &edge_passes::Run) -> PassRun {
    let approximation = passes.iter().find(|p| p.name() == run.pass).and_then(|p| p.approximation());
    PassRun {
        component: run.graph.clone(),
        pass: run.pass.to_owned(),
        rewrites: run.places.len(),
        approximation: approximation.map(|a| Approximation { what: a.what.to_owned(), bound: a.bound }),
    }
}

/// What a target file can get wrong that its own schema does not know.
fn check(target: &Target) -> Result<()> {
    if let Some(op) = unknown_operator(target) {
        let text = format!("target `{}`: field `ops` names `{op}`, which edgetool never writes", target.name);
        return Err(report::with_hint(text, "is it spelt as in ONNX? leave it out otherwise"));
    }
    let known: Vec<u32> = edge_ir::onnx::OPSETS.iter().map(|(opset, _)| *opset).collect();
    let opset = target.graph.opset;
    ensure!(
        known.contains(&opset),
        "target `{}`: field `graph.opset` is {opset}, expected one of {known:?}",
        target.name
    );
    Ok(())
}

/// The answer no, if the target does not take every node.
pub(super) fn supported(graph: &Graph, target: &Target) -> Result<()> {
    let left = unsupported(graph, target);
    if left.is_empty() {
        return Ok(());
    }
    let mut lines = vec![format!("target `{}` does not take {} of {}'s nodes:", target.name, left.len(), graph.name)];
    lines.extend(left.iter().take(SHOWN).map(|Unsupported { node, reason, .. }| format!("  `{node}`: {reason}")));
    if left.len() > SHOWN {
        lines.push(format!("  and {} more", left.len() - SHOWN));
    }
    Err(report::no(lines.join("\n"), hint(&left)))
}

/// Which lines of a target take the first of the operators out.
fn hint(left: &[Unsupported]) -> Option<String> {
    let op = left.first()?.op;
    let options: Vec<String> =
        LOWERINGS.iter().filter(|l| l.removes.contains(&op)).map(|l| format!("`{}`", l.option)).collect();
    (!options.is_empty()).then(|| format!("in the target's `graph`, {} takes `{op}` out", options.join(" or ")))
}

/// What is said of a conversion for a target: its name, and each approximation.
pub(super) fn summary(lowering: &Lowering) -> Vec<String> {
    let rewrites: usize = lowering.passes.iter().map(|p| p.rewrites).sum();
    let stopped = lowering.stopped_after.as_ref().map_or(String::new(), |pass| format!(", stopped after {pass}"));
    let mut lines = vec![format!("  target {}: {rewrites} rewrites{stopped}", lowering.target.name)];
    for run in &lowering.passes {
        if let Some(Approximation { what, bound }) = &run.approximation {
            let (component, count) = (&run.component, run.rewrites);
            lines.push(format!("  approximated in {component}: {what}, off by {bound:e} at most, in {count} places"));
        }
    }
    lines
}
