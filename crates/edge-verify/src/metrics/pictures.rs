//! Two pictures of one size, as 8-bit pixels: what a person can see.

use super::{decibels, rounded};

/// Side of the window over which SSIM takes its means: that of scikit-image.
const WINDOW: usize = 7;
/// The constants of Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004).
const K1: f64 = 0.01;
const K2: f64 = 0.03;
/// The greatest value of a pixel.
const PEAK: f64 = 255.0;

/// A picture in red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The values, row by row, the three of a pixel together.
    pub rgb: Vec<u8>,
}

/// A picture of the candidate against the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// `10 log10(255^2 / mean (c - r)^2)`, in dB.
    pub psnr_db: f64,
    /// Structural similarity: the mean over the colours; 1 for equal pictures.
    pub ssim: f64,
    /// SSIMULACRA 2, which follows what people see: 100 for equal pictures, 90 where nobody sees a difference, below 0
    /// where the pictures have little in common. `None` below [`PERCEIVED`] pixels: it looks at six sizes.
    pub ssimulacra2: Option<f64>,
    /// The greatest difference of two values.
    pub max_error: u8,
}

/// Compares; `None` if the sizes differ.
pub fn compare(candidate: &Pixels, reference: &Pixels) -> Option<Difference> {
    let Pixels { width, height, rgb } = reference;
    let sizes = (candidate.width, candidate.height, candidate.rgb.len());
    if sizes != (*width, *height, rgb.len()) || rgb.len() != 3 * width * height {
        return None;
    }
    let errors = || candidate.rgb.iter().zip(rgb).map(|(c, r)| c.abs_diff(*r));
    let squares: f64 = errors().map(|e| f64::from(e) * f64::from(e)).sum();
    let plane = |pixels: &Pixels, colour: usize| -> Vec<f64> {
        pixels.rgb.iter().skip(colour).step_by(3).map(|v| f64::from(*v)).collect()
    };
    let ssim = |colour: usize| ssim(&plane(candidate, colour), &plane(reference, colour), *width, *height);
    Some(Difference {
        psnr_db: decibels(PEAK * PEAK * count(rgb.len()), squares),
        ssim: rounded((0..3).map(ssim).sum::<f64>() / 3.0),
        ssimulacra2: ssimulacra2(candidate, reference),
        max_error: errors().max().unwrap_or_default(),
    })
}

/// Height and width from which on a picture has an SSIMULACRA 2: the last of six sizes, each half of the one before, is
/// what the measure's window needs.
pub const PERCEIVED: usize = 128;

/// <https://github.com/cloudinary/ssimulacra2>, by the crate of that name.
fn ssimulacra2(candidate: &Pixels, reference: &Pixels) -> Option<f64> {
    if reference.width.min(reference.height) < PERCEIVED {
        return None;
    }
    // The transfer function of sRGB, IEC 61966-2-1.
    let linear: [f32; 256] = std::array::from_fn(|value| {
        let v = count(value) / PEAK;
        let v = if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
        #[expect(clippy::cast_possible_truncation, reason = "from 0 to 1")]
        let v = v as f32;
        v
    });
    let light = |pixels: &Pixels| {
        let light = pixels.rgb.as_chunks::<3>().0.iter().map(|rgb| rgb.map(|v| linear[usize::from(v)]));
        ssimulacra2::LinearRgb::new(light.collect(), pixels.width, pixels.height).ok()
    };
    ssimulacra2::compute_frame_ssimulacra2(light(reference)?, light(candidate)?).ok().map(rounded)
}

/// Where two pictures of one size differ: black where they are equal, `gain` times as bright as the difference else.
pub fn difference_map(candidate: &Pixels, reference: &Pixels, gain: u8) -> Pixels {
    let pairs = candidate.rgb.iter().zip(&reference.rgb);
    let rgb = pairs.map(|(c, r)| c.abs_diff(*r).saturating_mul(gain)).collect();
    Pixels { rgb, ..reference.clone() }
}

