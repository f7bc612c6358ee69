//! Writes a checked graph as an ONNX file, with its weights in it, beside it, or where they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use rayon::prelude::*;

use super::encode::{Place, encode};
use super::proto::{ModelProto, TensorProto};
use super::weights::{self, Scan};
use super::{MODEL_FILE, OPSETS};
use crate::ops::quantize::since;
use crate::{Checked, Data, Error, Graph, Value};

/// The file of the weights in `copy` mode, as exporters name it.
const DATA_FILE: &str = "model.onnx_data";

/// protobuf's limit on a message, which one file cannot pass.
const MESSAGE_LIMIT: u64 = (1 << 31) - 1;

/// Field numbers of onnx.proto, for the parts that are streamed.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// Where the weights of a written model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightMode {
    /// In the checkpoint's own files, linked beside the model.
    Link,
    /// In `model.onnx_data`.
    Copy,
    /// In `model.onnx`.
    Inline,
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// ONNX opset, one of [`OPSETS`].
    pub opset: u32,
    /// Where the weights go.
    pub weights: WeightMode,
}

/// A weight with numbers that are NaN or infinite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The tensor's name in the graph.
    pub tensor: String,
    /// How many of its numbers.
    pub count: u64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where the weights went: not what was asked for if links are impossible there.
    pub weights: WeightMode,
    /// Weights that hold NaN or infinities.
    pub non_finite: Vec<NonFinite>,
}

/// Writes `dir/model.onnx` and what belongs to it. `dir` exists and is the caller's to remove if this fails.
///
/// # Errors
/// If the disk refuses, the opset lacks an operator, or an inline model would pass protobuf's 2 GiB.
pub fn write(graph: &Checked<Graph>, dir: &Path, options: WriteOptions) -> Result<Written, Error> {
    write_all(&[(MODEL_FILE, graph)], dir, options)
}

/// Writes graphs under their file names into one folder. Weights of the same name are one, in one file for all graphs.
///
/// # Errors
/// As [`write()`], and if two weights have the same name and are not the same.
pub fn write_all(graphs: &[(&str, &Checked<Graph>)], dir: &Path, options: WriteOptions) -> Result<Written, Error> {
    let mut versions = Vec::new();
    for (name, graph) in graphs {
        versions.push(ir_version(graph, &dir.join(name), options.opset)?);
    }
    if options.weights == WeightMode::Inline {
        let mut written = Written { weights: WeightMode::Inline, non_finite: Vec::new() };
        for ((name, graph), version) in graphs.iter().zip(versions) {
            let found = write_inline(graph, &dir.join(name), options.opset, version)?;
            written
                .non_finite
                .extend(found.into_iter().filter(|f| !written.non_finite.contains(f)).collect::<Vec<_>>());
        }
        return Ok(written);
    }
    let weights = weights::of(graphs.iter().map(|(_, graph)| &***graph)).map_err(|name| Error::Write {
        path: dir.to_owned(),
        reason: format!("the graphs have different weights of the name `{name}`"),
    })?;
    let linked = if options.weights == WeightMode::Link { weights::link(&weights, dir)? } else { None };
    let (places, mode, non_finite) = if let Some(places) = linked {
        (places, WeightMode::Link, weights::scan(&weights)?)
    } else {
        let (places, size) = weights::lay_out(&weights, DATA_FILE);
        let found = weights::copy(&weights, &dir.join(DATA_FILE), &places, size)?;
        (places, WeightMode::Copy, found)
    };
    graphs.par_iter().zip(versions).try_for_each(|((name, graph), version)| {
        let (path, bytes) = (dir.join(name), encode_with(graph, options.opset, version, &places));
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))
    })?;
    Ok(Written { weights: mode, non_finite })
}

/// The model as one ONNX file in memory, its constants in it.
///
/// # Errors
/// If the opset is unknown or lacks an operator.
pub fn encode_inline(graph: &Checked<Graph>, opset: u32) -> Result<Vec<u8>, Error> {
    let ir_version = ir_version(graph, Path::new(MODEL_FILE), opset)?;
    Ok(encode_with(graph, opset, ir_version, &BTreeMap::new()))
}

fn encode_with(graph: &Graph, opset: u32, ir_version: i64, places: &BTreeMap<String, Place>) -> Vec<u8> {
    let place = |value: &Value, _: &Data| places.get(&value.name).cloned().unwrap_or(Place::Here);
    let (mut model, tensors) = encode(graph, opset, ir_version, &place);
    if let Some(graph) = &mut model.graph {
        graph.initializer = tensors;
    }
    model.encode_to_vec()
}

