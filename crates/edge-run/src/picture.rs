//! Pictures: the decoder's output as pixels, and pixels as a PNG file that says how they were made.
//!
//! The pixels are those of diffusers' `VaeImageProcessor` (`image_processor.py`: `denormalize`,
//! `numpy_to_pil`), value for value. The file depends on the pixels and the settings alone.

use std::io::Write;

use edge_ir::{DType, Tensor};
use png::text_metadata::{ITXtChunk, TEXtChunk};

/// A picture in red, green and blue, row by row from the top.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The values, 0 to 1, before they are rounded, one colour after the other, `[3, height, width]`:
    /// diffusers' `output_type="pt"`.
    pub values: Vec<f32>,
    /// The values, 0 to 255, the three of a pixel together.
    pub rgb: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The decoder's output is not a batch of pictures in three colours.
    #[error("decoder output: expected `[n, 3, height, width]` with {expected} values, got {shape:?} with {got}")]
    Shape {
        /// The shape given.
        shape: [usize; 4],
        /// The number of values that a shape of these sizes with three channels has.
        expected: usize,
        /// The number of values given.
        got: usize,
    },
    /// The decoder's output has a value that is no colour.
    #[error("decoder output: expected numbers, got NaN at index {index}")]
    NotANumber {
        /// The place of the first such value.
        index: usize,
    },
    /// A setting cannot be stored: PNG ends texts at a zero character.
    #[error("setting `{key}`: expected text without a zero character")]
    ZeroInSetting {
        /// The setting's name.
        key: String,
    },
    /// The PNG file could not be written.
    #[error("cannot write the PNG file")]
    Png(#[from] png::EncodingError),
}

/// Turns the decoder's output, `[n, 3, height, width]` with values from -1 to 1, into pictures.
///
/// Values beyond -1 and 1 are cut off; halves are rounded to even. Fails on another shape and on NaN.
pub fn from_decoder(output: &[f32], shape: [usize; 4]) -> Result<Vec<Picture>, PictureError> {
    let values: Vec<f32> = output.iter().map(|x| (x * 0.5 + 0.5).clamp(0.0, 1.0)).collect();
    from_values(&values, shape)
}

/// Turns the image that a folded decoder gives into pictures: `float32` from 0 to 1 or `uint8`, `[n, 3, height, width]`
/// or, with `channels_last`, `[n, height, width, 3]`.
///
/// Fails on another shape and on NaN.
pub fn from_image(image: &Tensor, channels_last: bool) -> Result<Vec<Picture>, PictureError> {
    let values = match image.ty.dtype {
        DType::Uint8 => image.bytes.iter().map(|v| f32::from(*v) / 255.0).collect(),
        _ => image.to_f32s(),
    };
    let found = || image.ty.shape.iter().copied().chain([0; 4]);
    let mut shape = [0; 4];
    shape.iter_mut().zip(found()).for_each(|(to, from)| *to = from);
    if !channels_last {
        return from_values(&values, shape);
    }
    let [count, height, width, channels] = shape;
    let plane = height * width;
    let place = |i: usize| (i / (plane * channels) * plane + i % plane) * channels + i / plane % channels;
    let planes: Vec<f32> = (0..values.len()).map(|i| values.get(place(i)).copied().unwrap_or(f32::NAN)).collect();
    from_values(&planes, [count, channels, height, width])
}

/// Values from 0 to 1.
fn from_values(output: &[f32], shape: [usize; 4]) -> Result<Vec<Picture>, PictureError> {
    let [count, channels, height, width] = shape;
    let sizes = [count, 3, height, width];
    let expected = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).unwrap_or(usize::MAX);
    let refused = || PictureError::Shape { shape, expected, got: output.len() };
    if channels != 3 || output.len() != expected {
        return Err(refused());
    }
    let (Ok(wide), Ok(high)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(refused());
    };
    if let Some(index) = output.iter().position(|value| value.is_nan()) {
        return Err(PictureError::NotANumber { index });
    }
    let pixels = height * width;
    let pictures = output.chunks_exact((3 * pixels).max(1)).map(|planes| {
        let values = planes.to_vec();
        let rgb = interleave(&values, pixels);
        Picture { width: wide, height: high, values, rgb }
    });
    Ok(pictures.collect())
}

