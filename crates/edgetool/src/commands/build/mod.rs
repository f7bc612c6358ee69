//! `edgetool build`: a recipe becomes a bundle, in the stages that are subcommands of their own.

mod stage;

use std::path::Path;

use anyhow::{Context, Result};
use edge_spec::{FoldForm, Prompt, Recipe, RecipeQuantize, Scheme, TOLERANCES_SCHEMA, Target};
use serde_json::{Value, json};

use self::stage::{Cache, Made, Stage, file_hash};
use super::compile::Compilation;
use crate::cli::Build;
use crate::report;
use crate::staging::Staging;

/// Builds as the arguments say.
pub(crate) fn build(args: &Build) -> Result<()> {
    super::set_threads(args.threads)?;
    let cannot = || format!("cannot build `{}` for `{}`", args.recipe.display(), args.target);
    let recipe = Recipe::read(&args.recipe, &edge_verify::Limits::names())?;
    let (target, device) = Target::find_for_device(&args.target)?;
    let staging = Staging::file(&args.output)?;
    let building = Building { args, recipe, target, device, cache: Cache::open(args.cache.as_deref(), args.quiet)? };
    let bundle = building.bundle().with_context(cannot)?;
    if args.output.is_file() && file_hash(&args.output)? == file_hash(&bundle.path)? {
        if !args.quiet {
            let text = if bundle.kept { "nothing to do: " } else { "" };
            report::say(format!("{text}`{}` is what `{}` makes", args.output.display(), args.recipe.display()));
        }
        return Ok(());
    }
    let copy = || format!("cannot copy `{}` to `{}`", bundle.path.display(), args.output.display());
    std::fs::copy(&bundle.path, staging.path()).with_context(copy)?;
    staging.commit()?;
    if !args.quiet {
        report::say(format!("built `{}` from `{}`", args.output.display(), args.recipe.display()));
    }
    Ok(())
}

struct Building<'a> {
    args: &'a Build,
    recipe: Recipe,
    target: Target,
    device: Option<String>,
    cache: Cache,
}

