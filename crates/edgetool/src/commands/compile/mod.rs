//! `edgetool compile`: a bundle gets what the vendor's compiler makes of its graphs.
//!
//! The scripts are this program's own, for the bundle's device: nothing that lies in a bundle is run.

mod python;
mod run;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_ir::onnx::read_context;
use edge_package::Scripts;
use edge_spec::bundle::{
    self, Bundle, BundleComponent, BundleManifest, Compiled, CompiledGraph, Content, Contents, SIGNATURE, Verified,
};
use edge_spec::{SpecError, Target};
use serde_json::json;

use self::python::Python;
use self::run::Made;
use super::inspect::scaled;
use crate::cli::{Compile, Compiler, Format};
use crate::report;
use crate::staging::{Scratch, Staging};

/// The version of the JSON form.
const SCHEMA: &str = "edgetool-compile/v1";
/// The folder of compiled files in a bundle.
const FOLDER: &str = "compiled";
/// Where the scripts work.
const BUILD: &str = "build";

/// Compiles as the arguments say.
pub(crate) fn compile(args: &Compile) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    if bundle.signature()?.is_some() && args.secret_key.is_none() && !args.drop_signature {
        let text = format!("`{}` is signed, and its signature is not good for what is compiled", args.bundle.display());
        let hint = "sign anew with `--secret-key FILE`, or leave it unsigned with `--drop-signature`";
        return Err(report::with_hint(text, hint));
    }
    let output = args.output.as_ref().unwrap_or(&args.bundle);
    let staging = Staging::file(output)?;
    let cannot = || format!("cannot compile `{}`", args.bundle.display());
    let scratch = Scratch::new()?;
    bundle.extract(scratch.path(), &|_| true).with_context(cannot)?;
    let name = &bundle.manifest().target;
    let text = std::fs::read_to_string(scratch.path().join(&name.file)).with_context(cannot)?;
    let target = Target::parse(&text, &name.file).with_context(cannot)?;
    let compilation =
        Compilation::new(&args.compiler, &target, name.device.as_deref(), args.quiet).with_context(cannot)?;
    let manifest = compilation
        .add_extracted(&bundle, scratch.path(), args.secret_key.as_deref(), staging.path())
        .with_context(cannot)?;
    staging.commit()?;
    show(args, output, &manifest)
}

fn show(args: &Compile, output: &Path, manifest: &BundleManifest) -> Result<()> {
    let Some(compiled) = &manifest.compiled else { return Ok(()) };
    if args.format == Format::Json {
        let object = json!({"schema": SCHEMA, "bundle": output, "verified": manifest.verified, "compiled": compiled});
        return report::data(serde_json::to_string_pretty(&object)?);
    }
    if !args.quiet {
        let size = scaled(output.metadata().map_or(0, |m| m.len()), 1024.0, "B");
        let emulated = match manifest.verified {
            Verified::Emulated => ", as good as the golden run on the emulator",
            Verified::Source | Verified::Artifact => ", not emulated",
        };
        let graphs = compiled.graphs.len();
        let (from, to) = (args.bundle.display(), output.display());
        report::say(format!("compiled {graphs} graphs of `{from}` into `{to}`, {size}{emulated}"));
    }
    Ok(())
}

/// A compiler for one device.
pub(super) struct Compilation<'a> {
    options: &'a Compiler,
    scripts: Scripts,
    python: Python,
    quiet: bool,
}

impl<'a> Compilation<'a> {
    /// Finds out what compiles for the device, and with which Python.
    pub(super) fn new(options: &'a Compiler, target: &Target, device: Option<&str>, quiet: bool) -> Result<Self> {
        let emitter = edge_package::find(target)?;
        let scripts = device.map(|device| emitter.compiler(target, device)).transpose()?.flatten();
        let Some(scripts) = scripts else {
            let text = format!("edgetool knows no compiler for target `{}`", target.name);
            return Err(report::with_hint(text, "the bundle's README.md says what compiles it"));
        };
        if options.share_weights && !scripts.shares_weights {
            let text = format!("device `{}` does not load a binary that graphs share", device.unwrap_or_default());
            return Err(report::with_hint(text, "leave `--share-weights` out"));
        }
        let python = Python::find(options.python.as_deref(), options.qnn_lib.as_deref())?;
        Ok(Self { options, scripts, python, quiet })
    }

