//! Diffusers' own timesteps, coefficients and steps, from two machines.
//!
//! Made by `tests/reference/make_scheduler_cases.py`; `scheduler_cases_avx2.json` on an x86 machine with
//! AVX2, whose roundings the crate reproduces, and `scheduler_cases.json` on one with other kernels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_lcm::{Error, Schedule, SchedulerConfig, StepRequest};
use serde_json::{Map, Value, json};

/// A largest difference, relative to the larger of 1 and the expected value, and the reason for it.
struct Tolerance {
    relative: f64,
    reason: &'static str,
}

const EXACT: Tolerance = Tolerance {
    relative: 0.0,
    reason: "nine digits name a `f32` uniquely, and every rounding on a machine with AVX2 is reproduced",
};

const SQUARE_ROOT: Tolerance = Tolerance {
    relative: 2e-7,
    reason: "to rescale to zero SNR, PyTorch takes square roots with MKL, a last bit off in some",
};

const OTHER_MACHINE: Tolerance = Tolerance {
    relative: 1.1e-6,
    reason: "diffusers itself differs that much between this file's machine and one with AVX2",
};

#[expect(clippy::cast_possible_truncation, reason = "the file's numbers are decimals of `f32`")]
fn float(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(float).collect()
}

fn integers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(integer).collect()
}

fn integer(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn config(base: &Value, overrides: &Value) -> SchedulerConfig {
    let mut all: Map<String, Value> = base.as_object().unwrap().clone();
    all.extend(overrides.as_object().unwrap().clone());
    all.insert("_class_name".to_owned(), json!("LCMScheduler"));
    SchedulerConfig::from_json(&Value::from(all).to_string()).unwrap()
}

fn request(call: &Value) -> StepRequest {
    StepRequest {
        steps: call.get("num_inference_steps").map(integer),
        original_steps: call.get("original_inference_steps").map(integer),
        strength: call.get("strength").map_or(1.0, |v| v.as_f64().unwrap()),
        timesteps: call.get("timesteps").map(integers),
    }
}

/// Collects the largest difference over all cases, and the place of it.
struct Worst {
    error: f64,
    at: String,
}

impl Worst {
    fn see(&mut self, got: f32, expected: f32, at: impl Fn() -> String) {
        let (got, expected) = (f64::from(got), f64::from(expected));
        let error = (got - expected).abs() / expected.abs().max(1.0);
        if error.is_nan() || error > self.error {
            *self = Self { error, at: at() };
        }
    }

    fn see_all(&mut self, got: &[f32], expected: &Value, at: &str) {
        let expected = floats(expected);
        assert_eq!(got.len(), expected.len(), "{at}");
        for (g, e) in got.iter().zip(expected) {
            self.see(*g, e, || format!("{at}: got {g:?}, expected {e:?}"));
        }
    }
}

fn check_steps(schedule: &Schedule, case: &Value, worst: &mut Worst) {
    let mut sample = floats(&case["sample"]);
    for (i, expected) in case["steps"].as_array().unwrap().iter().enumerate() {
        let at = |what: &str| format!("config {}, call {}, step {i}, `{what}`", case["config"], case["call"]);
        let c = schedule.coefficients()[i];
        assert_eq!(c.timestep, integer(&expected["t"]), "{}", at("t"));
        for (what, got) in [("alpha_cumprod", c.alpha_cumprod), ("c_skip", c.c_skip), ("c_out", c.c_out)] {
            worst.see_all(&[got], &json!([expected[what]]), &at(what));
        }
        let noise = c.adds_noise.then(|| floats(&case["noise"][i]));
        let output = floats(&case["model_output"][i]);
        let step = schedule.step(i, 1, &output, &sample, noise.as_deref()).unwrap();
        worst.see_all(&step.denoised, &expected["denoised"], &at("denoised"));
        worst.see_all(&step.prev_sample, &expected["prev_sample"], &at("prev_sample"));
        sample = step.prev_sample;
    }
}

/// The numbers in a refusal's text, in order and without repeats.
fn numbers(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map(|word| word.trim_end_matches('.').to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[track_caller]
fn check(document: &str, tolerance: impl Fn(&Value) -> Tolerance) {
    let document: Value = serde_json::from_str(document).unwrap();
    let cases = document["cases"].as_array().unwrap();
    let mut refused = 0;
    for case in cases {
        let config = config(&document["base"], &case["config"]);
        let result = Schedule::new(&config, &request(&case["call"]));
        if let Some(text) = case.get("error") {
            check_refusal(&result.unwrap_err(), text.as_str().unwrap(), &case["call"]);
            refused += 1;
            continue;
        }
        let schedule = result.unwrap();
        let timesteps: Vec<usize> = schedule.timesteps().collect();
        assert_eq!(timesteps, integers(&case["timesteps"]), "{}", case["call"]);
        if case.get("steps").is_some() {
            let mut worst = Worst { error: 0.0, at: String::new() };
            check_steps(&schedule, case, &mut worst);
            let Tolerance { relative, reason } = tolerance(case);
            assert!(worst.error <= relative, "{:e} is over {relative:e} ({reason}): {}", worst.error, worst.at);
        }
    }
    assert_eq!((cases.len(), refused), (60, 3));
}

#[test]
fn bit_for_bit_as_with_avx2() {
    check(include_str!("data/scheduler_cases_avx2.json"), |case| {
        if case["config"].get("rescale_betas_zero_snr").is_some() { SQUARE_ROOT } else { EXACT }
    });
}

#[test]
fn within_rounding_of_another_machine() {
    check(include_str!("data/scheduler_cases.json"), |_| OTHER_MACHINE);
}

fn check_refusal(error: &Error, text: &str, call: &Value) {
    let got = numbers(&error.to_string());
    match error {
        Error::TooFewOriginalSteps { .. } => assert_eq!(got, numbers(text), "{error}"),
        // diffusers names no numbers here; ours are those of the call.
        Error::NotDescending { previous: 499, timestep: 999 } => assert!(text.contains("descending"), "{call}"),
        other => panic!("{call}: {other}"),
    }
}
