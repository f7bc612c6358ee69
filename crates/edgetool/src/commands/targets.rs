//! `edgetool targets`: what models can be converted for.

use anyhow::Result;
use edge_spec::Target;
use serde_json::{Value, json};

use crate::cli::{Format, Targets};
use crate::report;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-targets/v1";

/// Lists the built-in targets, or shows one.
pub(crate) fn targets(args: &Targets) -> Result<()> {
    let names = args.target.as_ref().map_or_else(Target::names, |name| vec![name.clone()]);
    let targets = names.iter().map(|name| Target::find(name)).collect::<Result<Vec<_>, _>>()?;
    targets.iter().try_for_each(edge_package::check)?;
    match args.format {
        Format::Json => {
            let targets = targets.iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
            report::data(serde_json::to_string_pretty(&json!({"schema": SCHEMA, "targets": targets}))?)
        }
        Format::Text if args.target.is_some() => {
            targets.iter().try_for_each(|target| report::data(target.to_string().trim_end()))
        }
        Format::Text => targets.iter().try_for_each(|t| report::data(format_args!("{:<12} {}", t.name, t.about))),
    }
}
