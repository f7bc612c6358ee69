//! What if some layers of the candidate were in float: it draws again without their integers.

use std::cell::Cell;

use anyhow::{Result, ensure};
use edge_ir::{Checked, Graph};
use edge_spec::{Gain, WhatIf};
use edge_verify::{Findings, Weights, in_float};

use super::asked::Asked;
use super::case::{Case, Made, Reference};
use super::drawn::draw;
use crate::cli::Verify;
use crate::report;

/// What each set of layers gains.
pub(super) fn gains(
    case: &Case,
    args: &Verify,
    asked: &Asked,
    (made, before): (&Made<'_>, &Findings),
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<WhatIf>> {
    let Reference::Model(reference) = &case.reference else { return Ok(Vec::new()) };
    if args.float.is_empty() {
        return Ok(Vec::new());
    }
    let mut weights = Weights::default();
    for name in reference.used() {
        weights.add(&name, &*reference.model.graph(&name)?);
    }
    let gain = |layers: &String| -> Result<WhatIf> {
        let float: Vec<String> = layers.split(',').map(|part| part.trim().to_owned()).collect();
        let nodes = Cell::new(0);
        let change = |name: &str, graph: &Checked<Graph>| {
            let (graph, count) = in_float(name, graph, &float, &weights).map_err(|error| {
                let hint = "name the float folder that the candidate was quantized from with `--against`";
                report::with_hint(error.to_string(), hint)
            })?;
            nodes.set(nodes.get() + count);
            Ok::<_, anyhow::Error>(graph)
        };
        // First without running anything: what is wrong is said at once.
        for name in case.candidate.used() {
            change(&name, &case.candidate.model.graph(&name)?)?;
        }
        let count = nodes.get();
        ensure!(count > 0, "`--float {layers}`: the candidate has no module and no operator of this name");
        let graphs = |name: &str| -> Result<Checked<Graph>, edge_run::Error> {
            let failed =
                |source: anyhow::Error| edge_run::Error::Component { name: name.to_owned(), source: source.into() };
            case.candidate.model.graph(name).and_then(|graph| change(name, &graph)).map_err(failed)
        };
        let mut progress = |what: &str| progress(&format!("{layers} in float: {what}"));
        let (drawn, saturation) = draw(&case.candidate, &graphs, &case.requests(&case.candidate), &mut progress)?;
        let made = Made { candidate: &drawn, saturation: &saturation, second: &[], accuracy: None, ..*made };
        let after = case.judge(asked, &made)?;
        let checks = before.checks.iter().filter_map(|check| {
            let same = after
                .checks
                .iter()
                .find(|c| (&c.name, &c.component, c.step) == (&check.name, &check.component, check.step))?;
            let (name, component) = (check.name.clone(), check.component.clone());
            Some(Gain { name, component, step: check.step, before: check.value, after: same.value })
        });
        Ok(WhatIf { float, nodes: count, checks: checks.collect() })
    };
    args.float.iter().map(gain).collect()
}
