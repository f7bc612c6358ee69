//! `scheduler_config.json` of a diffusers folder.
//!
//! The keys, defaults and meanings are those of `LCMScheduler.__init__` in diffusers 0.42
//! (`schedulers/scheduling_lcm.py`). A key or a value that is not understood is an error: ignoring one
//! would sample another distribution than the model was trained for.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::cousins::{self, CLASSES, Harmless};

/// Every key of `LCMScheduler`'s config.
const KEYS: &[&str] = &[
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "original_inference_steps",
    "clip_sample",
    "clip_sample_range",
    "set_alpha_to_one",
    "steps_offset",
    "prediction_type",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "timestep_spacing",
    "timestep_scaling",
    "rescale_betas_zero_snr",
];

/// How the betas run from the first training timestep to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly from `beta_start` to `beta_end`.
    Linear,
    /// The squares of evenly spaced square roots: Stable Diffusion's schedule.
    ScaledLinear,
    /// Glide's cosine schedule, which takes no `beta_start` and no `beta_end`.
    SquaredcosCapV2,
}

/// What the network's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise in the sample.
    Epsilon,
    /// The sample without noise.
    Sample,
    /// The velocity of the diffusion, `√ᾱ·noise - √(1-ᾱ)·x0`.
    VPrediction,
}

/// How other schedulers space their timesteps; LCM reads it and makes no use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Multiples of the step length.
    Leading,
    /// Evenly spaced over the whole range.
    Linspace,
    /// Multiples of the step length, counted from the end.
    Trailing,
}

/// The configuration of diffusers' `LCMScheduler`; each field is the key of the same name.
#[expect(clippy::struct_excessive_bools, reason = "the fields are those of the file")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// Timesteps that the model was trained with.
    pub num_train_timesteps: usize,
    /// The first beta.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// How the betas run between the two.
    pub beta_schedule: BetaSchedule,
    /// The betas themselves, in place of the three fields above.
    pub trained_betas: Option<Vec<f64>>,
    /// Timesteps of the schedule that the model was distilled on.
    pub original_inference_steps: usize,
    /// Whether the predicted clean sample is clipped.
    pub clip_sample: bool,
    /// The magnitude to clip to.
    pub clip_sample_range: f64,
    /// Whether the alpha before the first timestep is 1; without effect, since no step goes there.
    pub set_alpha_to_one: bool,
    /// Offset of other schedulers' timesteps; LCM reads it and makes no use of it.
    pub steps_offset: i64,
    /// What the network's output means.
    pub prediction_type: PredictionType,
    /// Whether the predicted clean sample is thresholded at a quantile of its own magnitudes.
    pub thresholding: bool,
    /// The quantile, 0 to 1.
    pub dynamic_thresholding_ratio: f64,
    /// The largest threshold.
    pub sample_max_value: f64,
    /// Spacing of other schedulers' timesteps; LCM reads it and makes no use of it.
    pub timestep_spacing: TimestepSpacing,
    /// Factor on the timestep in the boundary condition.
    pub timestep_scaling: f64,
    /// Whether the betas are rescaled until the last alpha is zero.
    pub rescale_betas_zero_snr: bool,
}

impl Default for SchedulerConfig {
    /// The defaults of `LCMScheduler.__init__`.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            trained_betas: None,
            original_inference_steps: 50,
            clip_sample: false,
            clip_sample_range: 1.0,
            set_alpha_to_one: true,
            steps_offset: 0,
            prediction_type: PredictionType::Epsilon,
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: TimestepSpacing::Leading,
            timestep_scaling: 10.0,
            rescale_betas_zero_snr: false,
        }
    }
}

