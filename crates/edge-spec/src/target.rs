//! Targets: what an SDK's compiler takes, and the form in which it takes it best. One YAML file each, built in
//! (`targets/`) or named by its path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Precision, Scheme, Speed};

/// The version of target files.
pub const TARGET_SCHEMA: &str = "target/v1";

/// The files of `targets/`.
const BUILT_IN: &[(&str, &str)] = &[
    ("enn", include_str!("../../../targets/enn.yaml")),
    ("onnxruntime", include_str!("../../../targets/onnxruntime.yaml")),
    ("openvino", include_str!("../../../targets/openvino.yaml")),
    ("qnn", include_str!("../../../targets/qnn.yaml")),
    ("rknn", include_str!("../../../targets/rknn.yaml")),
];

/// What an SDK takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Always [`TARGET_SCHEMA`].
    pub schema: String,
    /// Its name; that of its file, where it is built in.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// Who writes the files that the SDK wants into a bundle; absent where none are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitter: Option<String>,
    /// The form of the graphs.
    pub graph: GraphForm,
    /// What the SDK computes in integers; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// What estimates of time follow from; there are none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Operators that the SDK takes, by ONNX's names.
    pub ops: Vec<String>,
    /// What the emitter has to know of the SDK; it alone reads and checks this.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub options: Facts,
    /// Chips and boards by name, and what the emitter has to know of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, Facts>,
    /// The device of a bundle, where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_device: Option<String>,
}

/// Facts by name.
pub type Facts = serde_json::Map<String, serde_json::Value>;

/// The form in which graphs are written. A field that is absent leaves what the importer builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphForm {
    /// ONNX opset.
    pub opset: u32,
    /// Dimensions that a tensor has at most.
    pub max_rank: usize,
    /// Linear layers.
    #[serde(default)]
    pub linear: Linear,
    /// Attention.
    #[serde(default)]
    pub attention: Attention,
    /// Rows of queries that attend at a time; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_chunk: Option<usize>,
    /// The factor on the queries.
    #[serde(default)]
    pub attention_scale: Scale,
    /// Group norms.
    #[serde(default)]
    pub group_norm: GroupNorm,
    /// Gain and shift of group norms.
    #[serde(default)]
    pub norm_affine: Affine,
    /// Layer norms.
    #[serde(default)]
    pub layer_norm: LayerNorm,
    /// GELU.
    #[serde(default)]
    pub gelu: Gelu,
    /// The gated feed-forward layers of transformers.
    #[serde(default)]
    pub geglu: Geglu,
    /// Sigmoid, and with it SiLU and quick GELU.
    #[serde(default)]
    pub sigmoid: Sigmoid,
    /// Upsampling by two.
    #[serde(default)]
    pub upsample: Upsample,
    /// Convolutions of joined tensors.
    #[serde(default)]
    pub skip_concat: SkipConcat,
    /// Token ids and timesteps.
    #[serde(default)]
    pub index: Index,
}

/// Declares a choice: its variants with their names in YAML and what they mean; the first is the default.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $(#[$first_about:meta])* $first:ident, $($(#[$more_about:meta])* $more:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $(#[$first_about])*
            #[default]
            $first,
            $($(#[$more_about])* $more,)*
        }
    };
}