fn ir_version(graph: &Graph, path: &Path, opset: u32) -> Result<i64, Error> {
    let refuse = |reason| Error::Write { path: path.to_owned(), reason };
    let row = OPSETS.iter().find(|(known, _)| *known == opset);
    let (_, version) =
        row.ok_or_else(|| refuse(format!("opset {opset} is not supported, expected one of {OPSETS:?}")))?;
    match graph.nodes.iter().find(|n| since(graph, n) > opset && n.op.domain.is_empty()) {
        Some(node) => {
            let (op, since) = (node.op.name, since(graph, node));
            Err(refuse(format!("node `{}` uses {op}, which opset {opset} lacks (it needs {since})", node.name)))
        }
        None => Ok(*version),
    }
}

/// The graph is one length-delimited field, so its length is computed first; then the weights stream into it.
fn write_inline(graph: &Graph, path: &Path, opset: u32, ir_version: i64) -> Result<Vec<NonFinite>, Error> {
    let place = |_: &Value, data: &Data| if weights::is_outside(data) { Place::Later } else { Place::Here };
    let (model, tensors) = encode(graph, opset, ir_version, &place);
    let (envelope, body) = split(model);
    let parts: Vec<_> = tensors.iter().zip(graph.initializers()).map(|(t, (_, v, d))| Part::new(t, v, d)).collect();
    let length = body.len() as u64 + parts.iter().map(Part::len).sum::<u64>();
    if length + envelope.len() as u64 > MESSAGE_LIMIT {
        let reason =
            format!("{length} bytes do not fit into one protobuf message of 2 GiB; use `--weights copy` or `link`");
        return Err(Error::Write { path: path.to_owned(), reason });
    }
    let file = File::create(path).map_err(Error::io("write", path))?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(Error::io("write", path));
    let mut head = envelope;
    encode_key(MODEL_GRAPH, WireType::LengthDelimited, &mut head);
    encode_varint(length, &mut head);
    put(&head)?;
    put(&body)?;
    let mut non_finite = Vec::new();
    for part in parts {
        non_finite.extend(part.write(&mut put)?);
    }
    out.flush().map_err(Error::io("write", path))?;
    Ok(non_finite)
}

/// The bytes of the model around its graph, and of the graph without initializers.
fn split(mut model: ModelProto) -> (Vec<u8>, Vec<u8>) {
    let graph = model.graph.take().unwrap_or_default();
    (model.encode_to_vec(), graph.encode_to_vec())
}

/// One initializer of an inline model: the encoded message, and bytes that follow it as its `raw_data`.
struct Part<'a> {
    head: Vec<u8>,
    value: &'a Value,
    streamed: Option<&'a Data>,
}

impl<'a> Part<'a> {
    fn new(tensor: &TensorProto, value: &'a Value, data: &'a Data) -> Self {
        Self { head: tensor.encode_to_vec(), value, streamed: tensor.raw_data.is_none().then_some(data) }
    }

    fn message_len(&self) -> u64 {
        let raw =
            self.streamed.map_or(0, |d| key_len(TENSOR_RAW_DATA) as u64 + encoded_len_varint(d.len()) as u64 + d.len());
        self.head.len() as u64 + raw
    }

    fn len(&self) -> u64 {
        let message = self.message_len();
        key_len(GRAPH_INITIALIZER) as u64 + encoded_len_varint(message) as u64 + message
    }

    fn write(&self, put: &mut impl FnMut(&[u8]) -> Result<(), Error>) -> Result<Option<NonFinite>, Error> {
        let mut head = Vec::new();
        encode_key(GRAPH_INITIALIZER, WireType::LengthDelimited, &mut head);
        encode_varint(self.message_len(), &mut head);
        head.extend_from_slice(&self.head);
        let Some(data) = self.streamed else { return put(&head).map(|()| None) };
        encode_key(TENSOR_RAW_DATA, WireType::LengthDelimited, &mut head);
        encode_varint(data.len(), &mut head);
        put(&head)?;
        let mut scan = Scan { dtype: self.value.ty.dtype, count: 0 };
        data.stream(&mut |chunk| {
            scan.look(chunk);
            put(chunk)
        })?;
        Ok((scan.count > 0).then(|| NonFinite { tensor: self.value.name.clone(), count: scan.count }))
    }
}