/// Structural similarity of two planes, over all windows that lie within.
fn ssim(a: &[f64], b: &[f64], width: usize, height: usize) -> f64 {
    let side = WINDOW.min(width).min(height).max(1);
    let (c1, c2) = ((K1 * PEAK).powi(2), (K2 * PEAK).powi(2));
    let size = count(side * side);
    // Of a sample: what scikit-image does unless it is told otherwise.
    let sample = if side > 1 { size / (size - 1.0) } else { 1.0 };
    let (mut total, mut windows) = (0.0, 0.0);
    for top in 0..=height - side {
        for left in 0..=width - side {
            let [mut x, mut y, mut xx, mut yy, mut xy] = [0.0; 5];
            for row in top..top + side {
                let range = row * width + left..row * width + left + side;
                for (p, q) in a[range.clone()].iter().zip(&b[range]) {
                    x += p;
                    y += q;
                    xx += p * p;
                    yy += q * q;
                    xy += p * q;
                }
            }
            let (x, y) = (x / size, y / size);
            let [var_x, var_y, cov] = [xx / size - x * x, yy / size - y * y, xy / size - x * y].map(|v| v * sample);
            total += (2.0 * x * y + c1) * (2.0 * cov + c2) / ((x * x + y * y + c1) * (var_x + var_y + c2));
            windows += 1.0;
        }
    }
    total / windows
}

#[expect(clippy::cast_precision_loss, reason = "a number of pixels")]
fn count(of: usize) -> f64 {
    of as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(value: impl Fn(usize, usize) -> u8) -> Pixels {
        let values = (0..16).flat_map(|y| (0..16).map(move |x| (x, y)));
        Pixels { width: 16, height: 16, rgb: values.flat_map(|(x, y)| [value(x, y); 3]).collect() }
    }

    fn gradient(x: usize, y: usize) -> u8 {
        u8::try_from(8 * x + 4 * y).expect("small")
    }

    #[test]
    fn equal_pictures_are_as_good_as_can_be() {
        let a = picture(gradient);
        let found = compare(&a, &a).expect("one size");
        assert_eq!(found, Difference { psnr_db: 200.0, ssim: 1.0, ssimulacra2: None, max_error: 0 });
    }

    #[test]
    fn a_difference_of_one_in_all_pixels_is_48_decibels() {
        let (a, b) = (picture(gradient), picture(|x, y| gradient(x, y) + 1));
        let found = compare(&b, &a).expect("one size");
        assert!((found.psnr_db - 48.1308).abs() < 1e-3, "{found:?}");
        assert!(found.ssim > 0.999 && found.ssim < 1.0, "{found:?}");
        assert_eq!(found.max_error, 1);
        assert_eq!(difference_map(&b, &a, 16).rgb, [16; 768]);
        assert_eq!(compare(&Pixels { width: 8, height: 32, ..a.clone() }, &a), None);
    }

    #[test]
    fn large_pictures_are_looked_at_as_people_do() {
        let large = |value: &dyn Fn(usize, usize) -> usize| {
            let values = (0..PERCEIVED).flat_map(|y| (0..PERCEIVED).map(move |x| (x, y)));
            let rgb = values.flat_map(|(x, y)| [u8::try_from(value(x, y) % 256).expect("a byte"); 3]).collect();
            Pixels { width: PERCEIVED, height: PERCEIVED, rgb }
        };
        let plain = large(&|x, y| x / 2 + (y / 16) * 12);
        let seen = |other: &Pixels| compare(other, &plain).expect("one size").ssimulacra2.expect("large enough");
        assert_eq!(seen(&plain).to_bits(), 100.0_f64.to_bits());
        let (near, far) = (seen(&large(&|x, y| x / 2 + (y / 16) * 12 + x % 2)), seen(&large(&|x, y| x + y)));
        assert!(near > 70.0 && near < 100.0 && far < 30.0, "{near} {far}");
    }

    /// What numpy makes of the definition, in `f64`.
    #[test]
    fn structure_counts() {
        let (a, b) = (picture(gradient), picture(|x, y| gradient(15 - x, y)));
        let found = compare(&b, &a).expect("one size");
        assert!((found.ssim - NUMPY).abs() < 1e-5, "{found:?}");
    }

    const NUMPY: f64 = -0.411_476;
}
