//! Which scheduler configs are taken, and what the refusals say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_lcm::{BetaSchedule, PredictionType, Schedule, SchedulerConfig, StepRequest};

/// The scheduler of Stable Diffusion 1.5 as its folder has it.
const PNDM: &str = r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
    "clip_sample": false}"#;

fn lcm(fields: &str) -> String {
    format!(r#"{{"_class_name": "LCMScheduler"{fields}}}"#)
}

#[track_caller]
fn refuses(text: &str, message: &str) {
    assert_eq!(SchedulerConfig::from_json(text).unwrap_err().to_string(), message);
}

#[track_caller]
fn refuses_as_lcm(text: &str, message: &str) {
    assert_eq!(SchedulerConfig::from_json_as_lcm(text).unwrap_err().to_string(), message);
}

#[test]
fn absent_keys_take_the_defaults() {
    let config = SchedulerConfig::from_json(&lcm(r#", "_diffusers_version": "0.42.0""#)).unwrap();
    assert_eq!(config, SchedulerConfig::default());
}

#[test]
fn present_keys_are_taken() {
    let text = lcm(r#", "beta_schedule": "linear", "prediction_type": "v_prediction", "timestep_scaling": 1,
        "num_train_timesteps": 2, "trained_betas": [0.1, 0.2], "original_inference_steps": 2"#);
    let config = SchedulerConfig::from_json(&text).unwrap();
    assert_eq!(config.beta_schedule, BetaSchedule::Linear);
    assert_eq!(config.prediction_type, PredictionType::VPrediction);
    assert_eq!(config.trained_betas, Some(vec![0.1, 0.2]));
    assert_eq!((config.num_train_timesteps, config.original_inference_steps), (2, 2));
}

#[test]
fn another_class_is_refused_with_the_way_out() {
    refuses(
        PNDM,
        "`_class_name`: expected `LCMScheduler`, got `PNDMScheduler`; `--scheduler lcm` samples with LCM on the same betas",
    );
    refuses("{}", "`_class_name` is missing from the scheduler config");
}

#[test]
fn another_class_gives_its_betas() {
    let config = SchedulerConfig::from_json_as_lcm(PNDM).unwrap();
    let expected = SchedulerConfig { set_alpha_to_one: false, steps_offset: 1, ..SchedulerConfig::default() };
    assert_eq!(config, expected);
}

#[test]
fn unknown_keys_are_refused() {
    let message = SchedulerConfig::from_json(&lcm(r#", "beta_stop": 0.1"#)).unwrap_err().to_string();
    assert!(message.starts_with("unknown key `beta_stop` (value 0.1) in the scheduler config; known are `num_train"));
    // A key of another scheduler does not belong into LCM's own config.
    assert!(SchedulerConfig::from_json(&lcm(r#", "skip_prk_steps": true"#)).is_err());
}

#[test]
fn bad_values_are_refused() {
    refuses(
        &lcm(r#", "beta_schedule": "sigmoid""#),
        r#"`beta_schedule`: expected one of `linear`, `scaled_linear`, `squaredcos_cap_v2`, got "sigmoid""#,
    );
    refuses(
        &lcm(r#", "prediction_type": "flow_prediction""#),
        r#"`prediction_type`: expected one of `epsilon`, `sample`, `v_prediction`, got "flow_prediction""#,
    );
    refuses(&lcm(r#", "beta_start": null"#), "`beta_start`: expected a number, got null");
    refuses(&lcm(r#", "clip_sample": 1"#), "`clip_sample`: expected true or false, got 1");
    refuses(
        &lcm(r#", "num_train_timesteps": 0"#),
        "`num_train_timesteps`: expected an integer from 1 to 1000000, got 0",
    );
    refuses(
        &lcm(r#", "trained_betas": [0.5]"#),
        "`trained_betas`: expected 1000 numbers (`num_train_timesteps`), got 1 numbers",
    );
    refuses("[]", "the scheduler config: expected a JSON object, got an array");
    refuses("{", "cannot parse the scheduler config");
}

#[test]
fn models_of_another_kind_are_refused() {
    let euler = |fields: &str| {
        format!(
            r#"{{"_class_name": "EulerDiscreteScheduler", "beta_start": 0.1, "beta_end": 0.2,
            "beta_schedule": "linear"{fields}}}"#
        )
    };
    assert!(SchedulerConfig::from_json_as_lcm(&euler(r#", "use_karras_sigmas": true"#)).is_ok());
    refuses_as_lcm(&euler(r#", "use_flow_sigmas": true"#), "`use_flow_sigmas`: expected one of `false`, got true");
    refuses_as_lcm(
        &euler(r#", "timestep_type": "continuous""#),
        r#"`timestep_type`: expected one of `"discrete"`, got "continuous""#,
    );
    refuses_as_lcm(
        r#"{"_class_name": "DDIMScheduler", "beta_start": 0.1, "beta_end": 0.2}"#,
        "`beta_schedule` is missing from the scheduler config",
    );
    let error = SchedulerConfig::from_json_as_lcm(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#).unwrap_err();
    assert!(error.to_string().ends_with("`UniPCMultistepScheduler`, got `FlowMatchEulerDiscreteScheduler`"));
}

#[test]
fn noise_prediction_from_nothing_but_noise_is_refused() {
    let config = SchedulerConfig { rescale_betas_zero_snr: true, ..SchedulerConfig::default() };
    let error = Schedule::new(&config, &StepRequest::steps(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`prediction_type` `epsilon` cannot start at timestep 999, where `alphas_cumprod` is 0",
    );
}
