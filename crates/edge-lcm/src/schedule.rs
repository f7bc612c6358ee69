//! Timesteps and coefficients: all of the sampler that is known before the first step.
//!
//! Source: `LCMScheduler.set_timesteps` and `get_scalings_for_boundary_condition_discrete` in diffusers'
//! `schedulers/scheduling_lcm.py`.

use crate::betas::{alphas_cumprod, to_f32, to_f64};
use crate::{Error, PredictionType, SchedulerConfig};

/// Which timesteps to sample at; the arguments of `set_timesteps`.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRequest {
    /// The number of steps; exactly one of `steps` and `timesteps` is given.
    pub steps: Option<usize>,
    /// Length of the schedule to choose from; `original_inference_steps` of the config if absent.
    pub original_steps: Option<usize>,
    /// The share of the schedule to run, 0 to 1; less than 1 starts from a picture.
    pub strength: f64,
    /// The timesteps themselves, descending.
    pub timesteps: Option<Vec<usize>>,
}

impl StepRequest {
    /// A request for `steps` steps over the whole schedule.
    pub fn steps(steps: usize) -> Self {
        Self { steps: Some(steps), original_steps: None, strength: 1.0, timesteps: None }
    }

    /// A request for these timesteps, over the whole schedule.
    pub fn timesteps(timesteps: Vec<usize>) -> Self {
        Self { steps: None, original_steps: None, strength: 1.0, timesteps: Some(timesteps) }
    }
}

/// What custom timesteps do that the model was not distilled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The first timestep is not the last one of training, although the strength is 1.
    FirstTimestep {
        /// The first timestep given.
        got: usize,
        /// The last training timestep.
        expected: usize,
    },
    /// Some timesteps are not in the schedule that the model was distilled on.
    NotDistilled {
        /// These timesteps; the first one of the schedule is not looked at, as in diffusers.
        timesteps: Vec<usize>,
    },
    /// There are more timesteps than the model was distilled on.
    TooMany {
        /// How many were given.
        got: usize,
        /// The length of the original schedule.
        original_steps: usize,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FirstTimestep { got, expected } => {
                write!(f, "the first timestep is {got}, the model was distilled to start at {expected}")
            }
            Self::NotDistilled { timesteps } => {
                write!(f, "the model was not distilled for the timesteps {timesteps:?}")
            }
            Self::TooMany { got, original_steps } => {
                write!(f, "{got} timesteps are more than the {original_steps} that the model was distilled on")
            }
        }
    }
}

/// The numbers that one step works with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// The timestep, an index into the training schedule.
    pub timestep: usize,
    /// The cumulated alpha at the timestep: the share of signal in the sample's variance.
    pub alpha_cumprod: f32,
    /// The same at the next timestep of the schedule; at this timestep if it is the last.
    pub alpha_cumprod_prev: f32,
    /// Weight of the sample in the denoised sample.
    pub c_skip: f32,
    /// Weight of the predicted clean sample in the denoised sample.
    pub c_out: f32,
    /// Whether the step mixes new noise in: all but the last do.
    pub adds_noise: bool,
}

/// A sampler that is ready to step.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub(crate) config: SchedulerConfig,
    alphas_cumprod: Vec<f32>,
    coefficients: Vec<Coefficients>,
    warnings: Vec<Warning>,
}

impl Schedule {
    /// Works out the tables; fails where `set_timesteps` does, and where a step would divide by zero.
    pub fn new(config: &SchedulerConfig, request: &StepRequest) -> Result<Self, Error> {
        let chosen = choose(config, request)?;
        let alphas_cumprod = alphas_cumprod(config);
        let coefficients = coefficients(config, &alphas_cumprod, &chosen)?;
        Ok(Self { config: config.clone(), alphas_cumprod, coefficients, warnings: chosen.warnings })
    }

    /// The timesteps, in the order of the steps.
    pub fn timesteps(&self) -> impl ExactSizeIterator<Item = usize> {
        self.coefficients.iter().map(|c| c.timestep)
    }

    /// The numbers of every step, in order.
    pub fn coefficients(&self) -> &[Coefficients] {
        &self.coefficients
    }

    /// The cumulated alphas of all training timesteps.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// What of the request the model was not distilled for.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// The timesteps chosen.
struct Chosen {
    timesteps: Vec<usize>,
    /// `num_inference_steps`: with a strength below 1, custom timesteps are fewer than this, and then
    /// even the last step adds noise.
    planned: usize,
    warnings: Vec<Warning>,
}

fn choose(config: &SchedulerConfig, request: &StepRequest) -> Result<Chosen, Error> {
    if request.steps.is_none() && request.timesteps.is_none() {
        return Err(Error::NoSteps);
    }
    if request.steps.is_some() && request.timesteps.is_some() {
        return Err(Error::StepsAndTimesteps);
    }
    let strength = request.strength;
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::Strength { strength });
    }
    let trained = config.num_train_timesteps;
    let original_steps = request.original_steps.unwrap_or(config.original_inference_steps);
    if !(1..=trained).contains(&original_steps) {
        return Err(Error::OriginalSteps { original_steps, num_train_timesteps: trained });
    }
    let stride = trained / original_steps;
    let origin: Vec<usize> = (1..=share(original_steps, strength)).map(|i| i * stride - 1).collect();
    match (&request.timesteps, request.steps) {
        (Some(timesteps), _) => custom(config, timesteps, &origin, original_steps, strength),
        (None, steps) => evenly(trained, steps.unwrap_or_default(), &origin, original_steps, strength),
    }
}

