//! A reference that is no model: what the training code computed, in a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use edge_ir::{DType, Tensor};
use edge_run::picture::{Picture, from_decoder, from_image};
use edge_run::{Noise, tensors};
use edge_spec::{FoldForm, Pipeline};
use edge_verify::Drawing;

use super::drawn::{Drawn, indices, pixels, rows};
use crate::cli::{Decoder, Sampling};
use crate::report;

use super::super::model::Model;

/// Before the names of a whole run's tensors.
const PREFIX: &str = "pipe.";

/// An opened file of golden values.
pub(super) struct Golden {
    tensors: BTreeMap<String, Tensor>,
    shown: String,
    /// The run that is compared: steps and guidance as the names have them.
    run: String,
    /// Its steps and guidance scale.
    pub(super) settings: (usize, f32),
}

impl Golden {
    /// Opens the file and finds the run that the candidate can repeat: that of the arguments, or of what is folded in,
    /// or the one that has a picture.
    pub(super) fn open(path: &Path, args: &Sampling, candidate: &Model) -> Result<Self> {
        let tensors = tensors::read(path)?;
        let shown = path.display().to_string();
        let found = runs(&tensors);
        let fold = candidate.fold();
        let pipeline = fold.filter(|f| f.form == FoldForm::Pipeline);
        ensure!(
            args.decoder != Some(Decoder::Taesd) || pipeline.is_some(),
            "`{shown}` has the picture of the autoencoder alone: leave `--decoder` out"
        );
        let steps = args.steps.or(fold.map(|f| f.steps.len()));
        let guidance = args.guidance.or(fold.and_then(|f| f.guidance.scale));
        let fits = |(_, s, w): &&(String, usize, f32)| {
            steps.is_none_or(|steps| *s == steps) && guidance.is_none_or(|scale| w.to_bits() == scale.to_bits())
        };
        let whole = |run: &&(String, usize, f32)| tensors.keys().any(|key| key.starts_with(&format!("{}image", run.0)));
        let run = found.iter().filter(fits).find(whole).or_else(|| found.iter().find(fits));
        let Some((run, steps, guidance)) = run.cloned() else {
            let list: Vec<_> = found.iter().map(|(_, s, w)| format!("{s} steps at guidance {w}")).collect();
            let text = format!("`{shown}` has no run of the steps and the guidance that are asked for");
            let hint = if list.is_empty() {
                "docs/verify.md says how a run's tensors are named: `pipe.s2.g8.denoised`, ...".to_owned()
            } else {
                format!("it has {}: name them with `--steps` and `--guidance`", list.join(", "))
            };
            return Err(report::with_hint(text, hint));
        };
        Ok(Self { tensors, shown, run, settings: (steps, guidance) })
    }

    /// The noise of the run.
    pub(super) fn noise(&self, pipeline: &Pipeline) -> Result<Noise> {
        let factor = pipeline.vae_scale_factor;
        let shape = [1, pipeline.latent_channels, pipeline.height / factor, pipeline.width / factor];
        let latent = self.tensor(&format!("{PREFIX}latent"))?;
        ensure!(
            latent.ty.dtype == DType::Float32 && latent.ty.shape == shape,
            "`{}`: `{PREFIX}latent` is {}, expected float32{shape:?}, what the candidate starts from",
            self.shown,
            latent.ty
        );
        let noise = self.tensors.get(&format!("{PREFIX}noise")).map(Tensor::to_f32s).unwrap_or_default();
        Ok(Noise::Given { latent: latent.to_f32s(), noise })
    }

    /// The run as a drawing.
    pub(super) fn drawn(&self) -> Result<Drawn> {
        let of_run = |name: &str| self.tensors.get(&format!("{}{name}", self.run));
        let picture = self.picture()?;
        let drawing = Drawing {
            tokens: self.tensors.get(&format!("{PREFIX}ids")).map(indices),
            context: self.tensors.get(&format!("{PREFIX}context")).cloned(),
            outputs: of_run("model_output").map(rows).unwrap_or_default(),
            latents: of_run("prev_sample").map(rows).unwrap_or_default(),
            picture: picture.as_ref().map(pixels),
        };
        ensure!(
            !drawing.outputs.is_empty() || !drawing.latents.is_empty() || picture.is_some(),
            "`{}` has none of `{run}model_output`, `{run}prev_sample`, `{run}decoded` and `{run}image_u8`",
            self.shown,
            run = self.run
        );
        Ok(Drawn::given(drawing, picture, false))
    }

    fn picture(&self) -> Result<Option<Picture>> {
        let of_run = |name: &str| self.tensors.get(&format!("{}{name}", self.run));
        if let Some(image) = of_run("image_u8").or_else(|| of_run("image")) {
            return Ok(from_image(image, false)?.into_iter().next());
        }
        let Some(decoded) = of_run("decoded") else { return Ok(None) };
        let shape = <[usize; 4]>::try_from(decoded.ty.shape.clone());
        let shape = shape.ok().with_context(|| format!("`{}`: `decoded` is {}", self.shown, decoded.ty))?;
        Ok(from_decoder(&decoded.to_f32s(), shape)?.into_iter().next())
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("`{}` has no tensor `{name}`", self.shown))
    }
}

/// The runs of a file: the start of their tensors' names, steps, guidance scale.
fn runs(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, usize, f32)> {
    let mut found: Vec<(String, usize, f32)> = Vec::new();
    for key in tensors.keys() {
        let Some((settings, _)) = key.strip_prefix("pipe.s").and_then(|rest| rest.rsplit_once('.')) else { continue };
        let Some((steps, guidance)) = settings.split_once(".g") else { continue };
        if let (Ok(steps), Ok(guidance)) = (steps.parse(), guidance.parse()) {
            let run = (format!("{PREFIX}s{settings}."), steps, guidance);
            if !found.contains(&run) {
                found.push(run);
            }
        }
    }
    found
}
