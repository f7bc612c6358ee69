//! A part of a tensor's elements that stands for all of them, so that the layers of a whole model can be compared in one
//! run of each: what is kept of a layer does not grow with it.

use crate::drawing::aligned_to;
use crate::metrics::tensors::{FLOAT16_MAX, sqnr_db};
use crate::metrics::{MOST_DB, rounded};
use crate::profile::Measure;

/// Elements that are kept of a tensor; smaller ones are kept whole.
const MOST: usize = 1 << 12;
/// Bars of a histogram.
const BARS: usize = 48;

/// Elements of one tensor of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The tensor's shape.
    pub shape: Vec<usize>,
    /// The elements.
    pub numbers: Vec<f32>,
}

/// How often the values of two tensors fall into each part of what they span together.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Where the first bar begins, and the last one ends.
    pub span: [f32; 2],
    /// The reference's counts.
    pub reference: Vec<u32>,
    /// The candidate's counts.
    pub candidate: Vec<u32>,
}

impl Sample {
    /// Of these elements of a tensor.
    pub fn of(numbers: &[f32], shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), numbers: picked(numbers) }
    }

    /// The candidate's tensor against this one. `None` if the shapes have nothing to do with each other.
    pub fn compare(&self, numbers: &[f32], shape: &[usize]) -> Option<Measure> {
        let candidate = picked(&aligned_to(numbers, shape, &self.shape)?);
        let greatest = numbers.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        Some(Measure {
            sqnr_db: sqnr_db(&candidate, &self.numbers).unwrap_or(-MOST_DB),
            float16_use: rounded(f64::from(greatest) / FLOAT16_MAX),
            histogram: histogram(&self.numbers, &candidate),
        })
    }
}

/// The elements that stand for all: one of each stretch of equal length, at places that follow no pattern of the shape.
fn picked(numbers: &[f32]) -> Vec<f32> {
    let len = numbers.len();
    if len <= MOST {
        return numbers.to_vec();
    }
    let start = |index: usize| index * len / MOST;
    let place = |index: usize| {
        // Knuth's multiplicative hash.
        let hash = u32::try_from(index).unwrap_or_default().wrapping_mul(2_654_435_761) >> 8;
        start(index) + usize::try_from(hash).unwrap_or_default() % (start(index + 1) - start(index))
    };
    (0..MOST).map(|index| numbers[place(index)]).collect()
}

/// `None` where all values are one.
fn histogram(reference: &[f32], candidate: &[f32]) -> Option<Histogram> {
    let both = || reference.iter().chain(candidate).copied().filter(|v| v.is_finite());
    let span = [both().fold(f32::INFINITY, f32::min), both().fold(f32::NEG_INFINITY, f32::max)];
    let [low, high] = span.map(f64::from);
    if low >= high {
        return None;
    }
    let count = |numbers: &[f32]| {
        let mut counts = vec![0_u32; BARS];
        for v in numbers.iter().filter(|v| v.is_finite()) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0 and at most 48")]
            let bar = ((f64::from(*v) - low) / (high - low) * 48.0) as usize;
            counts[bar.min(BARS - 1)] += 1;
        }
        counts
    };
    Some(Histogram { span, reference: count(reference), candidate: count(candidate) })
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "small numbers, and numbers that are given back")]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_of_a_large_tensor_what_the_whole_says() {
        let shape = [1, 20, 64, 64];
        let len = shape.iter().product::<usize>();
        let reference: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect();
        let close = |candidate: &[f32]| {
            let found = Sample::of(&reference, &shape).compare(candidate, &shape).expect("one shape");
            let whole = sqnr_db(candidate, &reference).expect("one length");
            assert!((found.sqnr_db - whole).abs() < 0.5, "{} dB of {whole}", found.sqnr_db);
        };
        close(&reference.iter().enumerate().map(|(i, v)| v + (i % 17) as f32 / 1000.0).collect::<Vec<_>>());
        // One channel, and one column of all channels: what a stride of the shape's own would miss.
        close(&reference.iter().enumerate().map(|(i, v)| if i / 4096 == 3 { -v } else { *v }).collect::<Vec<_>>());
        close(&reference.iter().enumerate().map(|(i, v)| if i % 64 == 5 { 0.0 } else { *v }).collect::<Vec<_>>());
        assert_eq!(Sample::of(&reference, &shape).compare(&reference[1..], &[len - 1]), None);
    }

    #[test]
    fn values_are_counted_in_what_both_span() {
        let found =
            Sample::of(&[0.0, 10.5, 20.5, 48.0], &[4]).compare(&[0.5, 10.5, 20.5, 20.5], &[4]).expect("one shape");
        let histogram = found.histogram.expect("a span");
        assert_eq!(histogram.span, [0.0, 48.0]);
        assert_eq!((histogram.reference[0], histogram.reference[10], histogram.reference[47]), (1, 1, 1));
        assert_eq!((histogram.candidate[0], histogram.candidate[20], histogram.candidate[47]), (1, 2, 0));
        assert_eq!(Sample::of(&[1.0], &[1]).compare(&[1.0], &[1]).expect("one shape").histogram, None);
    }
}
