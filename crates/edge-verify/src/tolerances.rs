//! What is asked of a model unless a file says otherwise: a limit for each measure and kind of arithmetic, and why.

use edge_spec::Tolerance;

use crate::Precision;

/// A measure's limits.
struct Row {
    name: &'static str,
    /// Whether the limits are the least values that pass; else they are the greatest.
    least: bool,
    /// For `Float32`, `Approximate`, `Float16`, `W8`, `W8A16`, `W4A16`, `W8A8`.
    limits: [f64; 7],
    reason: &'static str,
}

/// All measures that are limited. Those of floats say that a model is the same: on the fixtures, sums in another order and
/// folded constants leave 105 dB and more, and one weight of the wrong sign less than 60. Those of integers are what a trained
/// model of few steps keeps in every form, less some dB (`tests/verify/limits.py`); its recipe may ask for more.
const ROWS: &[Row] = &[
    Row { name: "token_mismatches", least: false, limits: [0.0; 7], reason: "a prompt has one right row of tokens" },
    Row {
        name: "context_sqnr_db",
        least: true,
        limits: [90.0, 50.0, 50.0, 25.0, 25.0, 12.0, 12.0],
        reason: "the UNet reads these hidden states in every step",
    },
    Row {
        name: "unet_output_sqnr_db",
        least: true,
        limits: [85.0, 50.0, 45.0, 30.0, 30.0, 20.0, 20.0],
        reason: "at the first step the scheduler multiplies the UNet's error by about 15, less where velocities are predicted",
    },
    Row {
        name: "later_unet_output_sqnr_db",
        least: true,
        limits: [80.0, 50.0, 40.0, 18.0, 18.0, 10.0, 10.0],
        reason: "a later step reads a latent that has the errors of the steps before it",
    },
    Row {
        name: "latent_sqnr_db",
        least: true,
        limits: [75.0, 50.0, 35.0, 18.0, 18.0, 10.0, 10.0],
        reason: "the UNet's error after the scheduler's step; a wrong coefficient leaves less",
    },
    Row {
        name: "conditioning_deviation",
        least: false,
        limits: [0.001, 0.005, 0.01, 0.03, 0.03, 0.15, 0.15],
        reason: "the prompt must move the UNet's output as far as in the reference; one that is ignored has 1, and noise adds to small influences",
    },
    Row {
        name: "picture_psnr_db",
        least: true,
        limits: [60.0, 50.0, 40.0, 28.0, 28.0, 20.0, 20.0],
        reason: "a float model draws the same pixels but for roundings; below 30 dB differences are seen side by side",
    },
    Row {
        name: "picture_ssim",
        least: true,
        limits: [0.999, 0.99, 0.98, 0.9, 0.9, 0.85, 0.85],
        reason: "structure is what a picture shows",
    },
    Row {
        name: "picture_ssimulacra2",
        least: true,
        limits: [95.0, 90.0, 80.0, f64::MAX, f64::MAX, f64::MAX, f64::MAX],
        reason: "a float model draws what nobody can tell apart, which is 90; of integers it says how much another picture it is, not how good",
    },
    Row {
        name: "float16_use",
        least: false,
        limits: [f64::MAX, f64::MAX, 1.0, f64::MAX, f64::MAX, f64::MAX, f64::MAX],
        reason: "float16 holds nothing above 65504",
    },
    Row {
        name: "saturated_share",
        least: false,
        limits: [f64::MAX, f64::MAX, f64::MAX, f64::MAX, 0.01, 0.01, 0.3],
        reason: "a prompt may leave a range somewhere by some percent, and ranges of 8 bits are chosen to cut more",
    },
    Row {
        name: "layer_sqnr_db",
        least: true,
        limits: [80.0, 55.0, 45.0, 15.0, 15.0, 6.0, 6.0],
        reason: "below this a layer's output is not the reference's: where `--bisect` looks for a culprit",
    },
    Row {
        name: "executors_sqnr_db",
        least: true,
        limits: [90.0, 90.0, 90.0, 90.0, 45.0, 45.0, 25.0],
        reason: "two executors differ by sums in another order, after which a value in integers may be one more or less",
    },
    Row {
        name: "executors_picture_psnr_db",
        least: true,
        limits: [60.0, 60.0, 60.0, 60.0, 35.0, 35.0, 25.0],
        reason: "a whole drawing on the other executor, with its own differences passed on",
    },
    Row {
        name: "prompt_accuracy_loss",
        least: false,
        limits: [0.005, 0.005, 0.005, 0.005, 0.005, 0.015, 0.01],
        reason: "pictures must show what their prompts ask for as often as the reference's do",
    },
];

