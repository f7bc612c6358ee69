//! Random small UNets and schedules: the folded model gives what the unfolded one gives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use edge_import::{Error, Imported, Options, TensorProblem, TimestepShape, import};
use edge_ir::{Checked, Graph, Tensor};
use edge_lcm::{Affine, BetaSchedule, PredictionType, Schedule, SchedulerConfig, StepRequest};
use edge_passes::lcm::{Branches, Folded, Form, Layout, Request, fold, needs_branches};
use edge_run::tokenizer::Tokenizer;
use edge_run::{Decoder, Guidance, Noise, Plan, Prompts, Sampler};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Relative L2 error of the last latent, from the unfolded model's: the same sums, constants rounded once.
const TOLERANCE: f64 = 1e-5;

/// Relative error of the UNet's output by rounding, which a step multiplies: by 15 with Stable Diffusion's betas, by
/// 64 with `squaredcos_cap_v2` at timestep 989, where the signal's share, which it is divided by, is nearly 0.
const ROUNDING: f64 = 1e-6;

/// Everything that is drawn.
#[derive(Clone, Debug)]
struct Case {
    unet: Value,
    embedding: bool,
    config: SchedulerConfig,
    batch: usize,
    steps: usize,
    scale: f32,
    form: Form,
    flags: Flags,
    seed: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "each is drawn on its own")]
#[derive(Clone, Debug)]
struct Flags {
    per_image: bool,
    scale_is_input: bool,
    twice: bool,
    host: bool,
    hoist: bool,
}

impl Case {
    fn baked_scale(&self) -> Option<f32> {
        (!self.flags.scale_is_input).then_some(self.scale)
    }

    fn host(&self) -> bool {
        self.flags.host && matches!(self.form, Form::Table | Form::PerStep)
    }
}

fn unets() -> impl Strategy<Value = (Value, bool)> {
    let shape = (2_usize..=3, prop::collection::vec(1_usize..=3, 3), select(vec![1_usize, 2, 4]), 1_usize..=2);
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..=1, select(vec![16_usize, 31]));
    (shape, kind).prop_map(|((levels, widths, heads, layers), (embedding, mid, linear, flip, shift, width))| {
        let channels: Vec<usize> = widths.iter().take(levels).map(|w| w * 8).collect();
        let kind = |side: &str, attends: bool| format!("{}{side}Block2D", if attends { "CrossAttn" } else { "" });
        let down: Vec<String> = (0..levels).map(|i| kind("Down", i != 1)).collect();
        let up: Vec<String> = (0..levels).map(|i| kind("Up", i + 1 == levels)).collect();
        let unet = json!({
            "_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "out_channels": 4,
            "block_out_channels": channels, "down_block_types": down, "up_block_types": up,
            "mid_block_type": if mid { json!("UNetMidBlock2DCrossAttn") } else { Value::Null },
            "layers_per_block": layers, "attention_head_dim": heads, "norm_num_groups": 4, "cross_attention_dim": 32,
            "use_linear_projection": linear, "flip_sin_to_cos": flip, "freq_shift": shift,
            "time_cond_proj_dim": if embedding { json!(width) } else { Value::Null },
        });
        (unet, embedding)
    })
}