choice!(
    /// How a linear layer is written.
    Linear {
        /// `Gemm` on rows.
        Gemm,
        /// `MatMul` and `Add` on rows.
        Matmul,
        /// A 1x1 `Conv` on `[n,c,1,rows]`, and everything between such layers in that layout.
        Conv1x1,
    }
);
choice!(
    /// How attention is written.
    Attention {
        /// All heads in one product of four dimensions.
        Whole,
        /// Each head by itself.
        PerHead,
    }
);
choice!(
    /// Where the factor on the queries, one over the root of a head's width, is applied.
    Scale {
        /// A `Mul` of the queries.
        Mul,
        /// In the weights of the layer that makes the queries.
        Weights,
    }
);
choice!(
    /// How a group norm is written.
    GroupNorm {
        /// `InstanceNormalization` between two `Reshape`.
        Instance,
        /// `GroupNormalization` of opset 21.
        Native,
        /// Means, differences and a root.
        Decomposed,
    }
);
choice!(
    /// How gain and shift of a channel are written.
    Affine {
        /// `Mul` and `Add`.
        MulAdd,
        /// A 1x1 `Conv` with as many groups as channels.
        Conv,
    }
);
choice!(
    /// How a layer norm is written.
    LayerNorm {
        /// `LayerNormalization` on rows.
        Native,
        /// Means, differences and a root; over the channels of `[n,c,1,rows]` where linear layers are convolutions.
        Decomposed,
    }
);
choice!(
    /// How GELU is written.
    Gelu {
        /// With `Erf`: exact.
        Erf,
        /// `Gelu` of opset 20: exact.
        Native,
        /// With `Tanh`: an approximation.
        Tanh,
        /// `x * sigmoid(1.702 x)`: an approximation.
        Sigmoid,
    }
);
choice!(
    /// How the two halves of a gated layer are made.
    Geglu {
        /// One projection, then `Split`.
        Split,
        /// Two projections.
        TwoProjections,
    }
);
choice!(
    /// How the logistic function is written.
    Sigmoid {
        /// `Sigmoid`.
        Native,
        /// `0.5 + 0.5 tanh(x/2)`: exact.
        Tanh,
    }
);
choice!(
    /// How upsampling by two is written.
    Upsample {
        /// `Resize` to the nearest.
        Resize,
        /// `Concat` of four and `DepthToSpace`.
        DepthToSpace,
    }
);
choice!(
    /// How a convolution of two joined tensors is written.
    SkipConcat {
        /// `Concat`, then `Conv`.
        Concat,
        /// Two `Conv` that are added.
        TwoConvs,
    }
);
choice!(
    /// Type of indices.
    Index {
        /// `int64`.
        Int64,
        /// `int32`.
        Int32,
    }
);

/// What can be wrong with a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No built-in target has this name.
    #[error("there is no target `{name}`, built in are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names of the built-in targets.
        known: Vec<String>,
    },
    /// The target has no device of this name.
    #[error("target `{target}` has no device `{device}`{}", devices_are(known))]
    Device {
        /// The target.
        target: String,
        /// What was asked for.
        device: String,
        /// The names of its devices.
        known: Vec<String>,
    },
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is not a target.
    #[error("`{origin}` is not a target: {reason}")]
    Invalid {
        /// The file, or the name of a built-in target.
        origin: String,
        /// What was expected and what was found.
        reason: String,
    },
}

fn devices_are(known: &[String]) -> String {
    if known.is_empty() { ": it has none".to_owned() } else { format!(", it has {}", known.join(", ")) }
}

impl Target {
    /// The target built in under this name, or read from the file, if `name` is a path: it ends in `.yaml` or `.yml`, or
    /// has a `/`.
    ///
    /// # Errors
    /// If there is none, or it is not valid.
    pub fn find(name: &str) -> Result<Self, TargetError> {
        let path = Path::new(name);
        if name.contains('/') || path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let text =
                std::fs::read_to_string(path).map_err(|source| TargetError::Io { path: path.to_owned(), source })?;
            return Self::parse(&text, name);
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text, name),
            None => Err(TargetError::Unknown { name: name.to_owned(), known: Self::names() }),
        }
    }

    /// As [`Target::find`] of the part before the last `/`, with the device that is named behind it; a target with devices
    /// has its default device otherwise. A path is a target's alone if it ends in `.yaml` or `.yml`.
    ///
    /// # Errors
    /// If there is none of either, or the target is not valid.
    pub fn find_for_device(name: &str) -> Result<(Self, Option<String>), TargetError> {
        let is_file = Path::new(name).extension().is_some_and(|e| e == "yaml" || e == "yml");
        let (target, device) = match name.rsplit_once('/') {
            Some((target, device)) if !is_file => (Self::find(target)?, Some(device.to_owned())),
            _ => (Self::find(name)?, None),
        };
        let device = device.or_else(|| target.default_device.clone());
        if let Some(device) = device.as_ref().filter(|device| !target.devices.contains_key(*device)) {
            let known = target.devices.keys().cloned().collect();
            return Err(TargetError::Device { target: target.name, device: device.clone(), known });
        }
        Ok((target, device))
    }

    /// The target as it is on one of its devices, which becomes its default: rules for other devices are gone.
    #[must_use]
    pub fn on(mut self, device: Option<String>) -> Self {
        let facts = device.as_ref().and_then(|device| self.devices.get(device));
        self.precision = self.precision.map(|precision| precision.on(facts.unwrap_or(&Facts::new())));
        self.default_device = device;
        self
    }

    /// Its name, and behind it the device that it is [on](Target::on), as [`Target::find_for_device`] takes them.
    pub fn full_name(&self) -> String {
        self.default_device.as_ref().map_or_else(|| self.name.clone(), |device| format!("{}/{device}", self.name))
    }

    /// The names of the built-in targets, in order.
    pub fn names() -> Vec<String> {
        BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Reads a target's YAML.
    ///
    /// # Errors
    /// If it is no YAML, has unknown or lacks required fields, or its facts do not agree; `origin` is named then.
    pub fn parse(text: &str, origin: &str) -> Result<Self, TargetError> {
        let invalid = |reason: String| TargetError::Invalid { origin: origin.to_owned(), reason };
        let target: Self = serde_yaml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        for rule in [schema, ops, sizes, precision, speed, devices] {
            rule(&target).map_err(invalid)?;
        }
        Ok(target)
    }

    /// Whether the SDK takes this operator.
    pub fn takes(&self, op: &str) -> bool {
        self.ops.iter().any(|known| known == op)
    }
}

