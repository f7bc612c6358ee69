//! `edgetool bundle`: what is in a bundle, and whether it is whole.

use std::path::Path;

use anyhow::{Context, Result};
use edge_spec::SpecError;
use edge_spec::bundle::{self, Bundle, BundleManifest};
use serde_json::json;

use super::inspect::scaled;
use crate::cli::{self, BundleAction, Format};
use crate::report;
use crate::staging::Staging;

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-bundle-check/v1";

/// Does what was asked for.
pub(crate) fn bundle(args: &cli::Bundle) -> Result<()> {
    let bundle = Bundle::open(&args.path).map_err(|error| match error {
        SpecError::Invalid { .. } if args.action == BundleAction::Check => report::no(error.to_string(), None),
        other => other.into(),
    })?;
    if let Some(key) = &args.public_key {
        signed(args, &bundle, key)?;
    }
    match args.action {
        BundleAction::List => list(args, bundle.manifest()),
        BundleAction::Check => check(args, &bundle),
        BundleAction::Extract => extract(args, &bundle),
    }
}

fn list(args: &cli::Bundle, manifest: &BundleManifest) -> Result<()> {
    if args.format == Format::Json {
        return report::data(manifest.text().trim_end());
    }
    manifest.files.iter().try_for_each(|f| report::data(format_args!("{:>12}  {}  {}", f.size, f.sha256, f.path)))
}

fn check(args: &cli::Bundle, bundle: &Bundle) -> Result<()> {
    let damaged = bundle.check()?;
    if args.format == Format::Json {
        let list: Vec<_> = damaged.iter().map(|d| json!({"path": d.name, "reason": d.reason})).collect();
        let signed = bundle.signature()?.is_some();
        let object = json!({"schema": SCHEMA, "sound": damaged.is_empty(), "signed": signed, "damaged": list});
        report::data(serde_json::to_string_pretty(&object)?)?;
    }
    let shown = args.path.display();
    if !damaged.is_empty() {
        let lines = damaged.iter().map(|d| format!("\n  `{}` {}", d.name, d.reason));
        let text = format!("`{shown}` is damaged:{}", lines.collect::<String>());
        return Err(report::no(text, Some("copy it again, or package the model again".into())));
    }
    if args.format == Format::Text {
        let files = &bundle.manifest().files;
        let size = scaled(files.iter().map(|f| f.size).sum(), 1024.0, "B");
        let signature = match (&args.public_key, bundle.signature()?) {
            (Some(_), _) => ", signed by this key",
            (None, Some(_)) => ", with a signature that was not checked",
            (None, None) => "",
        };
        report::data(format_args!("`{shown}` is whole: {} files, {size}{signature}", files.len()))?;
    }
    Ok(())
}

/// The answer no, unless the manifest is signed by `key`, which is a file's name or the key itself.
fn signed(args: &cli::Bundle, bundle: &Bundle, key: &str) -> Result<()> {
    let text = if Path::new(key).exists() {
        std::fs::read_to_string(key).with_context(|| format!("cannot read `{key}`"))?
    } else {
        key.to_owned()
    };
    let Some(signature) = bundle.signature()? else {
        return Err(report::no(format!("`{}` is not signed", args.path.display()), None));
    };
    bundle::verify(bundle.manifest_bytes(), &signature, &text).map_err(|error| match error {
        bundle::SignError::Key { what: "public key", .. } => anyhow::Error::from(error),
        other => report::no(format!("`{}`: {other}", args.path.display()), None),
    })
}

fn extract(args: &cli::Bundle, bundle: &Bundle) -> Result<()> {
    let output = args.output.as_ref().context("`--output` is missing")?;
    let staging = Staging::folder(output, args.force)?;
    bundle.extract(staging.path(), &|_| true)?;
    staging.commit()?;
    report::say(format!("extracted `{}` to `{}`", args.path.display(), output.display()));
    Ok(())
}
