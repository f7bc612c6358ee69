//! What is asked of a candidate: what the arguments say, else what the recipe says, else what is built in.

use std::path::PathBuf;

use anyhow::{Context, Result};
use edge_spec::{Prompt, Recipe, RecipeDecoder, Tolerances};
use edge_verify::Limits;

use crate::cli::{self, Verify};

/// Prompts where none are named: two pairs, of which each has one thing changed.
const PROMPTS: [&str; 4] = ["a photo of a cat", "a photo of a dog", "a red house on a hill", "a blue house on a hill"];

/// Arguments and recipe together.
pub(super) struct Asked {
    /// The reference.
    pub(super) against: PathBuf,
    /// The file of prompts.
    pub(super) prompts: Option<PathBuf>,
    /// How many of them.
    pub(super) number: usize,
    /// The judge's folder.
    pub(super) judge: Option<PathBuf>,
    /// The limits.
    pub(super) limits: Limits,
    /// How to sample.
    pub(super) sampling: cli::Sampling,
}

impl Asked {
    /// Reads the recipe and the file of limits, where there are some.
    pub(super) fn new(args: &Verify) -> Result<Self> {
        let names = Limits::names();
        let recipe = args.recipe.as_deref().map(|path| Recipe::read(path, &names)).transpose()?;
        let thresholds = args.thresholds.as_deref().map(|path| Tolerances::read(path, &names)).transpose()?;
        let verify = recipe.as_ref().map(|recipe| recipe.verify.clone()).unwrap_or_default();
        let mut limits = thresholds.map(|file| file.tolerances).unwrap_or_default();
        limits.extend(verify.tolerances);
        let model = recipe.as_ref().map(|recipe| recipe.model.clone());
        let against = args.against.clone().or(model).context("nothing says what to compare with")?;
        let cli::Sampling { steps, guidance, decoder, scheduler } = args.sampling;
        let chosen = recipe.as_ref().and_then(|recipe| recipe.decoder).map(|decoder| match decoder {
            RecipeDecoder::Vae => cli::Decoder::Vae,
            RecipeDecoder::Taesd => cli::Decoder::Taesd,
        });
        let sampling = cli::Sampling {
            steps: steps.or(recipe.as_ref().and_then(|recipe| recipe.steps)),
            guidance: guidance.or(recipe.as_ref().and_then(|recipe| recipe.guidance)),
            decoder: decoder.or(chosen),
            scheduler,
        };
        Ok(Self {
            against,
            prompts: args.prompts.clone().or(verify.prompts),
            number: args.limit.map(std::num::NonZero::get).or(verify.number).unwrap_or(usize::MAX),
            judge: args.judge.clone().or(verify.judge),
            limits: Limits::new(limits),
            sampling,
        })
    }

    /// What to draw.
    pub(super) fn prompts(&self) -> Result<Vec<Prompt>> {
        let mut prompts = match &self.prompts {
            Some(path) => Prompt::read_all(path)?,
            None => PROMPTS.iter().map(|text| Prompt { text: (*text).into(), ..Prompt::default() }).collect(),
        };
        prompts.truncate(self.number);
        Ok(prompts)
    }
}