fn schema(target: &Target) -> Result<(), String> {
    match target.schema.as_str() {
        TARGET_SCHEMA => Ok(()),
        other => Err(format!("field `schema` is `{other}`, supported: {TARGET_SCHEMA}")),
    }
}

fn ops(target: &Target) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match target.ops.iter().find(|op| !seen.insert(*op)) {
        Some(op) => Err(format!("field `ops` names `{op}` twice")),
        None if seen.is_empty() => Err("field `ops` is empty, expected operators".to_owned()),
        None => Ok(()),
    }
}

fn sizes(target: &Target) -> Result<(), String> {
    match (target.graph.max_rank, target.graph.query_chunk) {
        (0..=3, _) => Err(format!("field `graph.max_rank` is {}, expected 4 or more", target.graph.max_rank)),
        (_, Some(0)) => Err("field `graph.query_chunk` is 0, expected 1 or more".to_owned()),
        _ => Ok(()),
    }
}

fn devices(target: &Target) -> Result<(), String> {
    match &target.default_device {
        Some(name) if !target.devices.contains_key(name) => {
            Err(format!("field `default_device` is `{name}`, which `devices` lacks"))
        }
        None if !target.devices.is_empty() => {
            Err("field `default_device` is absent, expected one of `devices`".to_owned())
        }
        _ => Ok(()),
    }
}

fn speed(target: &Target) -> Result<(), String> {
    target.speed.as_ref().and_then(Speed::wrong).map_or(Ok(()), Err)
}

