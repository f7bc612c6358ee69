//! What can be wrong with a scheduler's configuration, a request for steps, or the inputs of a step.

/// Why a configuration or a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("cannot parse the scheduler config")]
    Json(#[source] serde_json::Error),

    /// The text is JSON, but not an object.
    #[error("the scheduler config: expected a JSON object, got {got}")]
    NotAnObject {
        /// What the text holds instead.
        got: &'static str,
    },

    /// The folder's scheduler is another class.
    #[error(
        "`_class_name`: expected `LCMScheduler`, got `{got}`; `--scheduler lcm` samples with LCM on the same betas"
    )]
    NotLcm {
        /// The class named.
        got: String,
    },

    /// The class is none that LCM can take its betas from.
    #[error("`_class_name`: expected one of {supported}, got `{got}`")]
    UnknownClass {
        /// The class named.
        got: String,
        /// The classes whose betas can be taken over.
        supported: String,
    },

    /// A key that must be there is not.
    #[error("`{key}` is missing from the scheduler config")]
    MissingKey {
        /// The key.
        key: &'static str,
    },

    /// A key that this program does not know, whose effect would be lost.
    #[error("unknown key `{key}` (value {value}) in the scheduler config; known are {supported}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// The keys known, in backticks.
        supported: String,
    },

    /// A known key has a value that cannot be used.
    #[error("`{key}`: expected {expected}, got {value}")]
    BadValue {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What is supported.
        expected: String,
    },

    /// Neither a number of steps nor timesteps were asked for.
    #[error("expected exactly one of `steps` and `timesteps`, got none")]
    NoSteps,

    /// Both a number of steps and timesteps were asked for.
    #[error("expected exactly one of `steps` and `timesteps`, got both")]
    StepsAndTimesteps,

    /// The original schedule is longer than the training schedule, or empty.
    #[error("`original_steps`: expected 1 to {num_train_timesteps} (`num_train_timesteps`), got {original_steps}")]
    OriginalSteps {
        /// The length asked for.
        original_steps: usize,
        /// The most timesteps that the model was trained with.
        num_train_timesteps: usize,
    },

    /// More steps than the model was trained with, or none.
    #[error("`steps`: expected 1 to {num_train_timesteps} (`num_train_timesteps`), got {steps}")]
    Steps {
        /// The number of steps asked for.
        steps: usize,
        /// The most timesteps that the model was trained with.
        num_train_timesteps: usize,
    },

    /// More steps than the original schedule has at this strength.
    #[error(
        "`steps`: expected at most {available} (`original_steps` x `strength`: {original_steps} x {strength:?}), \
         got {steps}; fewer steps or a `strength` above {least_strength:?} will do"
    )]
    TooFewOriginalSteps {
        /// The number of steps asked for.
        steps: usize,
        /// The length of the original schedule.
        original_steps: usize,
        /// The strength asked for.
        strength: f64,
        /// The timesteps left at this strength.
        available: usize,
        /// `steps / original_steps`.
        least_strength: f64,
    },

    /// The strength is not a fraction.
    #[error("`strength`: expected 0.0 to 1.0, got {strength:?}")]
    Strength {
        /// The strength asked for.
        strength: f64,
    },

    /// Custom timesteps do not descend.
    #[error("`timesteps`: expected descending order, got {timestep} after {previous}")]
    NotDescending {
        /// The one before.
        previous: usize,
        /// The one that is not smaller.
        timestep: usize,
    },

    /// A custom timestep beyond the training schedule.
    #[error("`timesteps`: expected a first one below {num_train_timesteps} (`num_train_timesteps`), got {timestep}")]
    TimestepTooLarge {
        /// The first custom timestep.
        timestep: usize,
        /// The number of training timesteps.
        num_train_timesteps: usize,
    },

    /// No timestep is left.
    #[error("`timesteps`: expected at least one after `strength` {strength:?}, got none of {given}")]
    EmptySchedule {
        /// The number of custom timesteps given.
        given: usize,
        /// The strength asked for.
        strength: f64,
    },

    /// Noise prediction divides by the square root of this alpha.
    #[error("`prediction_type` `epsilon` cannot start at timestep {timestep}, where `alphas_cumprod` is 0")]
    ZeroAlpha {
        /// The timestep.
        timestep: usize,
    },

    /// A step that the schedule does not have.
    #[error("step {step}: expected a step below {count}")]
    NoSuchStep {
        /// The step asked for.
        step: usize,
        /// The number of steps.
        count: usize,
    },

    /// An input of a step has the wrong number of values.
    #[error("step {step}: `{input}`: expected {expected} values, got {got}")]
    Length {
        /// The step.
        step: usize,
        /// The input.
        input: &'static str,
        /// The length of `sample`.
        expected: usize,
        /// The length given.
        got: usize,
    },

    /// The values cannot be shared out to the images.
    #[error("step {step}: `batch`: expected a divisor of {values} values, got {batch}")]
    Batch {
        /// The step.
        step: usize,
        /// The number of images given.
        batch: usize,
        /// The number of values of all images.
        values: usize,
    },

    /// A step that adds noise was given none.
    #[error("step {step}: expected noise for every step but the last, got none")]
    NoNoise {
        /// The step.
        step: usize,
    },

    /// A step that adds no noise was given some, so the generator is out of step.
    #[error("step {step}: expected no noise for the last step, got {got} values")]
    UnusedNoise {
        /// The step.
        step: usize,
        /// The number of values given.
        got: usize,
    },
}
