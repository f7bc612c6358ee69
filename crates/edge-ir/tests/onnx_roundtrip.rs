//! What is written as ONNX is read back the same, in every weight mode and opset; damaged files are refused or read,
//! without a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use edge_ir::onnx::{MODEL_FILE, OPSETS, WeightMode, WriteOptions, encode_inline, read, write};
use edge_ir::{Attribute, Builder, Checked, DType, Data, Error, Graph, MappedFile, TensorType, ValueId, dump, stats};
use proptest::prelude::*;
use tempfile::TempDir;

const MODES: [WeightMode; 3] = [WeightMode::Copy, WeightMode::Link, WeightMode::Inline];

/// Where a weight's bytes come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Memory,
    File,
    /// 16 bits in the file, cast on the way.
    CastFile,
    /// 16 bits in the file, and a Cast node behind them.
    Half,
}

/// One layer; each takes and gives `[n,c,h,w]` in float32.
#[derive(Clone, Debug)]
enum Layer {
    Unary(&'static str),
    Bias(Source),
    Conv { out: usize, kernel: usize, stride: usize, dilation: usize, bias: bool, weights: Source },
    Gemm { out: usize, transposed: bool, weights: Source },
    MatMul { out: usize, weights: Source },
    Transpose,
    Softmax(i64),
    Norm { layer: bool, epsilon: f32, weights: Source },
    SplitAndJoin,
    Resize { by_scales: bool },
    Clip { both: bool },
    Gather(Vec<i64>),
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![Just(Source::Memory), Just(Source::File), Just(Source::CastFile), Just(Source::Half)]
}

fn layer() -> impl Strategy<Value = Layer> {
    let unary = prop::sample::select(vec!["Sigmoid", "Tanh", "Relu", "Erf", "Sin", "Cos"]);
    prop_oneof![
        unary.prop_map(Layer::Unary),
        source().prop_map(Layer::Bias),
        (1..5_usize, 1..4_usize, 1..3_usize, 1..3_usize, any::<bool>(), source()).prop_map(
            |(out, kernel, stride, dilation, bias, weights)| Layer::Conv {
                out,
                kernel,
                stride,
                dilation,
                bias,
                weights
            }
        ),
        (1..6_usize, any::<bool>(), source()).prop_map(|(out, transposed, weights)| Layer::Gemm {
            out,
            transposed,
            weights
        }),
        (1..6_usize, source()).prop_map(|(out, weights)| Layer::MatMul { out, weights }),
        Just(Layer::Transpose),
        (-4..4_i64).prop_map(Layer::Softmax),
        (any::<bool>(), 1e-7..1e-2_f32, source()).prop_map(|(layer, epsilon, weights)| Layer::Norm {
            layer,
            epsilon,
            weights
        }),
        Just(Layer::SplitAndJoin),
        any::<bool>().prop_map(|by_scales| Layer::Resize { by_scales }),
        any::<bool>().prop_map(|both| Layer::Clip { both }),
        prop::collection::vec(0..3_i64, 1..4).prop_map(Layer::Gather),
    ]
}

/// A graph in the making and the file that its weights are in.
struct Net {
    b: Builder,
    file: Arc<MappedFile>,
    taken: u64,
    count: usize,
}

impl Net {
    fn new(dir: &Path) -> Self {
        let path = dir.join("checkpoint.bin");
        let bytes: Vec<u8> = (0..1_u32 << 18).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        fs::write(&path, bytes).unwrap();
        Self { b: Builder::new("random"), file: MappedFile::open(&path).unwrap(), taken: 3, count: 0 }
    }