fn custom(
    config: &SchedulerConfig,
    given: &[usize],
    origin: &[usize],
    original_steps: usize,
    strength: f64,
) -> Result<Chosen, Error> {
    if let Some(pair) = given.windows(2).find(|pair| pair[1] >= pair[0]) {
        return Err(Error::NotDescending { previous: pair[0], timestep: pair[1] });
    }
    let num_train_timesteps = config.num_train_timesteps;
    if let Some(&timestep) = given.first().filter(|t| **t >= num_train_timesteps) {
        return Err(Error::TimestepTooLarge { timestep, num_train_timesteps });
    }
    let timesteps = given[given.len() - share(given.len(), strength)..].to_vec();
    if timesteps.is_empty() {
        return Err(Error::EmptySchedule { given: given.len(), strength });
    }
    let warnings = warnings(num_train_timesteps - 1, given, origin, original_steps, strength);
    Ok(Chosen { timesteps, planned: given.len(), warnings })
}

fn warnings(last: usize, given: &[usize], origin: &[usize], original_steps: usize, strength: f64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(&got) = given.first().filter(|t| strength >= 1.0 && **t != last) {
        warnings.push(Warning::FirstTimestep { got, expected: last });
    }
    let strangers: Vec<usize> = given.iter().skip(1).copied().filter(|t| origin.binary_search(t).is_err()).collect();
    if !strangers.is_empty() {
        warnings.push(Warning::NotDistilled { timesteps: strangers });
    }
    if given.len() > original_steps {
        warnings.push(Warning::TooMany { got: given.len(), original_steps });
    }
    warnings
}

fn evenly(
    num_train_timesteps: usize,
    steps: usize,
    origin: &[usize],
    original_steps: usize,
    strength: f64,
) -> Result<Chosen, Error> {
    if !(1..=num_train_timesteps).contains(&steps) {
        return Err(Error::Steps { steps, num_train_timesteps });
    }
    // diffusers also asks for `steps <= original_steps`; with a strength of at most 1 this implies it.
    if steps > origin.len() {
        let least_strength = to_f64(steps) / to_f64(original_steps);
        return Err(Error::TooFewOriginalSteps {
            steps,
            original_steps,
            strength,
            available: origin.len(),
            least_strength,
        });
    }
    // numpy.linspace multiplies by the rounded step: the index is the floor of that product.
    let step = to_f64(origin.len()) / to_f64(steps);
    let timesteps = (0..steps).map(|i| origin[origin.len() - 1 - floor(to_f64(i) * step)]).collect();
    Ok(Chosen { timesteps, planned: steps, warnings: Vec::new() })
}

fn coefficients(config: &SchedulerConfig, alphas_cumprod: &[f32], chosen: &Chosen) -> Result<Vec<Coefficients>, Error> {
    let timesteps = &chosen.timesteps;
    let mut all = Vec::with_capacity(timesteps.len());
    for (i, &timestep) in timesteps.iter().enumerate() {
        let alpha_cumprod = alphas_cumprod[timestep];
        if alpha_cumprod == 0.0 && config.prediction_type == PredictionType::Epsilon {
            return Err(Error::ZeroAlpha { timestep });
        }
        let (c_skip, c_out) = boundary(timestep, config.timestep_scaling);
        all.push(Coefficients {
            timestep,
            alpha_cumprod,
            alpha_cumprod_prev: alphas_cumprod[*timesteps.get(i + 1).unwrap_or(&timestep)],
            c_skip,
            c_out,
            adds_noise: i + 1 != chosen.planned,
        });
    }
    Ok(all)
}

/// `c_skip` and `c_out`, with a data deviation of 0.5, as
/// `get_scalings_for_boundary_condition_discrete` computes them for a tensor's timestep: in `f32`.
fn boundary(timestep: usize, scaling: f64) -> (f32, f32) {
    let scaled = to_f32(to_f64(timestep)) * to_f32(scaling);
    let sum = scaled * scaled + 0.25;
    (1.0 / sum * 0.25, scaled / sum.sqrt())
}

/// `int(count * strength)`.
fn share(count: usize, strength: f64) -> usize {
    floor(to_f64(count) * strength).min(count)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers pass small positive numbers")]
fn floor(x: f64) -> usize {
    x as usize
}
