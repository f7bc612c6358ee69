//! What a model made of one prompt: the values that its components hand on to each other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use edge_ir::Tensor;

use crate::metrics::pictures::Pixels;

/// One prompt's way through a pipeline. What a model's form does not show is not there.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// The tokens of the prompt.
    pub tokens: Option<Vec<i64>>,
    /// The text encoder's hidden states.
    pub context: Option<Tensor>,
    /// The UNet's outputs, after guidance, by step.
    pub outputs: BTreeMap<usize, Tensor>,
    /// The latents after each step, by step.
    pub latents: BTreeMap<usize, Tensor>,
    /// The picture.
    pub picture: Option<Pixels>,
}

/// The numbers of `candidate` in the reference's order: lowerings put the channels of rows `[n, rows, c]` first, as
/// `[n, c, 1, rows]`, and run both prompts as one batch, the prompt last. `None` if the shapes have nothing to do with
/// each other.
pub fn aligned(candidate: &Tensor, reference: &Tensor) -> Option<Vec<f32>> {
    aligned_to(&candidate.to_f32s(), &candidate.ty.shape, &reference.ty.shape).map(Cow::into_owned)
}

/// The same for the numbers of a tensor, and a reference of which the shape is known.
pub fn aligned_to<'n>(numbers: &'n [f32], shape: &[usize], reference: &[usize]) -> Option<Cow<'n, [f32]>> {
    let (mut numbers, mut shape) = (numbers, shape.to_vec());
    let count: usize = reference.iter().product();
    let doubled = numbers.len() == 2 * count && shape.first().is_some_and(|n| n % 2 == 0);
    if doubled {
        numbers = &numbers[count..];
        shape[0] /= 2;
    }
    if numbers.len() != count || numbers.is_empty() {
        return None;
    }
    let plain = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
    let (found, wanted) = (plain(&shape), plain(reference));
    if found == wanted {
        return Some(Cow::Borrowed(numbers));
    }
    // The last two dimensions that are not 1 are exchanged.
    let (end, start) = (wanted.len(), wanted.len().checked_sub(2)?);
    let swapped = found.len() == end && found[..start] == wanted[..start];
    if !swapped || [found[start + 1], found[start]] != wanted[start..] {
        return None;
    }
    let [rows, columns] = [found[start], found[start + 1]];
    let turned = numbers
        .chunks_exact(rows * columns)
        .flat_map(|matrix| (0..columns).flat_map(move |c| (0..rows).map(move |r| matrix[r * columns + c])));
    Some(Cow::Owned(turned.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_channels_may_change_places() {
        let rows = Tensor::f32s([1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let channels = Tensor::f32s([1, 3, 1, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(aligned(&channels, &rows), Some(rows.to_f32s()));
        let both = Tensor::f32s([2, 2, 3], &[[0.0; 6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]].concat());
        assert_eq!(aligned(&both, &rows), Some(rows.to_f32s()));
        assert_eq!(aligned(&Tensor::f32s([6], &[0.0; 6]), &rows), None);
        assert_eq!(aligned(&Tensor::f32s([1, 2], &[0.0; 2]), &rows), None);
    }
}