    fn name(&mut self, op: &str) -> String {
        self.count += 1;
        format!("layers.{}.{}/{op}", self.count / 3, self.count % 3)
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attributes: &[(&'static str, Attribute)]) -> ValueId {
        let name = self.name(op);
        self.b.node(op, &name, inputs, attributes).unwrap()
    }

    fn range(&mut self, bytes: u64) -> Data {
        let start = self.taken % (self.file.len() - bytes);
        self.taken += bytes + 1;
        Data::mapped(Arc::clone(&self.file), start, bytes).unwrap()
    }

    fn weight(&mut self, source: Source, shape: &[usize]) -> ValueId {
        let ty = |dtype| TensorType::new(dtype, shape);
        let (full, half) = (ty(DType::Float32), ty(DType::Float16));
        let name = self.name("weight");
        match source {
            Source::Memory => {
                let data = Data::owned(self.range(full.bytes()).bytes().into_owned());
                self.b.weight(&name, full, data)
            }
            Source::File => {
                let data = self.range(full.bytes());
                self.b.weight(&name, full, data)
            }
            Source::CastFile => {
                let data = self.range(half.bytes()).cast(DType::Float16, DType::Float32).unwrap();
                self.b.weight(&name, full, data)
            }
            Source::Half => {
                let data = self.range(half.bytes());
                let stored = self.b.weight(&name, half, data);
                self.node("Cast", &[stored], &[("to", Attribute::Int(i64::from(DType::Float32.onnx())))])
            }
        }
    }

    fn shape(&self, x: ValueId) -> [usize; 4] {
        self.b.shape(x).try_into().unwrap()
    }

    fn reshape(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        let sizes: Vec<i64> = shape.iter().map(|d| i64::try_from(*d).unwrap()).collect();
        let sizes = self.b.ints(&sizes);
        self.node("Reshape", &[x, sizes], &[])
    }

    fn layer(&mut self, x: ValueId, layer: &Layer) -> ValueId {
        let [n, c, h, w] = self.shape(x);
        match layer {
            Layer::Unary(op) => self.node(op, &[x], &[]),
            Layer::Bias(source) => {
                let bias = self.weight(*source, &[c, 1, 1]);
                self.node("Add", &[x, bias], &[])
            }
            Layer::Conv { out, kernel, stride, dilation, bias, weights } => {
                let mut inputs = vec![x, self.weight(*weights, &[*out, c, *kernel, *kernel])];
                if *bias {
                    inputs.push(self.weight(*weights, &[*out]));
                }
                let two = |v: usize| Attribute::Ints(vec![i64::try_from(v).unwrap(); 2]);
                let attributes = [
                    ("kernel_shape", two(*kernel)),
                    ("strides", two(*stride)),
                    ("pads", Attribute::Ints(vec![4, 3, 4, 3])),
                    ("dilations", two(*dilation)),
                    ("group", Attribute::Int(1)),
                ];
                self.node("Conv", &inputs, &attributes)
            }
            Layer::Gemm { out, transposed, weights } => {
                let rows = self.reshape(x, &[n * c * h, w]);
                let weight = self.weight(*weights, &if *transposed { [*out, w] } else { [w, *out] });
                let bias = self.weight(Source::Memory, &[*out]);
                let attributes = [("transB", Attribute::Int((*transposed).into())), ("alpha", Attribute::Float(0.5))];
                let y = self.node("Gemm", &[rows, weight, bias], &attributes);
                self.reshape(y, &[n, c, h, *out])
            }
            Layer::MatMul { out, weights } => {
                let weight = self.weight(*weights, &[w, *out]);
                self.node("MatMul", &[x, weight], &[])
            }
            Layer::Transpose => self.node("Transpose", &[x], &[("perm", Attribute::Ints(vec![0, 2, 3, 1]))]),
            Layer::Softmax(axis) => self.node("Softmax", &[x], &[("axis", Attribute::Int(*axis))]),
            Layer::Norm { layer, epsilon, weights } => {
                let (op, size) = if *layer { ("LayerNormalization", w) } else { ("InstanceNormalization", c) };
                let [scale, bias] = [self.weight(*weights, &[size]), self.weight(*weights, &[size])];
                self.node(op, &[x, scale, bias], &[("epsilon", Attribute::Float(*epsilon))])
            }
            Layer::SplitAndJoin => {
                let x = self.node("Concat", &[x, x, x], &[("axis", Attribute::Int(-1))]);
                let sizes = [w, 2 * w].map(|d| i64::try_from(d).unwrap());
                let sizes = self.b.ints(&sizes);
                let name = self.name("Split");
                let inputs = vec![Some(x), Some(sizes)];
                self.b.nodes("Split", &name, inputs, &[("axis", Attribute::Int(3))]).unwrap()[0]
            }
            Layer::Resize { by_scales } => self.resize(x, *by_scales),
            Layer::Clip { both } => {
                let low = self.b.floats("low", &[], &[-1.0]);
                let inputs = if *both { vec![Some(x), Some(low), Some(low)] } else { vec![Some(x), None, Some(low)] };
                let name = self.name("Clip");
                self.b.nodes("Clip", &name, inputs, &[]).unwrap()[0]
            }
            Layer::Gather(indices) => {
                let x = self.node("Concat", &[x, x, x], &[("axis", Attribute::Int(1))]);
                let indices = self.b.ints(indices);
                self.node("Gather", &[x, indices], &[("axis", Attribute::Int(1))])
            }
        }
    }

    fn resize(&mut self, x: ValueId, by_scales: bool) -> ValueId {
        let [n, c, h, w] = self.shape(x);
        let word = |text: &str| Attribute::String(text.to_owned());
        let attributes = [
            ("mode", word("nearest")),
            ("coordinate_transformation_mode", word("asymmetric")),
            ("nearest_mode", word("floor")),
        ];
        let name = self.name("Resize");
        let inputs = if by_scales {
            let scales = self.b.floats("scales", &[4], &[1.0, 1.0, 2.0, 1.0]);
            vec![Some(x), None, Some(scales)]
        } else {
            let sizes = [n, c, h + 1, w].map(|d| i64::try_from(d).unwrap());
            vec![Some(x), None, None, Some(self.b.ints(&sizes))]
        };
        self.b.nodes("Resize", &name, inputs, &attributes).unwrap()[0]
    }
}

fn build(dir: &Path, layers: &[Layer]) -> Checked<Graph> {
    let mut net = Net::new(dir);
    let mut x = net.b.input("sample", DType::Float32, &[1, 2, 3, 2]);
    for layer in layers {
        // Keeps sizes small, whatever is drawn.
        if net.shape(x).iter().product::<usize>() < 4000 {
            x = net.layer(x, layer);
        }
    }
    let last = net.node("Relu", &[x], &[]);
    net.b.output("out sample", last);
    net.b.finish().unwrap()
}

/// Everything of a graph: its text and the bytes of its constants.
fn content(graph: &Graph) -> (String, BTreeMap<String, Vec<u8>>) {
    let bytes = graph.initializers().map(|(_, v, d)| (v.name.clone(), d.bytes().into_owned())).collect();
    (dump(graph), bytes)
}

/// Constants in files with NaN or infinities, and how many.
fn non_finite(graph: &Graph) -> Vec<(String, u64)> {
    let wrong = |value: &edge_ir::Value, data: &Data| {
        let data = match value.ty.dtype {
            DType::Float16 => data.clone().cast(DType::Float16, DType::Float32).unwrap(),
            _ => data.clone(),
        };
        data.to_f32s().iter().filter(|v| !v.is_finite()).count() as u64
    };
    let streamed = graph.initializers().filter(|(_, _, d)| d.is_streamed());
    streamed.map(|(_, v, d)| (v.name.clone(), wrong(v, d))).filter(|(_, count)| *count > 0).collect()
}

fn written(graph: &Checked<Graph>, weights: WeightMode, opset: u32) -> (TempDir, edge_ir::onnx::Written) {
    let dir = tempfile::tempdir().unwrap();
    let written = write(graph, dir.path(), WriteOptions { opset, weights }).unwrap();
    (dir, written)
}

/// One change to a file.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), 1..40_usize).prop_map(|(at, n)| Damage::Remove(at, n)),
        1 => (place(), 1..40_usize).prop_map(|(at, n)| Damage::Repeat(at, n)),
    ]
}

fn spoil(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let size = bytes.len();
    let range = |at: &prop::sample::Index, n: usize| at.index(size)..(at.index(size) + n).min(size);
    match damage {
        Damage::Set(at, byte) => bytes[at.index(size)] = *byte,
        Damage::Flip(at, bit) => bytes[at.index(size)] ^= 1 << bit,
        Damage::Cut(at) => bytes.truncate(at.index(size)),
        Damage::Remove(at, n) => drop(bytes.drain(range(at, *n))),
        Damage::Repeat(at, n) => {
            let part = bytes[range(at, *n)].to_vec();
            bytes.splice(at.index(size)..at.index(size), part);
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn what_is_written_is_read_back(layers in prop::collection::vec(layer(), 0..8)) {
        let checkpoint = tempfile::tempdir().unwrap();
        let graph = build(checkpoint.path(), &layers);
        let expected = content(&graph);
        for (opset, _) in OPSETS {
            for mode in MODES {
                let (dir, written) = written(&graph, mode, *opset);
                let casts = graph.initializers().any(|(_, _, d)| d.is_streamed() && d.location().is_none());
                let used = if casts && mode == WeightMode::Link { WeightMode::Copy } else { mode };
                prop_assert_eq!(written.weights, used);
                let found: Vec<_> = written.non_finite.into_iter().map(|f| (f.tensor, f.count)).collect();
                prop_assert_eq!(found, non_finite(&graph));
                let again = read(&dir.path().join(MODEL_FILE)).unwrap();
                prop_assert_eq!(&content(&again), &expected);
                // What was read can be written: the second file is the first.
                let inline = encode_inline(&graph, *opset).unwrap();
                prop_assert_eq!(encode_inline(&again, *opset).unwrap(), inline);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn damaged_files_do_not_panic(
        layers in prop::collection::vec(layer(), 1..4),
        inline in any::<bool>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let checkpoint = tempfile::tempdir().unwrap();
        let graph = build(checkpoint.path(), &layers);
        let mode = if inline { WeightMode::Inline } else { WeightMode::Copy };
        let (dir, _) = written(&graph, mode, 17);
        let path = dir.path().join(MODEL_FILE);
        let mut bytes = fs::read(&path).unwrap();
        for damage in &damages {
            spoil(&mut bytes, damage);
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(graph) = read(&path) {
            // What passes the checker is fit for use.
            let _ = (content(&graph), stats(&graph));
            let target = tempfile::tempdir().unwrap();
            let _ = write(&graph, target.path(), WriteOptions { opset: 21, weights: WeightMode::Copy });
        }
    }
}

#[test]
fn foreign_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(MODEL_FILE);
    for bytes in [&b""[..], b"\0", b"PK\x03\x04", b"{}", &[0xff; 64]] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(read(&path), Err(Error::Onnx { .. })), "{bytes:?}");
    }
    assert!(matches!(read(&dir.path().join("nothing")), Err(Error::Io { .. })));
}

#[test]
fn sizes_beyond_64_bits_are_not_sound() {
    let mut b = Builder::new("g");
    let x = b.input("x", DType::Float32, &[1]);
    b.weight("w", TensorType::new(DType::Float32, [1 << 32, 1 << 32]), Data::f32s(&[]));
    b.output("out", x);
    assert!(matches!(b.finish(), Err(Error::Rule { rule: 9, .. })));
}

#[test]
fn a_convolution_of_absurd_size_is_refused() {
    let conv = |kernel: usize, attributes: [(&'static str, Attribute); 4]| {
        let mut b = Builder::new("g");
        let x = b.input("x", DType::Float32, &[1, 1, 4, 4]);
        let weight = TensorType::new(DType::Float32, [1, 1, kernel, kernel]);
        let data = Data::f32s(&vec![0.0; kernel * kernel]);
        let w = b.weight("w", weight, data);
        b.node("Conv", "conv", &[x, w], &attributes).map(|_| ())
    };
    let attributes = |kernel: i64, pad: i64, dilation: i64| {
        let ints = |v: Vec<i64>| Attribute::Ints(v);
        [
            ("kernel_shape", ints(vec![kernel, kernel])),
            ("strides", ints(vec![1, 1])),
            ("pads", ints(vec![pad, 0, pad, 0])),
            ("dilations", ints(vec![dilation, dilation])),
        ]
    };
    assert!(conv(3, attributes(3, 1, 1)).is_ok());
    for (kernel, pad, dilation) in [(0, 1, 1), (3, i64::MAX, 1), (3, 1, i64::MAX)] {
        let refused = conv(usize::try_from(kernel).unwrap(), attributes(kernel, pad, dilation));
        assert!(matches!(refused, Err(Error::Node { .. })), "{kernel} {pad} {dilation}: {refused:?}");
    }
}

#[test]
fn weights_do_not_leave_the_folder() {
    let checkpoint = tempfile::tempdir().unwrap();
    let graph = build(checkpoint.path(), &[Layer::Bias(Source::File)]);
    let (dir, _) = written(&graph, WeightMode::Copy, 17);
    let path = dir.path().join(MODEL_FILE);
    let bytes = fs::read(&path).unwrap();
    let name = b"model.onnx_data";
    let start = bytes.windows(name.len()).position(|part| part == name).unwrap();
    for outside in [&b"../checkpoint.b"[..], b"/etc/../checkpo", b"./../../etc/abc", b"nothing.onnx_da"] {
        let mut changed = bytes.clone();
        changed[start..start + name.len()].copy_from_slice(outside);
        fs::write(&path, &changed).unwrap();
        let refused = read(&path);
        assert!(matches!(refused, Err(Error::Onnx { .. } | Error::Io { .. })), "{refused:?}");
    }
}
