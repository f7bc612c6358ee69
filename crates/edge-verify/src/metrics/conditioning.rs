//! Conditioning: how much the prompt moves the UNet's answer. A model whose pictures ignore the prompt has lost it, and
//! no comparison of one picture shows that.

use super::rounded;

/// `std(c1 - c2) / std(r1 - r2)` of a candidate's and a reference's answers to two prompts on the same noise: 1 where
/// the prompt has the same influence, 0 where the candidate ignores it. `None` if the lengths differ, or the reference
/// itself does not heed the prompt.
pub fn ratio(candidate: [&[f32]; 2], reference: [&[f32]; 2]) -> Option<f64> {
    let lengths = [candidate, reference].concat();
    if lengths.iter().any(|numbers| numbers.len() != candidate[0].len()) {
        return None;
    }
    let (found, expected) = (deviation(candidate), deviation(reference));
    (expected > 0.0).then(|| rounded(found / expected))
}

/// The standard deviation of the differences.
#[expect(clippy::cast_precision_loss, reason = "a number of elements")]
fn deviation([a, b]: [&[f32]; 2]) -> f64 {
    let differences = || a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let count = a.len().max(1) as f64;
    let mean = differences().sum::<f64>() / count;
    (differences().map(|d| (d - mean) * (d - mean)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_ignores_its_prompt_has_no_conditioning() {
        let (cat, dog) = ([1.0, 2.0, -3.0], [0.5, -2.0, 1.0]);
        assert_eq!(ratio([&cat, &dog], [&cat, &dog]), Some(1.0));
        assert_eq!(ratio([&cat, &cat], [&cat, &dog]), Some(0.0));
        let half = [0, 1, 2].map(|i| 0.5 * (cat[i] + dog[i]));
        assert_eq!(ratio([&cat, &half], [&cat, &dog]), Some(0.5));
        assert_eq!(ratio([&cat, &dog], [&cat, &cat]), None);
        assert_eq!(ratio([&cat, &dog[..2]], [&cat, &dog]), None);
    }
}
