//! The files that edgetool writes and reads beside the graphs: their schemas, and nothing else.

pub mod bundle;
mod error;
mod fold;
mod judge;
mod manifest;
mod plan;
mod precision;
mod prompts;
mod recipe;
mod report;
mod speed;
pub mod target;
mod tolerance;

pub use error::SpecError;
pub use fold::{Fold, FoldClip, FoldForm, FoldGuidance, FoldStep, GuidanceBy, ImageLayout, Place};
pub use judge::{Head, JUDGE_FILE, JUDGE_SCHEMA, JudgeSpec};
pub use manifest::{
    Approximation, Component, Hasher, Lowering, MANIFEST_FILE, Manifest, PassRun, Pipeline, Port, Quantization,
    Repaired, SCHEMA, SchedulerFit, sha256,
};
pub use plan::{ActivationType, PLAN_SCHEMA, PrecisionPlan, PrecisionRule, WeightType};
pub use precision::{Biases, Exception, Integer, Precision, Scheme};
pub use prompts::Prompt;
pub use recipe::{RECIPE_SCHEMA, Recipe, RecipeDecoder, RecipeQuantize, RecipeVerify};
pub use report::{
    Agreement, Check, Comparison, Gain, Layer, LayerHistogram, Measured, Part, PictureComparison, Profile, PromptRun,
    REPORT_FILE, REPORT_SCHEMA, RangeUse, Report, Run, SecondOpinion, Verdict, WhatIf,
};
pub use speed::{Speed, Times};
pub use target::{Target, TargetError};
pub use tolerance::{PRECISIONS, TOLERANCES_SCHEMA, Tolerance, Tolerances};
