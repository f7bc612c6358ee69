//! What an SDK's compiler made of a bundle's graphs.

use serde::{Deserialize, Serialize};

/// The device's own files in a bundle, and what is known of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compiled {
    /// The version of the SDK that compiled, as the vendor writes it. What loads the files has to be of this version.
    pub sdk: String,
    /// The programs around it, with their versions.
    pub tools: Vec<String>,
    /// The graphs that were compiled, in the order of use.
    pub graphs: Vec<CompiledGraph>,
}

/// A compiled graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledGraph {
    /// The component that it was made of.
    pub component: String,
    /// The ONNX file that names the binary and stands in the place of the component's file.
    pub file: String,
    /// The binary; graphs that share their weights have one together.
    pub binary: String,
    /// Operators in it, all on the device.
    pub operators: usize,
    /// Those of them that compute in floating point.
    pub float_operators: usize,
    /// What the SDK's emulator gave for the golden inputs; empty where it was not asked.
    pub emulated: Vec<EmulatedOutput>,
}

/// How near an emulated output is to the golden one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmulatedOutput {
    /// The port's name.
    pub name: String,
    /// The least signal-to-noise ratio of all golden runs, in decibels; at most 200.
    pub sqnr_db: f32,
}