/// The limits that are in force.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    given: Vec<Tolerance>,
}

impl Limits {
    /// The built-in ones, and these in their place; of several that fit, the first.
    pub fn new(given: Vec<Tolerance>) -> Self {
        Self { given }
    }

    /// The names of all measures that are limited.
    pub fn names() -> Vec<&'static str> {
        ROWS.iter().map(|row| row.name).collect()
    }

    /// The limit of a measure for a kind of arithmetic. An unknown measure has none.
    pub fn get(&self, name: &str, precision: Precision) -> Tolerance {
        let speaks = |t: &&Tolerance| {
            t.name == name && (t.precisions.is_empty() || t.precisions.iter().any(|p| p == precision.name()))
        };
        if let Some(tolerance) = self.given.iter().find(speaks) {
            return tolerance.clone();
        }
        let row = ROWS.iter().find(|row| row.name == name);
        let limit = row.map(|row| row.limits[precision as usize]).filter(|limit| *limit < f64::MAX);
        let least = row.is_some_and(|row| row.least);
        Tolerance {
            name: name.into(),
            least: limit.filter(|_| least),
            most: limit.filter(|_| !least),
            precisions: Vec::new(),
            reason: row.map_or("", |row| row.reason).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_place_of_a_built_in_limit() {
        let given = |least: f64, precisions: &[&str]| Tolerance {
            name: "picture_ssim".into(),
            least: Some(least),
            most: None,
            precisions: precisions.iter().map(|name| (*name).to_owned()).collect(),
            reason: "a sketch".into(),
        };
        let (coarse, all) = (given(0.5, &["w8a8", "w4a16"]), given(0.8, &[]));
        let limits = Limits::new(vec![coarse.clone(), all.clone()]);
        assert_eq!(limits.get("picture_ssim", Precision::W8A8), coarse);
        assert_eq!(limits.get("picture_ssim", Precision::W8A16), all);
        assert_eq!(limits.get("picture_psnr_db", Precision::W8A16).least, Some(28.0));
        assert_eq!(limits.get("conditioning_deviation", Precision::W8A8).most, Some(0.15));
        assert_eq!(limits.get("float16_use", Precision::Float32).most, None);
    }

    #[test]
    fn the_document_has_all_limits() {
        let document = include_str!("../../../docs/verify.md");
        let table = document.lines().skip_while(|line| !line.starts_with("| measure |")).skip(2);
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let found: Vec<Vec<String>> = table.take_while(|line| line.starts_with('|')).map(cells).collect();
        assert_eq!(found.len(), ROWS.len());
        for row in ROWS {
            let sign = if row.least { '≥' } else { '≤' };
            let show = |v: &f64| if *v < f64::MAX { format!("{sign} {v}") } else { String::new() };
            let line = found.iter().find(|cells| cells[1] == format!("`{}`", row.name)).expect(row.name);
            assert_eq!(line[3..10], row.limits.iter().map(show).collect::<Vec<_>>(), "{}", row.name);
        }
    }

    #[test]
    fn coarser_arithmetic_is_asked_for_no_more() {
        for row in ROWS {
            let [finest, rest @ ..] = row.limits;
            let given = rest.iter().filter(|v| **v < f64::MAX);
            let bounded = given.copied().all(|v| if row.least { v <= finest } else { v >= finest });
            assert!(bounded || finest.to_bits() == f64::MAX.to_bits(), "{}", row.name);
        }
    }
}
