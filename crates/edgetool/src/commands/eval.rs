//! `edgetool eval`: one graph on given tensors.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use edge_ir::{Executor, Tensor, TensorType};
use edge_run::{Session, tensors};
use serde_json::json;

use crate::cli::{Eval, Format};
use crate::report;
use crate::staging::Staging;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-eval/v1";

/// Loads the graph, runs it as often as asked, and writes the last outputs.
pub(crate) fn eval(args: &Eval) -> Result<()> {
    super::set_threads(args.threads)?;
    let staging = Staging::file(&args.output)?;
    let given = tensors::read(&args.inputs)?;
    let graph = edge_ir::onnx::read(&args.model)?;
    let started = Instant::now();
    let mut session = Session::load(&graph)?;
    drop(graph);
    let load_seconds = started.elapsed().as_secs_f64();
    let inputs = arrange(args, session.inputs(), given)?;
    let mut seconds = Vec::new();
    let mut outputs = Vec::new();
    for _ in 0..args.repeat {
        let started = Instant::now();
        outputs = session.run(&inputs).map_err(|e| anyhow::anyhow!(e))?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let named: BTreeMap<String, Tensor> = session.outputs().iter().map(|(name, _)| name.clone()).zip(outputs).collect();
    std::fs::write(staging.path(), tensors::encode(&named, &args.output)?)
        .with_context(|| format!("cannot write `{}`", args.output.display()))?;
    staging.commit()?;
    if args.format == Format::Json {
        let peak = peak_rss_kib();
        report::data(
            json!({"schema": SCHEMA, "load_seconds": load_seconds, "seconds": seconds, "peak_rss_kib": peak}),
        )?;
    }
    Ok(())
}

/// The inputs in the graph's order.
fn arrange(args: &Eval, wanted: &[(String, TensorType)], mut given: BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
    let file = args.inputs.display();
    let inputs = wanted
        .iter()
        .map(|(name, ty)| given.remove(name).with_context(|| format!("`{file}` has no tensor `{name}`, expected {ty}")))
        .collect::<Result<_>>()?;
    anyhow::ensure!(
        given.is_empty(),
        "`{file}` has tensors that are no inputs: {}",
        given.into_keys().collect::<Vec<_>>().join(", ")
    );
    Ok(inputs)
}

/// The most memory that this process has held, where the system says so.
fn peak_rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
