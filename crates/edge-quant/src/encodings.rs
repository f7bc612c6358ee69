//! Encodings as AIMET writes them, for tools that quantize a float graph themselves: QNN's converters above all.
//!
//! The versions are those of AIMET's "quantization encoding specification". Up to 1.0.0, `x = (q + offset) * scale` for
//! unsigned `q`, so that signed integers have an offset of half their range, and a tensor that stays in float says so; 2.0.0
//! is as ONNX, and what it does not list is float.

use std::fmt;
use std::str::FromStr;

use edge_ir::encoding::limits;
use edge_ir::{DType, Encoding, Granularity};
use serde_json::{Map, Value, json};

use crate::Encoded;

/// Bits of what stays in float: the HTP has no wider arithmetic.
const FLOAT_BITS: u32 = 16;

/// The form of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Lists of encodings by tensor.
    V0_6_1,
    /// A list of tensors, with lists of scales.
    V1_0_0,
    /// As ONNX's operators say it.
    V2_0_0,
}

const VERSIONS: &[(&str, Version)] =
    &[("0.6.1", Version::V0_6_1), ("1.0.0", Version::V1_0_0), ("2.0.0", Version::V2_0_0)];

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let row = VERSIONS.iter().find(|row| row.0 == text);
        row.map(|row| row.1).ok_or_else(|| "expected 0.6.1, 1.0.0 or 2.0.0".to_owned())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VERSIONS.iter().find(|row| row.1 == *self).map_or("", |row| row.0))
    }
}

/// The content of a file of encodings.
pub fn file(encoded: &[Encoded], version: Version) -> Value {
    let name = version.to_string();
    if version == Version::V2_0_0 {
        let all: Vec<Value> = encoded.iter().filter_map(|e| Some(as_onnx(&e.tensor, e.encoding.as_ref()?))).collect();
        return json!({"version": name, "producer": "edgetool", "encodings": all});
    }
    // Biases follow from inputs and weights in these versions.
    let is_bias = |e: &Encoded| e.encoding.as_ref().is_some_and(|e| e.dtype == DType::Int32);
    let of = |is_weight: bool| encoded.iter().filter(move |e| e.is_weight == is_weight && !is_bias(e));
    if version == Version::V1_0_0 {
        let list = |is_weight| of(is_weight).map(|e| listed(&e.tensor, e.encoding.as_ref())).collect::<Vec<_>>();
        return json!({"version": name, "producer": "edgetool",
            "activation_encodings": list(false), "param_encodings": list(true)});
    }
    let map =
        |is_weight| of(is_weight).map(|e| (e.tensor.clone(), by_scale(e.encoding.as_ref()))).collect::<Map<_, _>>();
    json!({"version": name, "activation_encodings": map(false), "param_encodings": map(true)})
}

/// Bits of the integers, and what is added to their zero points to count from the least.
fn grid(encoding: &Encoding) -> (u64, i64) {
    let (low, _) = limits(encoding.dtype).unwrap_or_default();
    (encoding.dtype.bytes(8), i64::from(low))
}

/// Steps of unsigned integers from the least value to 0, negative.
fn offset(zero_point: i32, low: i64) -> i64 {
    low - i64::from(zero_point)
}

fn by_scale(encoding: Option<&Encoding>) -> Value {
    let Some(encoding) = encoding else { return json!([{"bitwidth": FLOAT_BITS, "dtype": "float"}]) };
    let (bits, low) = grid(encoding);
    let is_symmetric = if low < 0 { "True" } else { "False" };
    let entry = |(scale, zero): (&f32, &i32)| {
        let offset = offset(*zero, low);
        let steps = (1_i64 << bits) - 1;
        #[expect(clippy::cast_precision_loss, reason = "17 bits at most")]
        let value = |step: i64| f64::from(*scale) * step as f64;
        json!({"bitwidth": bits, "dtype": "int", "is_symmetric": is_symmetric, "min": value(offset),
            "max": value(offset + steps), "offset": offset, "scale": scale})
    };
    encoding.scales.iter().zip(encoding.zero_points.iter()).map(entry).collect()
}

