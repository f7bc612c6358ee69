//! `TorchGenerator` against draws of `torch.randn`, made by `tests/reference/make_noise_cases.py`.
//!
//! The comparison is bit for bit, over whole tensors: long draws are compared by a checksum too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_lcm::TorchGenerator;
use serde_json::Value;

fn cases() -> Value {
    serde_json::from_str(include_str!("data/noise_cases.json")).unwrap()
}

fn seed(case: &Value) -> u64 {
    case["seed"].as_str().unwrap().parse().unwrap()
}

fn checksum(words: impl Iterator<Item = u64>) -> String {
    let sum = words.fold(0xcbf2_9ce4_8422_2325_u64, |h, word| (h ^ word).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}

fn hex(values: &[f32]) -> String {
    let words: Vec<String> = values.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
    words.concat()
}

#[track_caller]
fn check(generator: &mut TorchGenerator, draw: &Value, name: &str) {
    let n = usize::try_from(draw["n"].as_u64().unwrap()).unwrap();
    let values = generator.randn(n);
    assert_eq!(values.len(), n, "{name}");
    if let Some(all) = draw.get("values") {
        assert_eq!(hex(&values), *all, "{name}: all values");
        return;
    }
    assert_eq!(hex(&values[..32]), draw["first"], "{name}: first values");
    assert_eq!(hex(&values[n - 32..]), draw["last"], "{name}: last values");
    let sum = checksum(values.iter().map(|value| u64::from(value.to_bits())));
    assert_eq!(sum, draw["checksum"], "{name}: checksum");
}

#[test]
fn draws_are_those_of_torch() {
    for case in cases()["cases"].as_array().unwrap() {
        let mut generator = TorchGenerator::new(seed(case));
        let draws = case["draws"].as_array().unwrap();
        for (i, draw) in draws.iter().enumerate() {
            check(&mut generator, draw, &format!("seed {}, draw {i} of {}", case["seed"], draw["n"]));
        }
    }
}

#[test]
fn integers_are_those_of_torch() {
    for case in cases()["integers"].as_array().unwrap() {
        let mut generator = TorchGenerator::new(seed(case));
        let mut next = || (u64::from(generator.next_u32()) << 32 | u64::from(generator.next_u32())) & (u64::MAX >> 1);
        let values: Vec<u64> = (0..700).map(|_| next()).collect();
        let first: Vec<String> = values.iter().take(8).map(u64::to_string).collect();
        assert_eq!(Value::from(first), case["values"], "seed {}", case["seed"]);
        assert_eq!(checksum(values.into_iter()), case["checksum"], "seed {}", case["seed"]);
    }
}

#[test]
fn an_empty_draw_takes_nothing() {
    let mut generator = TorchGenerator::new(7);
    assert!(generator.randn(0).is_empty());
    assert_eq!(generator.next_u32(), TorchGenerator::new(7).next_u32());
}
