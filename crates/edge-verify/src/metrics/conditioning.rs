//! Conditioning: how much the prompt moves the UNet's answer. A model whose pictures ignore the prompt has lost it, and
//! no comparison of one picture shows that.

use super::rounded;

/// A pair of prompts counts that moves the reference at least this part of what another pair does. What moves it less, as
/// words that it was never taught, says more of a candidate's noise than of its heed.
const COUNTS: f64 = 0.1;

/// The standard deviation of the difference of a model's answers to two prompts on the same noise: the prompts'
/// influence. `None` if the lengths differ.
#[expect(clippy::cast_precision_loss, reason = "a number of elements")]
pub fn influence(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let differences = || a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let count = a.len().max(1) as f64;
    let mean = differences().sum::<f64>() / count;
    Some((differences().map(|d| (d - mean) * (d - mean)).sum::<f64>() / count).sqrt())
}

/// `std(c1 - c2) / std(r1 - r2)` of a candidate's and a reference's answers to two prompts on the same noise: 1 where
/// the prompt has the same influence, 0 where the candidate ignores it. `None` if the lengths differ, or the reference
/// itself does not heed the prompt.
pub fn ratio(candidate: [&[f32]; 2], reference: [&[f32]; 2]) -> Option<f64> {
    let [candidate, reference] = [candidate, reference].map(|[a, b]| influence(a, b));
    ratios(&[[candidate?, reference?]])[0]
}

/// The same for each pair of prompts, of its [influences](influence) in candidate and reference. `None` for a pair that
/// does not count.
pub fn ratios(influences: &[[f64; 2]]) -> Vec<Option<f64>> {
    let most = influences.iter().fold(0.0_f64, |most, [_, reference]| most.max(*reference));
    let ratio = |[candidate, reference]: &[f64; 2]| {
        (*reference > 0.0 && *reference >= COUNTS * most).then(|| rounded(candidate / reference))
    };
    influences.iter().map(ratio).collect()
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
        assert_eq!(ratio([&cat, &dog], [&cat, &dog[..2]]), None);
    }

    #[test]
    fn a_pair_that_hardly_moves_the_reference_does_not_count() {
        assert_eq!(ratios(&[[0.2, 0.02], [0.4, 0.4], [0.1, 0.05]]), [None, Some(1.0), Some(2.0)]);
        assert_eq!(ratios(&[[0.2, 0.02]]), [Some(10.0)]);
    }
}
