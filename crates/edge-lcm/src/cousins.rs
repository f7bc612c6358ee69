//! Schedulers of diffusers other than LCM whose configs LCM can take over, and which of their keys it
//! can do without.
//!
//! The keys are those of the classes' `__init__` in diffusers 0.42 (`schedulers/scheduling_*.py`).

/// Schedulers over the same betas and discrete timesteps, whose configs LCM can take over.
pub(crate) const CLASSES: &[&str] = &[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

/// What values of a cousin's key leave the model itself as LCM expects it.
pub(crate) enum Harmless {
    /// The key steers only the other sampler's path: LCM has no use for it, whatever its value.
    Any,
    /// Other values mean another kind of model.
    Only(&'static [&'static str]),
}

/// Keys of the [`CLASSES`] that LCM does not have.
const KEYS: &[(&str, Harmless)] = &[
    ("algorithm_type", Harmless::Any),
    ("disable_corrector", Harmless::Any),
    ("euler_at_final", Harmless::Any),
    ("final_sigmas_type", Harmless::Any),
    ("flow_shift", Harmless::Any),
    ("interpolation_type", Harmless::Any),
    ("lambda_min_clipped", Harmless::Any),
    ("lower_order_final", Harmless::Any),
    ("predict_x0", Harmless::Any),
    ("shift_terminal", Harmless::Any),
    ("sigma_max", Harmless::Any),
    ("sigma_min", Harmless::Any),
    ("skip_prk_steps", Harmless::Any),
    ("solver_order", Harmless::Any),
    ("solver_p", Harmless::Any),
    ("solver_type", Harmless::Any),
    ("time_shift_type", Harmless::Any),
    // A continuous timestep is a function of sigma, not an index into the betas.
    ("timestep_type", Harmless::Only(&["\"discrete\""])),
    ("use_beta_sigmas", Harmless::Any),
    ("use_dynamic_shifting", Harmless::Only(&["false"])),
    ("use_exponential_sigmas", Harmless::Any),
    // A flow-matching model predicts a velocity, and has no betas.
    ("use_flow_sigmas", Harmless::Only(&["false"])),
    ("use_karras_sigmas", Harmless::Any),
    ("use_lu_lambdas", Harmless::Any),
    // A learned variance doubles the channels of the model's output.
    ("variance_type", Harmless::Only(&["null", "\"fixed_small\"", "\"fixed_small_log\"", "\"fixed_large\""])),
];

/// What is known of a key that LCM does not have; none if no cousin has it either.
pub(crate) fn harmless(key: &str) -> Option<&'static Harmless> {
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, harmless)| harmless)
}