impl SchedulerConfig {
    /// Reads the `scheduler_config.json` of an LCM model.
    ///
    /// A key that is absent takes diffusers' default; keys that start with `_` are diffusers' own
    /// notes, and only `_class_name` is read. Fails on a class other than `LCMScheduler`, an unknown
    /// key, or a value that is not supported.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let map = parse(text)?;
        let class = class_name(&map)?;
        if class != "LCMScheduler" {
            return Err(Error::NotLcm { got: class.to_owned() });
        }
        Self::from_map(&map, |_| None)
    }

    /// Reads another scheduler's `scheduler_config.json` so that LCM samples on the same betas, as
    /// diffusers' `LCMScheduler.from_config(other.config)`.
    ///
    /// The keys that both have are taken over, the betas and the prediction type above all; those that
    /// only steer the other sampler are dropped. Fails as [`Self::from_json`], on a class without such
    /// betas, and where the file leaves a beta to the other class's default.
    pub fn from_json_as_lcm(text: &str) -> Result<Self, Error> {
        let map = parse(text)?;
        let class = class_name(&map)?;
        if !CLASSES.contains(&class) {
            return Err(Error::UnknownClass { got: class.to_owned(), supported: in_backticks(CLASSES) });
        }
        require_betas(&map, class)?;
        Self::from_map(&map, cousins::harmless)
    }

    fn from_map(map: &Map<String, Value>, harmless: impl Fn(&str) -> Option<&'static Harmless>) -> Result<Self, Error> {
        let mut config = Self::default();
        for (key, value) in map.iter().filter(|(key, _)| !key.starts_with('_')) {
            if config.set(key, value)? {
                continue;
            }
            match harmless(key) {
                Some(Harmless::Any) => {}
                Some(Harmless::Only(values)) if values.contains(&value.to_string().as_str()) => {}
                Some(Harmless::Only(values)) => {
                    return Err(bad_value(key, value, &format!("one of {}", in_backticks(values))));
                }
                None => return Err(unknown_key(key, value)),
            }
        }
        config.check_betas()?;
        Ok(config)
    }

    /// Takes one key over; false if the key is none of LCM's.
    fn set(&mut self, key: &str, value: &Value) -> Result<bool, Error> {
        match key {
            "num_train_timesteps" => self.num_train_timesteps = positive(key, value)?,
            "beta_start" => self.beta_start = number(key, value)?,
            "beta_end" => self.beta_end = number(key, value)?,
            "beta_schedule" => self.beta_schedule = BetaSchedule::parse(key, value)?,
            "trained_betas" => self.trained_betas = betas(key, value)?,
            "original_inference_steps" => self.original_inference_steps = positive(key, value)?,
            "clip_sample" => self.clip_sample = boolean(key, value)?,
            "clip_sample_range" => self.clip_sample_range = number(key, value)?,
            "set_alpha_to_one" => self.set_alpha_to_one = boolean(key, value)?,
            "steps_offset" => self.steps_offset = integer(key, value)?,
            "prediction_type" => self.prediction_type = PredictionType::parse(key, value)?,
            "thresholding" => self.thresholding = boolean(key, value)?,
            "dynamic_thresholding_ratio" => self.dynamic_thresholding_ratio = fraction(key, value)?,
            "sample_max_value" => self.sample_max_value = number(key, value)?,
            "timestep_spacing" => self.timestep_spacing = TimestepSpacing::parse(key, value)?,
            "timestep_scaling" => self.timestep_scaling = number(key, value)?,
            "rescale_betas_zero_snr" => self.rescale_betas_zero_snr = boolean(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check_betas(&self) -> Result<(), Error> {
        match &self.trained_betas {
            Some(betas) if betas.len() != self.num_train_timesteps => Err(Error::BadValue {
                key: "trained_betas".to_owned(),
                value: format!("{} numbers", betas.len()),
                expected: format!("{} numbers (`num_train_timesteps`)", self.num_train_timesteps),
            }),
            _ => Ok(()),
        }
    }
}

/// Gives an enum the names that its values have in the file.
macro_rules! names {
    ($type:ident: $($name:literal => $variant:ident),+) => {
        impl $type {
            fn parse(key: &str, value: &Value) -> Result<Self, Error> {
                match value.as_str() {
                    $(Some($name) => Ok(Self::$variant),)+
                    _ => Err(bad_value(key, value, &format!("one of {}", in_backticks(&[$($name),+])))),
                }
            }
        }
    };
}

names!(BetaSchedule: "linear" => Linear, "scaled_linear" => ScaledLinear, "squaredcos_cap_v2" => SquaredcosCapV2);
names!(PredictionType: "epsilon" => Epsilon, "sample" => Sample, "v_prediction" => VPrediction);
names!(TimestepSpacing: "leading" => Leading, "linspace" => Linspace, "trailing" => Trailing);

fn parse(text: &str) -> Result<Map<String, Value>, Error> {
    let got = match serde_json::from_str(text).map_err(Error::Json)? {
        Value::Object(map) => return Ok(map),
        Value::Array(_) => "an array",
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
    };
    Err(Error::NotAnObject { got })
}

fn class_name(map: &Map<String, Value>) -> Result<&str, Error> {
    let value = map.get("_class_name").ok_or(Error::MissingKey { key: "_class_name" })?;
    value.as_str().ok_or_else(|| bad_value("_class_name", value, "a string"))
}

/// Other classes have other defaults for the betas, so these must stand in the file.
fn require_betas(map: &Map<String, Value>, class: &str) -> Result<(), Error> {
    let trained = map.get("trained_betas").is_some_and(|v| !v.is_null());
    if trained || class == "LCMScheduler" {
        return Ok(());
    }
    match ["beta_start", "beta_end", "beta_schedule"].into_iter().find(|key| !map.contains_key(*key)) {
        Some(key) => Err(Error::MissingKey { key }),
        None => Ok(()),
    }
}

fn positive(key: &str, value: &Value) -> Result<usize, Error> {
    // The bound keeps a schedule's tables within memory; models have a thousand timesteps.
    let number = value.as_u64().filter(|n| (1..=1_000_000).contains(n)).and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| bad_value(key, value, "an integer from 1 to 1000000"))
}

fn integer(key: &str, value: &Value) -> Result<i64, Error> {
    value.as_i64().ok_or_else(|| bad_value(key, value, "an integer"))
}

fn number(key: &str, value: &Value) -> Result<f64, Error> {
    value.as_f64().ok_or_else(|| bad_value(key, value, "a number"))
}

fn fraction(key: &str, value: &Value) -> Result<f64, Error> {
    let number = value.as_f64().filter(|n| (0.0..=1.0).contains(n));
    number.ok_or_else(|| bad_value(key, value, "a number from 0 to 1"))
}

fn boolean(key: &str, value: &Value) -> Result<bool, Error> {
    value.as_bool().ok_or_else(|| bad_value(key, value, "true or false"))
}

fn betas(key: &str, value: &Value) -> Result<Option<Vec<f64>>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items.iter().map(|item| number(key, item)).collect::<Result<_, _>>().map(Some),
        _ => Err(bad_value(key, value, "a list of numbers or null")),
    }
}

fn bad_value(key: &str, value: &Value, expected: &str) -> Error {
    Error::BadValue { key: key.to_owned(), value: value.to_string(), expected: expected.to_owned() }
}

fn unknown_key(key: &str, value: &Value) -> Error {
    Error::UnknownKey { key: key.to_owned(), value: value.to_string(), supported: in_backticks(KEYS) }
}

fn in_backticks(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