impl Building<'_> {
    /// Runs all stages.
    fn bundle(&self) -> Result<Made> {
        // What cannot be compiled at the end is said before the work.
        let compilation = self
            .args
            .compile
            .then(|| Compilation::new(&self.args.compiler, &self.target, self.device.as_deref(), self.args.quiet))
            .transpose()?;
        let float = self.convert()?;
        let model = match &self.recipe.quantize {
            Some(quantize) if self.target.precision.is_some() => self.quantize(&float, quantize)?,
            Some(_) => {
                let name = &self.target.name;
                report::say(format!("{:<9}  left to the SDK of `{name}`, which takes no quantized graphs", "quantize"));
                float
            }
            None => float,
        };
        let report = self.verify(&model)?;
        let bundle = self.package(&model, &report)?;
        match compilation {
            Some(compilation) => self.compile(&bundle, &compilation),
            None => Ok(bundle),
        }
    }

    fn convert(&self) -> Result<Made> {
        let Recipe { model, steps, guidance, fold, .. } = &self.recipe;
        let fold = fold.unwrap_or(FoldForm::PerStep);
        let stage = Stage::new("convert").input(model)?.option("--dtype", Some("float32"));
        let stage =
            stage.option("--fold", Some(word(&json!(fold)))).option("--steps", *steps).option("--guidance", *guidance);
        let decoder = self.recipe.decoder.filter(|_| fold == FoldForm::Pipeline);
        let decoder = decoder.map(|d| word(&json!(d)).to_owned());
        let stage = self.target(stage.option("--decoder", decoder), self.has_own_rules())?;
        self.cache.run(stage, "--output", "")
    }

    fn quantize(&self, float: &Made, how: &RecipeQuantize) -> Result<Made> {
        let stage = Stage::new("quantize").made(float).option("--precision", how.precision);
        let stage = how.components.iter().fold(stage, |stage, name| stage.option("--component", Some(name)));
        let stage = stage.option("--ranges", how.ranges.as_ref());
        let first = self.target.precision.as_ref().map(|p| p.schemes[0]);
        // Numbers that stay in float need no prompts.
        let prompts = how.calibration.as_deref().filter(|_| how.precision.or(first) != Some(Scheme::Fp16));
        let stage = stage.input_option("--calibration", prompts)?;
        self.cache.run(stage.option("--number", prompts.and(how.number)), "--output", "")
    }

    fn verify(&self, model: &Made) -> Result<Made> {
        let verify = &self.recipe.verify;
        let stage = Stage::new("verify").made(model).text("--against").input(&self.recipe.model)?;
        let stage = stage.input_option("--prompts", verify.prompts.as_deref())?.option("--limit", verify.number);
        let stage = stage.input_option("--judge", verify.judge.as_deref())?;
        let limits = if verify.tolerances.is_empty() {
            None
        } else {
            // JSON is YAML.
            let text = json!({"schema": TOLERANCES_SCHEMA, "tolerances": verify.tolerances});
            Some(self.cache.keep("tolerances", &format!("{text:#}\n"))?)
        };
        let stage = self.decoder(stage.input_option("--thresholds", limits.as_deref())?);
        self.cache.run(stage.free(self.args.quiet.then_some("--quiet")), "--report", "")
    }

    fn package(&self, model: &Made, report: &Made) -> Result<Made> {
        let prompts = self.recipe.verify.prompts.as_deref().map(Prompt::read_all).transpose()?.unwrap_or_default();
        let stage = Stage::new("package").made(model).text("--report").made(&report.file("report.json"));
        let stage = self.decoder(stage.option("--prompt", prompts.first().map(|p| &p.text)));
        let stage = if self.args.with_float { stage.text("--with-float") } else { stage };
        // What is compiled is signed after it.
        let key = self.args.secret_key.as_deref().filter(|_| !self.args.compile);
        let stage = self.target(stage.input_option("--secret-key", key)?, true)?;
        self.cache.run(stage.free(["--quiet"]), "--output", ".zip")
    }

    fn compile(&self, bundle: &Made, compilation: &Compilation<'_>) -> Result<Made> {
        let options = &self.args.compiler;
        let stage = Stage::new("compile").made(bundle).option("--allow-float", Some(options.allow_float));
        let stage = [("--share-weights", options.share_weights), ("--no-emulator", options.no_emulator)]
            .into_iter()
            .filter(|(_, given)| *given)
            .fold(stage, |stage, (name, _)| stage.text(name));
        let stage = stage.input_option("--secret-key", self.args.secret_key.as_deref())?;
        // The compiler counts by the versions of its packages, and by its library where one is named.
        let python = options.python.iter().flat_map(|path| ["--python".into(), path.clone().into_os_string()]);
        let folder = options.qnn_lib.iter().flat_map(|path| ["--qnn-lib".into(), path.clone().into_os_string()]);
        let stage = stage.counted(compilation.identity()?).free(python).free(folder);
        self.cache.run(stage.free(self.args.quiet.then_some("--quiet")), "--output", ".zip")
    }

    /// The target: a name counts by itself, as this program has what is behind it, a file by its content.
    fn target(&self, stage: Stage, with_device: bool) -> Result<Stage> {
        let file = Path::new(&self.args.target);
        if file.is_file() {
            return stage.text("--target").input(file);
        }
        let device = self.device.as_ref().filter(|_| with_device).map_or(String::new(), |name| format!("/{name}"));
        Ok(stage.option("--target", Some(format!("{}{device}", self.target.name))))
    }

    /// Whether the device's types are other than the default device's, so that it cannot have its graphs.
    fn has_own_rules(&self) -> bool {
        let rules = |device: &Option<String>| self.target.clone().on(device.clone()).precision;
        rules(&self.device) != rules(&self.target.default_device)
    }

    fn decoder(&self, stage: Stage) -> Stage {
        stage.option("--decoder", self.recipe.decoder.map(|d| word(&json!(d)).to_owned()))
    }
}

/// The name by which YAML and the command line know a choice.
fn word(choice: &Value) -> &str {
    choice.as_str().unwrap_or_default()
}
