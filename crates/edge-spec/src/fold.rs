//! What of the sampler a converted model has in its graphs.

use serde::{Deserialize, Serialize};

/// A folded sampler. The number of steps, and the guidance scale if it is there, are fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// How the steps lie in graphs.
    pub form: FoldForm,
    /// Guidance.
    pub guidance: FoldGuidance,
    /// Where the scheduler's step is done.
    pub scheduler_step: Place,
    /// Whether the text encoder gives keys and values of the cross-attentions in place of hidden states.
    pub hoist_kv: bool,
    /// Layout and type of the decoders' output `image`.
    pub image: ImageLayout,
    /// The steps, in order.
    pub steps: Vec<FoldStep>,
}

/// How the steps lie in graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoldForm {
    /// One UNet, whose input `step` is the step's index.
    Table,
    /// A UNet for each step.
    PerStep,
    /// One graph, `sampler`, for all steps.
    Unrolled,
    /// One graph, `pipeline`, from token ids to the picture.
    Pipeline,
}

/// Guidance of a folded sampler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldGuidance {
    /// By what means.
    pub by: GuidanceBy,
    /// The scale that is in the graphs; absent where it is an input, and where there is no guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// The means of guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidanceBy {
    /// There is none: the scale is 1.
    None,
    /// The UNet's embedding of the scale.
    Embedding,
    /// Two calls of the UNet in the graph; inputs for the negative prompt begin with `negative_`.
    Calls,
    /// One call on twice the images: the negative prompt's come first.
    Batch,
}

/// A side of the border between graphs and their caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the graphs.
    Graph,
    /// By the caller, with the coefficients of [`FoldStep`].
    Host,
}

/// Layout and type of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageLayout {
    /// `float32` `[n,3,h,w]`, 0 to 1.
    Nchw,
    /// `float32` `[n,h,w,3]`, 0 to 1.
    Nhwc,
    /// `uint8` `[n,3,h,w]`.
    NchwU8,
    /// `uint8` `[n,h,w,3]`.
    NhwcU8,
}

/// A step: `next = sample * x + output * o + noise * z`, of the sample `x`, the UNet's output `o` and normal noise `z`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldStep {
    /// The timestep of training.
    pub timestep: usize,
    /// Weight of the sample.
    pub sample: f64,
    /// Weight of the UNet's output or, with `clip`, of the clipped estimate.
    pub output: f64,
    /// Weight of the noise; 0 where the step takes none.
    pub noise: f64,
    /// What is done to the output first, if the scheduler clips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<FoldClip>,
}

/// `o' = clamp(sample * x + output * o, -limit, limit)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldClip {
    /// Weight of the sample.
    pub sample: f64,
    /// Weight of the UNet's output.
    pub output: f64,
    /// The magnitude to cut to.
    pub limit: f64,
}
