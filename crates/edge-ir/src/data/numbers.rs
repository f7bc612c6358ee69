//! Bytes as the numbers that they are.

use std::borrow::Cow;

use zerocopy::FromBytes;

use super::Data;

impl Data {
    /// The bytes as `int64` numbers, for constants such as shapes and axes.
    pub fn to_i64s(&self) -> Vec<i64> {
        let bytes = self.bytes();
        let (numbers, _) = bytes.as_chunks::<8>();
        numbers.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    /// The bytes as `float32` numbers. A file is read through its handle: its pages stay out of this process's memory.
    pub fn to_f32s(&self) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(usize::try_from(self.len() / 4).unwrap_or_default());
        let read = self.stream(&mut |chunk| {
            numbers.extend_from_slice(&f32s(chunk));
            Ok(())
        });
        if read.is_err() {
            numbers.clear();
            numbers.extend_from_slice(&f32s(&self.bytes()));
        }
        numbers
    }

    /// A look at the `float32` numbers of [`Data::to_f32s`], which are not copied where they come in one chunk.
    pub fn look<T>(&self, at: impl Fn(&[f32]) -> T) -> T {
        let (mut seen, mut numbers) = (None, Vec::new());
        let read = self.stream(&mut |chunk| {
            match f32s(chunk) {
                all if chunk.len() as u64 == self.len() => seen = Some(at(&all)),
                part => numbers.extend_from_slice(&part),
            }
            Ok(())
        });
        match seen {
            Some(seen) => seen,
            None if read.is_ok() => at(&numbers),
            None => at(&f32s(&self.bytes())),
        }
    }
}

/// The numbers of these bytes, which are little-endian: where they lie, or a copy if the processor reads them otherwise.
pub(super) fn f32s(bytes: &[u8]) -> Cow<'_, [f32]> {
    match <[f32]>::ref_from_bytes(bytes) {
        Ok(numbers) if cfg!(target_endian = "little") => Cow::Borrowed(numbers),
        _ => Cow::Owned(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_the_numbers_whatever_their_chunks_and_their_place_in_memory() {
        // Less than a chunk, and more.
        for count in [5_u16, 40_000] {
            let numbers: Vec<f32> =
                (0..8 * u32::from(count)).map(|k| f32::from(u16::try_from(k % 999).unwrap())).collect();
            let data = Data::f32s(&numbers);
            assert_eq!(data.look(<[f32]>::to_vec), numbers);
            assert_eq!(data.to_f32s(), numbers);
        }
        let bytes: Vec<u8> = [0].into_iter().chain(1.5_f32.to_le_bytes()).chain((-2.0_f32).to_le_bytes()).collect();
        assert_eq!(f32s(&bytes[1..]).as_ref(), [1.5, -2.0]);
        let shifted: Vec<u8> = [0; 2].into_iter().chain(bytes).collect();
        assert_eq!(f32s(&shifted[3..]).as_ref(), [1.5, -2.0]);
    }
}
