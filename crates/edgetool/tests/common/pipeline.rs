//! Whole runs of the program, against the golden ones.

use std::fs;

use super::tensors::{self, Tensor, Tensors, relative_l2};
use super::{PROMPT, Sandbox, fixtures, read_png};

/// Relative L2 error of a whole run: the errors of text encoder, UNet steps and decoder one after the other.
pub(crate) const PIPELINE: f64 = 1e-4;
/// The part of an 8-bit picture's values that may be rounded to the neighbour.
const ROUNDED: f64 = 0.001;

/// A tensor of the golden file and what the program made of it.
pub(crate) type Pair<'a> = (&'a str, Tensor, &'a Tensor);

pub(crate) fn golden(fixture: &str) -> Tensors {
    tensors::read(&fixtures().join(fixture).join("golden.safetensors"))
}

pub(crate) fn named<const N: usize>(tensors: [(&str, Tensor); N]) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

#[track_caller]
pub(crate) fn assert_within(tolerance: f64, pairs: &[Pair<'_>]) {
    for (name, found, expected) in pairs {
        let error = relative_l2(found, expected);
        assert!(error <= tolerance, "{name}: relative error {error:e}, expected {tolerance:e} at most");
    }
}

/// Runs the golden pipeline and returns its tensors and its picture's bytes.
#[track_caller]
pub(crate) fn draw(sandbox: &Sandbox, model: &str, options: &[&str]) -> (Tensors, Vec<u8>) {
    let args = ["run", model, "--prompt", PROMPT, "--quiet", "-o", "p.png", "--save-tensors", "p.safetensors"];
    let ran = sandbox.ok(&[&args, options].concat());
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    (tensors::read(&sandbox.path("p.safetensors")), fs::read(sandbox.path("p.png")).unwrap())
}

pub(crate) fn write_noise(sandbox: &Sandbox, golden: &Tensors) {
    let noise = named([("latent", golden["pipe.latent"].clone()), ("noise", golden["pipe.noise"].clone())]);
    tensors::write(&sandbox.path("noise.safetensors"), &noise);
}

/// The golden runs: steps and guidance.
pub(crate) fn golden_runs(golden: &Tensors) -> Vec<(&str, &str)> {
    let ends = golden.keys().filter_map(|key| key.strip_prefix("pipe.s")?.strip_suffix(".denoised"));
    let found: Vec<_> = ends.filter_map(|end| end.split_once(".g")).collect();
    assert!(["1", "2", "4"].iter().all(|n| found.iter().any(|(steps, _)| steps == n)), "{found:?}");
    found
}

/// 8-bit values `[1,3,h,w]` against the pixels of a picture.
#[track_caller]
pub(crate) fn assert_same_picture(sandbox: &Sandbox, expected: &Tensor) {
    let png = read_png(&sandbox.path("p.png"));
    let [_, _, height, width] = expected.shape[..] else { panic!("{:?}", expected.shape) };
    assert_eq!((png.height as usize, png.width as usize), (height, width));
    let plane = height * width;
    let difference = |i: usize| png.rgb[i].abs_diff(expected.bytes[i % 3 * plane + i / 3]);
    let differences: Vec<u8> = (0..3 * plane).map(difference).filter(|d| *d > 0).collect();
    assert!(differences.iter().all(|d| *d == 1), "{differences:?}");
    let share = f64::from(u32::try_from(differences.len()).unwrap()) / f64::from(u32::try_from(3 * plane).unwrap());
    assert!(share <= ROUNDED, "{} of {} values differ", differences.len(), 3 * plane);
}
