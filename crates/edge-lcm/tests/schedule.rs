//! Properties of every schedule, and the refusals of requests and of a step's inputs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_lcm::{BetaSchedule, PredictionType, Schedule, SchedulerConfig, StepRequest, Warning};
use proptest::prelude::*;

fn schedule(request: &StepRequest) -> Schedule {
    Schedule::new(&SchedulerConfig::default(), request).unwrap()
}

#[track_caller]
fn refuses(request: &StepRequest, message: &str) {
    let error = Schedule::new(&SchedulerConfig::default(), request).unwrap_err();
    assert_eq!(error.to_string(), message);
}

/// Largest difference between a step and its affine form, of numbers up to some tens: a few roundings of `f32`.
const ROUNDING: f64 = 2e-5;

proptest! {
    #[test]
    fn affine_steps_are_the_steps(
        steps in 1_usize..=8,
        prediction in 0_usize..3,
        betas in 0_usize..3,
        zero_snr in any::<bool>(),
        clip in any::<bool>(),
        scaling in 0.01_f64..20.0,
        numbers in prop::collection::vec((-3.0_f32..3.0, -1.0_f32..1.0, -3.0_f32..3.0), 1..20),
    ) {
        let config = SchedulerConfig {
            prediction_type: [PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction][prediction],
            beta_schedule: [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredcosCapV2][betas],
            rescale_betas_zero_snr: zero_snr && prediction != 0,
            clip_sample: clip,
            timestep_scaling: scaling,
            ..SchedulerConfig::default()
        };
        let schedule = Schedule::new(&config, &StepRequest::steps(steps)).unwrap();
        let column = |f: fn(&(f32, f32, f32)) -> f32| numbers.iter().map(f).collect::<Vec<f32>>();
        let (sample, output, noise) = (column(|n| n.0), column(|n| n.0 + n.1), column(|n| n.2));
        for (index, step) in schedule.affine().unwrap().iter().enumerate() {
            let fresh = step.takes_noise().then_some(noise.as_slice());
            let expected = schedule.step(index, 1, &output, &sample, fresh).unwrap().prev_sample;
            // What the noisiest step multiplies its inputs' roundings by.
            let gain = expected.iter().fold(1.0, |m: f64, v| m.max(f64::from(v.abs())));
            let gain = gain.max(step.sample.abs()).max(step.clip.map_or(0.0, |c| c.sample.abs()));
            for (a, b) in step.next(&sample, &output, &noise).iter().zip(&expected) {
                prop_assert!(f64::from((a - b).abs()) <= ROUNDING * gain, "step {index}: {a} for {b}");
            }
        }
    }

    #[test]
    fn timesteps_descend_from_the_last(steps in 1_usize..=200, original in 1_usize..=1000) {
        let request = StepRequest { original_steps: Some(original), ..StepRequest::steps(steps) };
        let result = Schedule::new(&SchedulerConfig::default(), &request);
        if steps > original {
            prop_assert!(result.is_err());
            return Ok(());
        }
        let schedule = result.unwrap();
        let stride = 1000 / original;
        let timesteps: Vec<usize> = schedule.timesteps().collect();
        prop_assert_eq!(timesteps.len(), steps);
        prop_assert_eq!(timesteps[0], original * stride - 1);
        prop_assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]));
        prop_assert!(timesteps.iter().all(|t| (t + 1) % stride == 0));
    }

    #[test]
    fn fifty_steps_are_chosen_by_integers(steps in 1_usize..=50) {
        let timesteps: Vec<usize> = schedule(&StepRequest::steps(steps)).timesteps().collect();
        let integers: Vec<usize> = (0..steps).map(|i| (50 - i * 50 / steps) * 20 - 1).collect();
        prop_assert_eq!(timesteps, integers);
    }

    #[test]
    fn noise_is_added_in_all_steps_but_the_last(steps in 1_usize..=50) {
        let schedule = schedule(&StepRequest::steps(steps));
        let adds: Vec<bool> = schedule.coefficients().iter().map(|c| c.adds_noise).collect();
        prop_assert!(adds.iter().rev().skip(1).all(|adds| *adds) && !adds[steps - 1]);
    }

    #[test]
    fn the_signal_grows(steps in 1_usize..=50) {
        let schedule = schedule(&StepRequest::steps(steps));
        for c in schedule.coefficients() {
            let grows = c.alpha_cumprod_prev > c.alpha_cumprod;
            prop_assert!(grows == c.adds_noise);
            prop_assert!(c.c_skip < 1e-5 && (c.c_out - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn requests_are_refused() {
    let plain = StepRequest::steps(4);
    refuses(&StepRequest { steps: None, ..plain.clone() }, "expected exactly one of `steps` and `timesteps`, got none");
    refuses(
        &StepRequest { timesteps: Some(vec![999]), ..plain.clone() },
        "expected exactly one of `steps` and `timesteps`, got both",
    );
    refuses(&StepRequest { strength: 1.5, ..plain.clone() }, "`strength`: expected 0.0 to 1.0, got 1.5");
    refuses(&StepRequest { strength: f64::NAN, ..plain.clone() }, "`strength`: expected 0.0 to 1.0, got NaN");
    refuses(
        &StepRequest { original_steps: Some(1001), ..plain },
        "`original_steps`: expected 1 to 1000 (`num_train_timesteps`), got 1001",
    );
    refuses(&StepRequest::steps(0), "`steps`: expected 1 to 1000 (`num_train_timesteps`), got 0");
    refuses(&StepRequest::steps(1001), "`steps`: expected 1 to 1000 (`num_train_timesteps`), got 1001");
    refuses(
        &StepRequest::steps(51),
        "`steps`: expected at most 50 (`original_steps` x `strength`: 50 x 1.0), got 51; \
         fewer steps or a `strength` above 1.02 will do",
    );
}

#[test]
fn custom_timesteps_are_refused() {
    refuses(&StepRequest::timesteps(vec![499, 499]), "`timesteps`: expected descending order, got 499 after 499");
    refuses(
        &StepRequest::timesteps(vec![1000]),
        "`timesteps`: expected a first one below 1000 (`num_train_timesteps`), got 1000",
    );
    refuses(
        &StepRequest::timesteps(Vec::new()),
        "`timesteps`: expected at least one after `strength` 1.0, got none of 0",
    );
    refuses(
        &StepRequest { strength: 0.2, ..StepRequest::timesteps(vec![999, 499]) },
        "`timesteps`: expected at least one after `strength` 0.2, got none of 2",
    );
}

#[test]
fn custom_timesteps_are_warned_of() {
    let warned = schedule(&StepRequest::timesteps(vec![899, 500, 259]));
    let expected = [Warning::FirstTimestep { got: 899, expected: 999 }, Warning::NotDistilled { timesteps: vec![500] }];
    assert_eq!(warned.warnings(), expected);
    let short = StepRequest { original_steps: Some(1), ..StepRequest::timesteps(vec![999, 998]) };
    let expected = [Warning::NotDistilled { timesteps: vec![998] }, Warning::TooMany { got: 2, original_steps: 1 }];
    assert_eq!(schedule(&short).warnings(), expected);
    assert!(schedule(&StepRequest::timesteps(vec![999, 499])).warnings().is_empty());
}

#[test]
fn cut_custom_timesteps_end_with_noise() {
    // diffusers counts the steps before it cuts them by the strength, and so never meets the last one.
    let cut = schedule(&StepRequest { strength: 0.5, ..StepRequest::timesteps(vec![999, 759, 499, 259]) });
    assert_eq!(cut.timesteps().collect::<Vec<_>>(), [499, 259]);
    assert!(cut.coefficients()[1].adds_noise);
    assert_eq!(cut.coefficients()[1].alpha_cumprod_prev.to_bits(), cut.coefficients()[1].alpha_cumprod.to_bits());
}

#[test]
fn inputs_of_a_step_are_checked() {
    let schedule = schedule(&StepRequest::steps(2));
    let refuses = |step, batch, output: &[f32], noise: Option<&[f32]>, message: &str| {
        let error = schedule.step(step, batch, output, &[0.0; 4], noise).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let four = [0.0; 4];
    refuses(2, 1, &four, None, "step 2: expected a step below 2");
    refuses(0, 1, &four[1..], Some(&four), "step 0: `model_output`: expected 4 values, got 3");
    refuses(0, 1, &four, Some(&four[2..]), "step 0: `noise`: expected 4 values, got 2");
    refuses(0, 3, &four, Some(&four), "step 0: `batch`: expected a divisor of 4 values, got 3");
    refuses(0, 0, &four, Some(&four), "step 0: `batch`: expected a divisor of 4 values, got 0");
    refuses(0, 1, &four, None, "step 0: expected noise for every step but the last, got none");
    refuses(1, 1, &four, Some(&four), "step 1: expected no noise for the last step, got 4 values");
}

#[test]
fn each_image_has_its_own_threshold() {
    let text = r#"{"_class_name": "LCMScheduler", "thresholding": true, "prediction_type": "sample",
        "sample_max_value": 10.0, "dynamic_thresholding_ratio": 1.0}"#;
    let config = SchedulerConfig::from_json(text).unwrap();
    let schedule = Schedule::new(&config, &StepRequest::steps(1)).unwrap();
    let step = schedule.step(0, 2, &[0.5, -0.25, 4.0, 1.0], &[0.0; 4], None).unwrap();
    assert_eq!(step.denoised, [0.5, -0.25, 1.0, 0.25]);
    let step = schedule.step(0, 2, &[f32::NAN, 0.0, 4.0, 1.0], &[0.0; 4], None).unwrap();
    assert!(step.denoised[..2].iter().all(|value| value.is_nan()));
    assert_eq!(step.denoised[2..], [1.0, 0.25]);
}
