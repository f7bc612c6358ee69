//! Runs the compiler and the emulator on an extracted bundle, and judges what they say.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use edge_ir::Checked;
use edge_package::{CompilerSaid, EmulatorSaid, FloatOperator, groups};
use edge_spec::bundle::{BundleComponent, BundleManifest, EmulatedOutput};

use super::Compilation;
use super::python::Ended;
use crate::commands::inspect::scaled;
use crate::report;

/// The scripts' names in the extracted bundle; they find the bundle as the folder above their own.
const COMPILE: &str = "qnn/compile.py";
const ACCEPT: &str = "qnn/accept.py";
/// How many nodes a message names.
const NAMED: usize = 8;
/// A memory access that was not allowed.
const SIGSEGV: i32 = 11;

/// A compiled graph, before its files are looked at.
pub(super) struct Made {
    pub(super) said: CompilerSaid,
    pub(super) emulated: Vec<EmulatedOutput>,
}

impl Compilation<'_> {
    /// Compiles the graphs that draw a picture, and lets the emulator run them.
    pub(super) fn compile(&self, manifest: &BundleManifest, folder: &Path) -> Result<Vec<Made>> {
        for (name, text) in [(COMPILE, &self.scripts.compile), (ACCEPT, &self.scripts.accept)] {
            let path = folder.join(name);
            let write = || format!("cannot write `{}`", path.display());
            std::fs::create_dir_all(path.parent().unwrap_or(folder)).with_context(write)?;
            std::fs::write(&path, text).with_context(write)?;
        }
        let wanted = |c: &&BundleComponent| manifest.golden.runs.iter().any(|run| run.component == c.name);
        let names: Vec<&str> = manifest.components.iter().filter(wanted).map(|c| c.name.as_str()).collect();
        let groups: Vec<Vec<&str>> = if self.options.share_weights {
            groups(names.into_iter()).into_iter().map(|(_, graphs)| graphs).collect()
        } else {
            names.into_iter().map(|name| vec![name]).collect()
        };
        let mut made = Vec::new();
        for group in groups {
            let shared = group.len() > 1;
            for said in self.compile_group(&group, manifest, folder)? {
                let component = manifest.components.iter().find(|c| c.name == said.component);
                let file = component.map_or_else(String::new, |c| c.file.clone());
                self.judge(&said, &edge_ir::onnx::read(&folder.join(file))?)?;
                // Qualcomm's emulator cannot load a binary of several graphs.
                let emulated = if shared || self.options.no_emulator {
                    Vec::new()
                } else {
                    self.emulate(&said.component, folder)?
                };
                made.push(Made { said, emulated });
            }
        }
        Ok(made)
    }

    /// One process of the compiler: what it says of each graph.
    fn compile_group(&self, group: &[&str], manifest: &BundleManifest, folder: &Path) -> Result<Vec<CompilerSaid>> {
        let bar = report::progress_bar(self.quiet);
        bar.set_message(format!("compiling {}", group.join(", ")));
        let mut arguments = vec!["--json"];
        arguments.extend((group.len() > 1).then_some("--share-weights"));
        arguments.extend(group);
        let mut all: Vec<CompilerSaid> = Vec::new();
        let ended = self.python.run(folder, COMPILE, &arguments, &mut |line| {
            // Libraries talk too.
            if line.starts_with('{') {
                let said = serde_json::from_str(line).with_context(|| format!("the compiler said `{line}`"))?;
                all.push(said);
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        if let Some(said) = all.iter().find(|said| said.error.is_some()) {
            return Err(refusal(said, &ended.log));
        }
        if let Some(missing) = group.iter().find(|name| all.iter().all(|said| said.component != **name)) {
            let error = broken(&format!("the compiler broke off at `{missing}`"), &ended);
            let file = manifest.components.iter().find(|c| c.name == **missing).map(|c| folder.join(&c.file));
            let graph = file.and_then(|file| edge_ir::onnx::read(&file).ok());
            return Err(suspected(error, graph.as_ref()));
        }
        if !self.quiet {
            for said in &all {
                report::say(line(said));
            }
        }
        Ok(all)
    }

    /// The answer no, where a graph is not whole on the device or not in the types that it asks for.
    fn judge(&self, said: &CompilerSaid, graph: &Checked<edge_ir::Graph>) -> Result<()> {
        if said.graphs != 1 {
            let text = format!("`{}` was compiled in {} parts, expected one", said.component, said.graphs);
            return Err(report::no(text, None));
        }
        let unasked = edge_package::unasked(graph, &said.floats);
        if !is_integer(graph) || unasked.len() <= self.options.allow_float {
            return Ok(());
        }
        let named = |f: &&FloatOperator| format!("\n  `{}` ({})", f.node, f.kind);
        let text = format!(
            "{} operators of `{}` compute in floating point, and the graph has them as integers:{}{}",
            unasked.len(),
            said.component,
            unasked.iter().take(NAMED).map(named).collect::<String>(),
            more(unasked.len())
        );
        Err(report::no(text, Some("`--allow-float N` lets as many pass".into())))
    }

    /// How near the emulator's outputs are to the golden ones.
    fn emulate(&self, name: &str, folder: &Path) -> Result<Vec<EmulatedOutput>> {
        let bar = report::progress_bar(self.quiet);
        bar.set_message(format!("emulating {name}"));
        let start = Instant::now();
        let mut all: Vec<EmulatorSaid> = Vec::new();
        let ended = self.python.run(folder, ACCEPT, &["--json", name], &mut |line| {
            if line.starts_with('{') {
                all.push(serde_json::from_str(line).with_context(|| format!("the emulator said `{line}`"))?);
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        if all.is_empty() || !ended.success && all.iter().all(|said| said.sqnr_db >= said.least) {
            let error = broken(&format!("the emulator broke off at `{name}`"), &ended);
            return Err(error);
        }
        if let Some(far) = all.iter().find(|said| said.sqnr_db < said.least) {
            let text = format!(
                "`{name}` is not right on the emulator: `{}` is {:.1} dB from the golden output, at least {:.1}",
                far.output, far.sqnr_db, far.least
            );
            return Err(report::no(text, Some("`--no-emulator` compiles without this check".into())));
        }
        let mut outputs: Vec<EmulatedOutput> = Vec::new();
        for said in all {
            match outputs.iter_mut().find(|o| o.name == said.output) {
                Some(output) => output.sqnr_db = output.sqnr_db.min(said.sqnr_db),
                None => outputs.push(EmulatedOutput { name: said.output, sqnr_db: said.sqnr_db }),
            }
        }
        if !self.quiet {
            let near: Vec<String> = outputs.iter().map(|o| format!("{} {:.1} dB", o.name, o.sqnr_db)).collect();
            let seconds = start.elapsed().as_secs_f32();
            report::say(format!("  {name:<14} emulated: {}, {seconds:.1} s", near.join(", ")));
        }
        Ok(outputs)
    }
}

/// Whether a graph computes in integers at all.
fn is_integer(graph: &Checked<edge_ir::Graph>) -> bool {
    graph.nodes.iter().any(|node| node.op.name == "QuantizeLinear")
}

fn line(said: &CompilerSaid) -> String {
    let size = if said.bytes > 0 { scaled(said.bytes, 1024.0, "B") } else { "in the same binary".to_owned() };
    format!(
        "  {:<14} compiled: {} operators, {} in floating point, {size}, {:.1} s, {}",
        said.component,
        said.operators,
        said.floats.len(),
        said.seconds,
        scaled(said.peak_mb << 20, 1024.0, "B")
    )
}

/// The answer no, with the nodes that the compiler names.
fn refusal(said: &CompilerSaid, log: &str) -> anyhow::Error {
    let nodes = edge_package::refused(log);
    let error = said.error.as_deref().unwrap_or_default();
    if nodes.is_empty() {
        return report::no(format!("the compiler refuses `{}`: {error}", said.component), None);
    }
    let named = |r: &edge_package::Refused| {
        let code = r.code.map_or(String::new(), |code| format!(", error {code}"));
        format!("\n  `{}` ({}{code})", r.node, r.op)
    };
    let text = format!(
        "the compiler does not take {} of `{}`'s nodes:{}{}",
        nodes.len(),
        said.component,
        nodes.iter().take(NAMED).map(named).collect::<String>(),
        more(nodes.len())
    );
    let hint = "another precision or device may take them: see the table of the target in docs/packaging.md";
    report::no(text, Some(hint.into()))
}

fn more(count: usize) -> String {
    if count > NAMED { format!("\n  and {} more", count - NAMED) } else { String::new() }
}

/// The same error with a hint, where the graph has nodes at which the compiler is known to crash.
fn suspected(error: anyhow::Error, graph: Option<&Checked<edge_ir::Graph>>) -> anyhow::Error {
    let nodes = graph.map(|graph| edge_package::crashing(graph)).unwrap_or_default();
    if nodes.is_empty() {
        return error;
    }
    let named = |node: &&str| format!("\n  `{node}`");
    let hint = format!(
        "it is known to crash at depthwise convolutions of so many channels with int8 weights, which \
         `depthwise_16: int16` in the target avoids:{}{}",
        nodes.iter().take(NAMED).map(named).collect::<String>(),
        more(nodes.len())
    );
    report::with_hint(format!("{error:#}"), hint)
}

/// A script that ended without an answer.
fn broken(what: &str, ended: &Ended) -> anyhow::Error {
    // The last lines of a Python error, or what libraries said before they crashed.
    let lines: Vec<&str> = ended.log.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("\n  ");
    let how = match ended.signal {
        Some(SIGSEGV) => " with a memory fault of its own".to_owned(),
        Some(signal) => format!(" by signal {signal}"),
        None => String::new(),
    };
    anyhow::anyhow!("{what}{how}{}{last}", if last.is_empty() { "" } else { ":\n  " })
}
