//! The embeddings against diffusers' own, made by `tests/reference/make_embedding_cases.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_lcm::{guidance_embedding, timestep_embedding};
use serde_json::Value;

/// Absolute tolerance per radian of the largest angle: `PyTorch`'s vectorised `exp` may miss the nearest
/// `f32` by one unit, 2⁻²³ of a frequency, and the angle is that frequency times `1000 w` or `t`.
const PER_RADIAN: f32 = 1.2e-7;
/// Absolute tolerance for the vectorised sine and cosine themselves.
const ROUNDING: f32 = 1.2e-7;

#[expect(clippy::cast_possible_truncation, reason = "the file's numbers are decimals of `f32`")]
fn float(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

#[test]
fn embeddings_are_those_of_diffusers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/embedding_cases.json")).unwrap();
    for case in &cases {
        let dim = usize::try_from(case["dim"].as_u64().unwrap()).unwrap();
        let (got, largest) = if case["kind"] == "guidance" {
            let w = float(&case["w"]);
            (guidance_embedding(w, dim), 1000.0 * w)
        } else {
            let (t, flip) = (float(&case["t"]), case["flip_sin_to_cos"].as_bool().unwrap());
            (timestep_embedding(t, dim, flip, float(&case["freq_shift"])), t)
        };
        let expected: Vec<f32> = case["values"].as_array().unwrap().iter().map(float).collect();
        assert_eq!(got.len(), expected.len(), "{case}");
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let tolerance = largest * PER_RADIAN + ROUNDING;
        assert!(worst <= tolerance, "{} of {dim}: {worst:e} is over {tolerance:e}", case["kind"]);
    }
}