fn listed(tensor: &str, encoding: Option<&Encoding>) -> Value {
    let Some(encoding) = encoding else {
        return json!({"name": tensor, "dtype": "FLOAT", "bw": FLOAT_BITS, "enc_type": "PER_TENSOR"});
    };
    let (bits, low) = grid(encoding);
    let offsets: Vec<i64> = encoding.zero_points.iter().map(|z| offset(*z, low)).collect();
    let (kind, block) = match encoding.granularity {
        Granularity::Tensor => ("PER_TENSOR", None),
        Granularity::Axis(_) => ("PER_CHANNEL", None),
        Granularity::Blocks { size, .. } => ("PER_BLOCK", Some(size)),
    };
    let mut entry = json!({"name": tensor, "dtype": "INT", "bw": bits, "is_sym": low < 0, "enc_type": kind,
        "scale": encoding.scales.to_vec(), "offset": offsets});
    if let Some(size) = block {
        entry["block_size"] = json!(size);
    }
    entry
}

fn as_onnx(tensor: &str, encoding: &Encoding) -> Value {
    let mut entry = json!({"name": tensor, "output_dtype": encoding.dtype.name()});
    let number = |list: Vec<Value>| if list.len() == 1 { list[0].clone() } else { Value::from(list) };
    entry["y_scale"] = number(encoding.scales.iter().map(|s| json!(s)).collect());
    if !encoding.is_symmetric() {
        entry["y_zero_point"] = number(encoding.zero_points.iter().map(|z| json!(z)).collect());
    }
    match encoding.granularity {
        Granularity::Tensor => {}
        Granularity::Axis(axis) => entry["axis"] = json!(axis),
        Granularity::Blocks { axis, size } => {
            entry["axis"] = json!(axis);
            entry["block_size"] = json!(size);
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Vec<Encoded> {
        let of =
            |tensor: &str, is_weight, encoding| Encoded { tensor: tensor.into(), is_weight, encoding: Some(encoding) };
        vec![
            of("x", false, Encoding::per_tensor(DType::Uint16, 0.5, 100)),
            of("w", true, Encoding::symmetric(DType::Int8, Granularity::Axis(0), vec![0.5, 2.0])),
            of("b", true, Encoding::symmetric(DType::Int32, Granularity::Axis(0), vec![0.25, 1.0])),
            Encoded { tensor: "y".into(), is_weight: false, encoding: None },
        ]
    }

    #[test]
    fn every_version_says_the_same() {
        let old = file(&encoded(), Version::V0_6_1);
        assert_eq!(
            old["activation_encodings"]["x"],
            json!([{"bitwidth": 16, "dtype": "int", "is_symmetric": "False", "min": -50.0, "max": 32717.5, "offset": -100, "scale": 0.5}])
        );
        assert_eq!(old["param_encodings"]["w"][1]["offset"], -128);
        assert_eq!(old["param_encodings"]["w"][1]["max"], 254.0);
        assert!(old["param_encodings"].get("b").is_none());
        assert_eq!(old["activation_encodings"]["y"], json!([{"bitwidth": 16, "dtype": "float"}]));
        let listed = file(&encoded(), Version::V1_0_0);
        assert_eq!(
            listed["param_encodings"],
            json!([{"name": "w", "dtype": "INT", "bw": 8, "is_sym": true, "enc_type": "PER_CHANNEL", "scale": [0.5, 2.0], "offset": [-128, -128]}])
        );
        assert_eq!(
            listed["activation_encodings"][1],
            json!({"name": "y", "dtype": "FLOAT", "bw": 16, "enc_type": "PER_TENSOR"})
        );
        let new = file(&encoded(), Version::V2_0_0);
        assert_eq!(
            new["encodings"][0],
            json!({"name": "x", "output_dtype": "uint16", "y_scale": 0.5, "y_zero_point": 100})
        );
        assert_eq!(new["encodings"][2]["output_dtype"], "int32");
        assert_eq!(new["encodings"].as_array().map(Vec::len), Some(3));
    }
}