fn schedules() -> impl Strategy<Value = SchedulerConfig> {
    let betas = select(vec![BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredcosCapV2]);
    let predictions = select(vec![PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction]);
    (betas, predictions, any::<bool>(), 1.0_f64..20.0, 10_usize..=100).prop_map(
        |(beta_schedule, prediction_type, clip_sample, timestep_scaling, original_inference_steps)| SchedulerConfig {
            beta_schedule,
            prediction_type,
            clip_sample,
            timestep_scaling,
            original_inference_steps,
            ..SchedulerConfig::default()
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    let forms = select(vec![Form::Table, Form::PerStep, Form::Unrolled, Form::Pipeline]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(per_image, scale_is_input, twice, host, hoist)| Flags { per_image, scale_is_input, twice, host, hoist },
    );
    (unets(), schedules(), 1_usize..=2, 1_usize..=4, 0.5_f32..4.0, forms, flags, any::<u64>()).prop_map(
        |((unet, embedding), config, batch, steps, scale, form, flags, seed)| Case {
            unet,
            embedding,
            config,
            batch,
            steps,
            scale,
            form,
            flags,
            seed,
        },
    )
}

proptest! {
    // The same cases in every run; PROPTEST_RNG_SEED and PROPTEST_CASES draw others.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn folded_models_give_what_unfolded_ones_give(case in cases()) {
        let folder = checkpoint(&case);
        let timestep = if case.flags.per_image { TimestepShape::PerImage } else { TimestepShape::Shared };
        let options = Options { batch: Some(case.batch), timestep, ..Options::default() };
        let imported = import(folder.path(), None, options).unwrap();
        let twice = Options { unet_batch: Some(2 * case.batch), ..options };
        let twice = import(folder.path(), None, twice).unwrap().model.components["unet"].clone();
        let schedule = Schedule::new(&case.config, &StepRequest::steps(case.steps)).unwrap();
        let request = Request {
            form: case.form,
            schedule: &schedule,
            guidance: case.baked_scale(),
            branches: if case.flags.twice { Branches::Batch(&twice) } else { Branches::Calls },
            host: case.host(),
            hoist: case.flags.hoist,
            layout: Layout::Nchw,
            decoders: &[("vae_decoder", imported.pipeline.vae_scaling_factor)],
            decoder: "vae_decoder",
        };
        let folded = fold(&imported.model, &request).unwrap();
        let plain = |name: &str| imported.model.components[name].clone();
        let expected = draw(&case, &imported, Plan::Schedule(&schedule), &plain);
        let found = play(&case, &imported, &folded);
        for name in ["denoised", "image"] {
            let Some(found) = found.get(name) else { continue };
            let error = distance(&found.to_f32s(), &expected[name].to_f32s());
            let limit = TOLERANCE + ROUNDING * gain(&schedule);
            prop_assert!(error <= limit, "{name}: relative error {error:e}, at most {limit:e}");
        }
        prop_assert!(found.contains_key("image"));
    }
}

/// What the step that multiplies the UNet's output most multiplies it with.
fn gain(schedule: &Schedule) -> f64 {
    let gain = |step: Affine| (step.clean * step.clip.map_or(1.0, |clip| clip.output)).abs();
    schedule.affine().unwrap().into_iter().map(gain).fold(0.0, f64::max)
}

/// The folded model's tensors.
fn play(case: &Case, imported: &Imported, folded: &Folded) -> BTreeMap<String, Tensor> {
    let plan = edge_run::Folded {
        form: match case.form {
            Form::Table => edge_run::Form::Table,
            Form::PerStep => edge_run::Form::PerStep,
            Form::Unrolled => edge_run::Form::Unrolled,
            Form::Pipeline => edge_run::Form::Pipeline,
        },
        steps: folded.steps.clone(),
        host: case.host(),
        prompts: match (needs_branches(case.embedding, case.baked_scale()), case.flags.twice) {
            (false, _) => Prompts::One,
            (true, false) => Prompts::Two,
            (true, true) => Prompts::Joined,
        },
        channels_last: false,
    };
    let graph = |name: &str| folded.parts.iter().find(|part| part.name == name).unwrap().graph.clone();
    draw(case, imported, Plan::Folded(&plan), &graph)
}

fn draw(
    case: &Case,
    imported: &Imported,
    plan: Plan<'_>,
    graph: &dyn Fn(&str) -> Checked<Graph>,
) -> BTreeMap<String, Tensor> {
    let scale = case.scale;
    let folded = matches!(plan, Plan::Folded(_));
    let request = edge_run::Request {
        prompt: "a photo of a cat".into(),
        negative_prompt: "rain".into(),
        guidance: match imported.pipeline.guidance_embedding {
            Some(width) => Guidance::Embedding { scale, width },
            None => Guidance::TwoPasses { scale },
        },
        noise: Noise::Seed(case.seed),
    };
    let scaling_factor = if folded { 1.0 } else { imported.pipeline.vae_scaling_factor };
    let decoder = Decoder { component: "vae_decoder", scaling_factor };
    let tokenizer = Tokenizer::from_folder(&fixture().join("tokenizer")).unwrap();
    let graphs = |name: &str| Ok(graph(name));
    let sampler = Sampler { graphs: &graphs, tokenizer: &tokenizer, plan, decoder };
    sampler.draw(&request, &mut |_| ()).unwrap().1.tensors
}

/// `|found - expected| / |expected|`; of steps one after another, the last ones.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let expected = &expected[expected.len() - found.len()..];
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    (difference / norm).sqrt()
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/fixtures/edgefusion")
}

/// A checkpoint with the fixture's text encoder and decoder, and a UNet of random weights.
fn checkpoint(case: &Case) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["text_encoder", "vae", "tokenizer", "scheduler", "model_index.json"] {
        std::os::unix::fs::symlink(fixture().join(part), folder.path().join(part)).unwrap();
    }
    fs::create_dir(folder.path().join("unet")).unwrap();
    fs::write(folder.path().join("unet/config.json"), case.unet.to_string()).unwrap();
    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let none: [(&str, TensorView<'_>); 0] = [];
    fs::write(&weights, safetensors::serialize(none, None).unwrap()).unwrap();
    // What is missing from a file without tensors is what the configuration asks for.
    let Err(Error::Tensors { problems, .. }) = import(folder.path(), None, Options::default()) else {
        panic!("a file without weights is accepted, or not for its lack of them");
    };
    let mut state = case.seed | 1;
    let mut tensor = |problem| match problem {
        TensorProblem::Missing { name, expected } => {
            let bytes = random(&name, &expected, &mut state);
            Some((name, expected, bytes))
        }
        _ => None,
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = problems.into_iter().filter_map(&mut tensor).collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();
    folder
}

/// Evenly distributed weights that keep activations at their size; gains of norms are about 1.
fn random(name: &str, shape: &[usize], state: &mut u64) -> Vec<u8> {
    let inputs = u16::try_from(shape.iter().skip(1).product::<usize>()).unwrap();
    let (middle, size) = match (shape.len(), name.ends_with("weight")) {
        (1, true) => (1.0, 0.2),
        (1, false) => (0.0, 0.2),
        _ => (0.0, 1.7 / f32::from(inputs).sqrt()),
    };
    let mut number = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = u16::try_from(*state >> 48).unwrap();
        middle + size * (f32::from(bits) / 32768.0 - 1.0)
    };
    (0..shape.iter().product::<usize>()).flat_map(|_| number().to_le_bytes()).collect()
}
