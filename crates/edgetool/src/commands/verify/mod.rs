//! `edgetool verify`: does a model do what another does, and if not, what is wrong with it.

mod asked;
mod bundle;
mod cache;
mod case;
mod drawn;
mod golden;
mod layers;
mod library;
mod page;
mod player;
mod second;
mod summary;
mod what_if;

use std::path::Path;

use anyhow::{Context, Result};
use edge_spec::{REPORT_FILE, Report, Verdict};
use edge_verify::Shown;

use self::asked::Asked;
use self::case::{Case, Tools};
use super::evaluate::Bench;
use super::model::Model;
use crate::cli::{Executor, Format, Verify};
use crate::report;
use crate::staging::Staging;

/// The page's file name.
const PAGE_FILE: &str = "report.html";

/// Draws with both models, compares, and says pass or fail.
pub(crate) fn verify(args: &Verify) -> Result<()> {
    super::set_threads(args.how.threads)?;
    let output = args.report.as_deref().map(|folder| Staging::folder(folder, args.force)).transpose()?;
    let asked = Asked::new(args)?;
    let cannot = || format!("cannot verify `{}` against `{}`", args.candidate.display(), asked.against.display());
    let second = matches!(args.executor, Executor::Onnxruntime);
    let library = second.then(|| library::load(args.ort_lib.as_deref())).transpose()?;
    let tools = Tools { library, bench: asked.judge.as_deref().map(Bench::open).transpose()? };
    let bar = report::progress_bar(args.how.quiet || args.how.format == Format::Json);
    let case = Case::open(args, &asked).with_context(cannot)?;
    let outcome = case.run(args, &asked, tools, &mut |what| bar.set_message(what.to_owned())).with_context(cannot)?;
    bar.finish_and_clear();
    let report = case.report(&outcome)?;
    write(args, &asked, &case, &report, &outcome.shown, output)?;
    report::data(match args.how.format {
        Format::Json => report.text().trim_end().to_owned(),
        Format::Text => summary::text(&args.candidate, &asked.against, &report),
    })?;
    match summary::reason(&report) {
        Some(reason) => Err(report::no(reason, summary::hint(&asked.against, &report))),
        None => Ok(()),
    }
}

/// Writes the report into the folder that was asked for, or beside the candidate's manifest.
fn write(
    args: &Verify,
    asked: &Asked,
    case: &Case,
    report: &Report,
    shown: &[Shown],
    output: Option<Staging>,
) -> Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    };
    if let Some(staging) = output {
        let names = [&args.candidate, &asked.against].map(|path| path.display().to_string());
        let page = edge_verify::page(report, [&names[0], &names[1]], shown)?;
        write(&staging.path().join(REPORT_FILE), report.text())?;
        write(&staging.path().join(PAGE_FILE), page)?;
        return staging.commit();
    }
    if let Model::Converted { folder, .. } = &case.candidate.model
        && *folder == args.candidate
    {
        let staging = Staging::file(&folder.join(REPORT_FILE))?;
        write(staging.path(), report.text())?;
        staging.commit()?;
    } else if !args.how.quiet && args.how.format == Format::Text && report.verdict == Verdict::Pass {
        report::say("no report was written: the candidate is no converted folder, and `--report` names none");
    }
    Ok(())
}
