//! Recipes: what a model is, and what it can bear. A recipe names no NPU; a target names no model.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::tolerance::{self, Tolerance};
use crate::{FoldForm, Scheme, SpecError};

/// The version of recipes that is read.
pub const RECIPE_SCHEMA: &str = "recipe/v1";

/// A model, and what it can bear. Paths in the file are relative to the file's folder; here they are not any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Always [`RECIPE_SCHEMA`].
    pub schema: String,
    /// A short name.
    pub name: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The checkpoint.
    pub model: PathBuf,
    /// Sampling steps; the default of `convert` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Guidance scale; the default of `convert` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// How the sampler is folded; as the target has it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<FoldForm>,
    /// Which decoder makes the picture: `vae` or `taesd`; `vae` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<RecipeDecoder>,
    /// How it is quantized; not at all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<RecipeQuantize>,
    /// How it is verified.
    #[serde(default)]
    pub verify: RecipeVerify,
}

/// What makes the picture of the latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipeDecoder {
    /// The autoencoder that the model was trained with.
    Vae,
    /// The tiny autoencoder beside it.
    Taesd,
}

/// How a model is quantized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeQuantize {
    /// Bits of weights and activations; the first that the target has if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Scheme>,
    /// The networks to quantize; the UNets if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Prompts that are drawn to see what values activations take, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
    /// How many of them, the first; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// How ranges of activations are chosen, as `quantize --ranges` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<String>,
}

/// How a model is verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeVerify {
    /// Prompts that are drawn, one a line; those of `verify` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
    /// How many of them, the first; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// The folder of a judge that says whether pictures show what the prompts ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<PathBuf>,
    /// Limits in the place of those that `verify` has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerances: Vec<Tolerance>,
}

impl Recipe {
    /// Reads a YAML file. `known` are the names of what can be limited.
    ///
    /// # Errors
    /// If it cannot be read, is of another schema, or has a tolerance that is none.
    pub fn read(path: &Path, known: &[&str]) -> Result<Self, SpecError> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        let invalid = |reason: String| SpecError::Invalid { path: path.to_owned(), what: "recipe", reason };
        let mut recipe: Self = serde_yaml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if recipe.schema != RECIPE_SCHEMA {
            return Err(invalid(format!("field `schema` is `{}`, supported: {RECIPE_SCHEMA}", recipe.schema)));
        }
        tolerance::check(&recipe.verify.tolerances, known).map_err(invalid)?;
        recipe.locate(path.parent().unwrap_or(Path::new("")));
        Ok(recipe)
    }

    fn locate(&mut self, folder: &Path) {
        let Self { model, quantize, verify, .. } = self;
        let calibration = quantize.as_mut().and_then(|quantize| quantize.calibration.as_mut());
        let optional = [calibration, verify.prompts.as_mut(), verify.judge.as_mut()];
        for path in std::iter::once(model).chain(optional.into_iter().flatten()) {
            *path = folder.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe, String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("recipe.yaml");
        std::fs::write(&path, text).expect("write");
        let shown = dir.path().display().to_string();
        let mut recipe = Recipe::read(&path, &["picture_psnr_db"]).map_err(|e| e.to_string().replace(&shown, "."))?;
        recipe.model = recipe.model.strip_prefix(dir.path()).expect("beside the file").to_owned();
        Ok(recipe)
    }

    #[test]
    fn a_recipe_needs_a_name_and_a_model() {
        let found = read("schema: recipe/v1\nname: shapes\nmodel: shapes/model\n").expect("a recipe");
        assert_eq!(found.model, Path::new("shapes/model"));
        assert_eq!((found.quantize, found.verify), (None, RecipeVerify::default()));
    }

    #[test]
    fn what_it_bears_has_a_reason() {
        let head =
            "schema: recipe/v1\nname: a\nmodel: b\nsteps: 2\nfold: per-step\nquantize: {precision: w8a16}\nverify:\n";
        let limit = "  tolerances:\n  - {name: picture_psnr_db, least: 30, reason: the eye, precisions: [w8a16]}\n";
        let found = read(&format!("{head}{limit}")).expect("a recipe");
        assert_eq!(found.quantize.expect("a part").precision, Some(Scheme::W8a16));
        assert_eq!(found.verify.tolerances[0].least, Some(30.0));
        let error = read(&format!("{head}{}", limit.replace("the eye", "''"))).expect_err("no reason");
        assert_eq!(error, "`./recipe.yaml` is not a recipe: `picture_psnr_db` needs a `reason`");
        let error = read("schema: recipe/v2\nname: a\nmodel: b\n").expect_err("another version");
        assert_eq!(error, "`./recipe.yaml` is not a recipe: field `schema` is `recipe/v2`, supported: recipe/v1");
    }
}