/// Writes an 8-bit RGB PNG to `writer`, with `settings` as text chunks in the order given.
///
/// A setting in ASCII becomes a `tEXt` chunk, any other an `iTXt` chunk. Keys have 1 to 79 Latin-1
/// characters. The bytes depend on nothing but the arguments: there is no date in them.
pub fn write_png(writer: impl Write, picture: &Picture, settings: &[(String, String)]) -> Result<(), PictureError> {
    let mut encoder = png::Encoder::new(writer, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let mut file = encoder.write_header()?;
    for (key, value) in settings {
        if key.contains('\0') || value.contains('\0') {
            return Err(PictureError::ZeroInSetting { key: key.replace('\0', "\\0") });
        }
        if value.is_ascii() {
            file.write_text_chunk(&TEXtChunk::new(key, value))?;
        } else {
            file.write_text_chunk(&ITXtChunk::new(key, value))?;
        }
    }
    file.write_image_data(&picture.rgb)?;
    Ok(file.finish()?)
}

/// From one plane per colour to three bytes per pixel.
fn interleave(values: &[f32], pixels: usize) -> Vec<u8> {
    let order = (0..pixels).flat_map(|pixel| (0..3).map(move |colour| colour * pixels + pixel));
    order.map(|index| to_byte(values[index])).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is between 0 and 255")]
fn to_byte(value: f32) -> u8 {
    (value * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{Picture, PictureError, from_decoder, write_png};

    fn written(settings: &[(&str, &str)]) -> Result<Vec<u8>, PictureError> {
        let rgb: Vec<u8> = (0..48).collect();
        let picture = Picture { width: 4, height: 4, values: Vec::new(), rgb };
        let settings: Vec<_> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut bytes = Vec::new();
        write_png(&mut bytes, &picture, &settings).map(|()| bytes)
    }

    fn chunks(png: &[u8]) -> Vec<String> {
        let mut rest = &png[8..];
        let mut names = Vec::new();
        while let [a, b, c, d, name @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).expect("a length");
            names.push(String::from_utf8_lossy(&name[..4]).into_owned());
            rest = &name[4 + length + 4..];
        }
        names
    }

    #[test]
    fn values_are_scaled_cut_and_rounded_to_even() {
        let output = [-1.0, 1.0, -7.0, 7.0, 0.0, 0.5, f32::INFINITY, f32::NEG_INFINITY, -0.5, 0.25, 0.1, -0.1];
        let pictures = from_decoder(&output, [1, 3, 2, 2]).expect("a picture");
        assert_eq!(pictures.len(), 1);
        assert_eq!(pictures[0].rgb, [0, 128, 64, 255, 191, 159, 0, 255, 140, 255, 0, 115]);
        assert_eq!(pictures[0].values[..6], [0.0, 1.0, 0.0, 1.0, 0.5, 0.75]);
        assert_eq!([0.5_f32 / 255.0, 1.5 / 255.0, 2.5 / 255.0].map(super::to_byte), [0, 2, 2]);
    }

    #[test]
    fn pictures_of_a_batch_are_apart() {
        let output: Vec<f32> = [-1.0, 1.0].iter().flat_map(|value| [*value; 3]).collect();
        let pictures = from_decoder(&output, [2, 3, 1, 1]).expect("two pictures");
        assert_eq!(pictures.iter().map(|p| p.rgb.clone()).collect::<Vec<_>>(), [[0; 3], [255; 3]]);
    }

    #[test]
    fn other_shapes_and_nan_are_refused() {
        let refuse = |output: &[f32], shape| from_decoder(output, shape).expect_err("refused").to_string();
        assert_eq!(
            refuse(&[0.0; 4], [1, 4, 1, 1]),
            "decoder output: expected `[n, 3, height, width]` with 3 values, got [1, 4, 1, 1] with 4"
        );
        assert_eq!(
            refuse(&[0.0; 5], [1, 3, 1, 2]),
            "decoder output: expected `[n, 3, height, width]` with 6 values, got [1, 3, 1, 2] with 5"
        );
        assert_eq!(refuse(&[0.0, f32::NAN, 0.0], [1, 3, 1, 1]), "decoder output: expected numbers, got NaN at index 1");
    }

    #[test]
    fn settings_are_kept_in_order() {
        let settings = [("prompt", "a cat"), ("negative", "猫"), ("seed", "42")];
        let bytes = written(&settings).expect("a file");
        assert_eq!(chunks(&bytes), ["IHDR", "tEXt", "iTXt", "tEXt", "IDAT", "IEND"]);
        let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().expect("a header");
        let mut pixels = vec![0; 48];
        reader.next_frame(&mut pixels).expect("pixels");
        assert_eq!(pixels, (0..48).collect::<Vec<u8>>());
        let info = reader.info();
        assert_eq!((info.width, info.height, info.color_type), (4, 4, png::ColorType::Rgb));
        let plain: Vec<_> = info.uncompressed_latin1_text.iter().map(|t| (&*t.keyword, &*t.text)).collect();
        assert_eq!(plain, [settings[0], settings[2]]);
        assert_eq!(info.utf8_text[0].get_text().expect("text"), "猫");
    }

    #[test]
    fn the_same_picture_gives_the_same_bytes() {
        assert_eq!(written(&[("seed", "1")]).expect("a file"), written(&[("seed", "1")]).expect("a file"));
    }

    #[test]
    fn bad_settings_are_refused() {
        let error = written(&[("prompt", "a\0b")]).expect_err("refused");
        assert_eq!(error.to_string(), "setting `prompt`: expected text without a zero character");
        assert!(matches!(written(&[("", "x")]), Err(PictureError::Png(_))));
    }
}