fn precision(target: &Target) -> Result<(), String> {
    let Some(precision) = &target.precision else { return Ok(()) };
    let four = precision.schemes.contains(&Scheme::W4a16);
    let is_known = |fact: &str| {
        let is_number = |device: &Facts| device.get(fact).is_some_and(serde_json::Value::is_u64);
        !target.devices.is_empty() && target.devices.values().all(is_number)
    };
    if let Some(unknown) = precision.exceptions.iter().find(|exception| !is_known(&exception.fact)) {
        let fact = &unknown.fact;
        return Err(format!("field `precision.exceptions` names `{fact}`, which is no whole number of every device"));
    }
    if let Some(bits) = precision.bad_bits() {
        return Err(format!("field `precision.multiplier_bits_16` is {bits}, expected 2 to 24"));
    }
    match precision.block {
        _ if precision.schemes.is_empty() => Err("field `precision.schemes` is empty, expected one or more".to_owned()),
        Some(size) if size < 8 => Err(format!("field `precision.block` is {size}, expected 8 or more")),
        _ if four && target.graph.opset < 21 => {
            Err(format!("field `precision.schemes` has w4a16, which opset {} cannot say: 21 can", target.graph.opset))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_yaml::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Integer;

    #[test]
    fn every_built_in_target_is_valid_and_named_as_its_file() {
        for name in Target::names() {
            let target = Target::find(&name).expect("a target");
            assert_eq!(target.name, name);
            assert!(target.ops.is_sorted(), "{name}: the operators are not in order");
            assert_eq!(Target::parse(&target.to_string(), "text").expect("its own text"), target);
        }
        assert!(Target::names().is_sorted());
    }

    #[test]
    fn a_device_is_named_behind_its_target() {
        let device = |name: &str| Target::find_for_device(name).map(|(target, device)| (target.name, device));
        let found = |target: &str, device: Option<&str>| Some((target.to_owned(), device.map(str::to_owned)));
        assert_eq!(device("qnn").ok(), found("qnn", Some("sm8650")));
        assert_eq!(device("qnn/sm8750").ok(), found("qnn", Some("sm8750")));
        assert_eq!(device("onnxruntime").ok(), found("onnxruntime", None));
        let error = |name: &str| device(name).expect_err("no device").to_string();
        assert!(error("qnn/sm1").starts_with("target `qnn` has no device `sm1`, it has sm8450, "));
        assert_eq!(error("onnxruntime/x"), "target `onnxruntime` has no device `x`: it has none");
        assert!(error("a/b.yaml").starts_with("cannot read `a/b.yaml`"));
    }

    #[test]
    fn an_older_device_has_rules_of_its_own() {
        let second = |name: &str| {
            let (target, device) = Target::find_for_device(name).expect("a device");
            let target = target.on(device);
            let precision = target.precision.expect("a precision");
            assert!(precision.exceptions.is_empty());
            assert_eq!(precision.gains["InstanceNormalization"], Integer::Uint8);
            (target.default_device, precision.matmul_second_16, precision.gains["LayerNormalization"])
        };
        let is = |device: &str, integer| (Some(device.to_owned()), Some(integer), integer);
        assert_eq!(second("qnn"), is("sm8650", Integer::Int16));
        assert_eq!(second("qnn/sm8550"), is("sm8550", Integer::Int16));
        assert_eq!(second("qnn/sm8450"), is("sm8450", Integer::Uint8));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = "schema: target/v1\nname: t\nabout: a\ngraph: {opset: 17, max_rank: 4}\nops: [Conv]\n";
        let check = |from: &str, to: &str, expect: &str| {
            let error = Target::parse(&text.replace(from, to), "t.yaml").expect_err("not a target").to_string();
            assert_eq!(error, format!("`t.yaml` is not a target: {expect}"));
        };
        check("target/v1", "target/v2", "field `schema` is `target/v2`, supported: target/v1");
        check("[Conv]", "[Conv, Add, Conv]", "field `ops` names `Conv` twice");
        check("[Conv]", "[]", "field `ops` is empty, expected operators");
        check("max_rank: 4", "max_rank: 3", "field `graph.max_rank` is 3, expected 4 or more");
        check("max_rank: 4", "max_rank: 4, query_chunk: 0", "field `graph.query_chunk` is 0, expected 1 or more");
        check("ops:", "default_device: x\nops:", "field `default_device` is `x`, which `devices` lacks");
        check("ops:", "devices: {x: {}}\nops:", "field `default_device` is absent, expected one of `devices`");
        check(
            "ops: [Conv]",
            "speed: {gmacs_per_s: 1, gb_per_s: 0, times: {w8a16: 2, w16a16: 4, float: 4}}\nops: [Conv]",
            "field `speed.gb_per_s` is 0, expected a number above 0",
        );
        let precision = |text: &str| format!("precision: {text}\nops: [Conv]");
        check("ops: [Conv]", &precision("{schemes: []}"), "field `precision.schemes` is empty, expected one or more");
        check(
            "ops: [Conv]",
            &precision("{schemes: [w8a8], block: 4}"),
            "field `precision.block` is 4, expected 8 or more",
        );
        check(
            "ops: [Conv]",
            &precision("{schemes: [w4a16]}"),
            "field `precision.schemes` has w4a16, which opset 17 cannot say: 21 can",
        );
        check(
            "ops: [Conv]",
            &precision("{schemes: [w8a16], exceptions: [{fact: arch, below: 3, matmul_second_16: int8}]}"),
            "field `precision.exceptions` names `arch`, which is no whole number of every device",
        );
        check(
            "ops: [Conv]",
            &precision("{schemes: [w8a16], multiplier_bits_16: 40}"),
            "field `precision.multiplier_bits_16` is 40, expected 2 to 24",
        );
    }
}