    /// What the result depends on beside the bundle and the options: the packages, and the library if it is another.
    pub(super) fn identity(&self) -> Result<String> {
        let library = self.options.qnn_lib.as_ref().map(|folder| folder.join("libQnnHtp.so"));
        let hash = |path: std::path::PathBuf| -> Result<String> {
            let read = || format!("cannot read `{}`", path.display());
            edge_spec::sha256(std::fs::File::open(&path).with_context(read)?).with_context(read)
        };
        let library = library.map(hash).transpose()?.unwrap_or_default();
        Ok(format!("{} {library}", self.python.packages.join(", ")))
    }

    /// Compiles a bundle and writes it to `path` with what came out, and with a signature if there is a key.
    pub(super) fn add(&self, bundle: &Bundle, key: Option<&Path>, path: &Path) -> Result<BundleManifest> {
        let scratch = Scratch::new()?;
        bundle.extract(scratch.path(), &|_| true)?;
        self.add_extracted(bundle, scratch.path(), key, path)
    }

    /// The same for a bundle whose files lie in `folder`.
    fn add_extracted(&self, bundle: &Bundle, folder: &Path, key: Option<&Path>, path: &Path) -> Result<BundleManifest> {
        let mut manifest = bundle.manifest().clone();
        let made = self.compile(&manifest, folder)?;
        let (compiled, files) = self.collect(&manifest, folder, &made)?;
        let mut contents = unchanged(&manifest, folder);
        let readme =
            std::fs::read_to_string(folder.join("README.md")).context("cannot read the bundle's `README.md`")?;
        edge_package::add_compiled(&mut manifest, compiled, files, &readme, &mut contents);
        let measures = bundle::list(&mut manifest, &contents, &BTreeMap::new())?;
        let signature = key.map(|key| super::package::signature(&manifest, key)).transpose()?;
        bundle::write(path, &manifest, signature.as_deref(), &contents, &measures)?;
        Ok(manifest)
    }

    /// The files that came out, by their names in the bundle, after a look into them.
    fn collect(
        &self,
        manifest: &BundleManifest,
        folder: &Path,
        made: &[Made],
    ) -> Result<(Compiled, Vec<(String, Content)>)> {
        let mut graphs = Vec::new();
        let mut files = Vec::new();
        let mut sdks = Vec::new();
        for Made { said, emulated } in made {
            let component = manifest.components.iter().find(|c| c.name == said.component);
            let component = component.with_context(|| format!("the compiler made the unknown `{}`", said.component))?;
            let wrapper = format!("{}_ctx.onnx", component.name);
            let path = folder.join(BUILD).join(&wrapper);
            let context = read_context(&path)?;
            fits(component, &context)
                .with_context(|| format!("what was compiled of `{}` is not it", component.name))?;
            let binary = folder.join(BUILD).join(&context.binary);
            ensure!(binary.is_file(), "`{}` names `{}`, which is not there", wrapper, context.binary);
            sdks.push(context.sdk);
            let names = [wrapper, context.binary].map(|name| format!("{FOLDER}/{name}"));
            for (name, path) in names.iter().zip([path, binary]) {
                files.push((name.clone(), Content::File(path)));
            }
            let [file, binary] = names;
            graphs.push(CompiledGraph {
                component: component.name.clone(),
                file,
                binary,
                operators: said.operators,
                float_operators: said.floats.len(),
                emulated: emulated.clone(),
            });
        }
        sdks.dedup();
        let [sdk] = &sdks[..] else {
            anyhow::bail!("the graphs were compiled by several versions of the SDK: {}", sdks.join(", "))
        };
        Ok((Compiled { sdk: sdk.clone(), tools: self.python.packages.clone(), graphs }, files))
    }
}

/// A bundle's files but those that compiling writes.
fn unchanged(manifest: &BundleManifest, folder: &Path) -> Contents {
    let is_old = |path: &str| path == SIGNATURE || path.starts_with(&format!("{FOLDER}/"));
    let paths = manifest.files.iter().map(|file| &file.path).filter(|path| !is_old(path));
    paths.map(|path| (path.clone(), Content::File(folder.join(path)))).collect()
}

/// Whether a compiled graph is fed and read as its source.
fn fits(component: &BundleComponent, context: &edge_ir::onnx::Context) -> Result<(), SpecError> {
    let names = |ports: &[bundle::BundlePort]| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    // The compiler's front end may put inputs into another order: they are fed by name.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let sides = [(names(&component.inputs), &context.inputs), (names(&component.outputs), &context.outputs)];
    for (expected, found) in sides {
        if sorted(expected.clone()) != sorted(found.clone()) {
            let reason = format!("expected the ports {}, found {}", expected.join(", "), found.join(", "));
            return Err(SpecError::Names { reason });
        }
    }
    Ok(())
}
