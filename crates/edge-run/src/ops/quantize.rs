//! `EdgeFakeQuant`, `EdgeQuantize`, `EdgeDequantize`: quantization as ONNX defines it, bit by bit.
//!
//! tract's own operators multiply by the reciprocal of a scale, which moves a number in a thousand by a step, and have
//! neither 16 nor 4 bits nor blocks.

use edge_ir::encoding::{pack, unpack};
use edge_ir::{DType, Encoding, Granularity};
use rayon::prelude::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Built, Kernel, built, numbers};
use crate::fuse::held;
use crate::kernels::elementwise::{Steps, fake_quantize};

/// Elements of a task.
const TASK: usize = 16 * 1024;

/// `DequantizeLinear(QuantizeLinear(x))` with one scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FakeQuant(Steps);

/// Reads a node: `scale`, and the least and the greatest step, `low` and `high`.
pub(super) fn build_pair(_context: &ParsingContext, node: &NodeProto) -> Built {
    let [scale, low, high] = [node.get_attr("scale")?, node.get_attr("low")?, node.get_attr("high")?];
    built(FakeQuant(Steps { scale, low, high }))
}

/// What tract's reader calls for the standard operators: those with constant scales are gone by then.
pub(super) fn refuse(_context: &ParsingContext, node: &NodeProto) -> Built {
    bail!("node `{}` ({}) has scales or zero points that are not constants", node.name, node.op_type)
}

impl Kernel for FakeQuant {
    const NAME: &'static str = "EdgeFakeQuant";
    const INPUTS: (usize, usize) = (1, 1);

    fn shape(&self, inputs: &[&[usize]]) -> TractResult<TVec<usize>> {
        Ok(inputs[0].into())
    }

    fn run(&self, mut inputs: TVec<TValue>) -> TractResult<Tensor> {
        let mut tensor = inputs.remove(0).into_tensor();
        fake_quantize(self.0, tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(tensor)
    }
}

/// `QuantizeLinear` or `DequantizeLinear` with its scales and zero points, as `float32` lists, for inputs 1 and 2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Linear {
    quantizes: bool,
    dtype: DType,
    granularity: Granularity,
}

/// Reads a node of `EdgeQuantize`.
pub(super) fn build_quantize(_context: &ParsingContext, node: &NodeProto) -> Built {
    Linear::build(node, true)
}

/// Reads a node of `EdgeDequantize`.
pub(super) fn build_dequantize(_context: &ParsingContext, node: &NodeProto) -> Built {
    Linear::build(node, false)
}

impl Linear {
    fn build(node: &NodeProto, quantizes: bool) -> Built {
        let int = |name| node.get_attr::<i64>(name);
        let dtype = i32::try_from(int("dtype")?).ok().and_then(DType::from_onnx).context("`dtype` is no type")?;
        let granularity = match (usize::try_from(int("axis")?), usize::try_from(int("block_size")?)?) {
            (Err(_), _) => Granularity::Tensor,
            (Ok(axis), 0) => Granularity::Axis(axis),
            (Ok(axis), size) => Granularity::Blocks { axis, size },
        };
        Ok((expand(Self { quantizes, dtype, granularity }), vec![]))
    }

    /// The type of the tensor of integers.
    fn integers(&self) -> TractResult<DatumType> {
        Ok(match held(self.dtype) {
            DType::Int8 => DatumType::I8,
            DType::Uint8 => DatumType::U8,
            DType::Int16 => DatumType::I16,
            DType::Uint16 => DatumType::U16,
            DType::Int32 => DatumType::I32,
            other => bail!("`dtype`: {other} does not stand for numbers"),
        })
    }

    fn types(&self) -> TractResult<(DatumType, DatumType)> {
        let (float, integer) = (DatumType::F32, self.integers()?);
        Ok(if self.quantizes { (float, integer) } else { (integer, float) })
    }

    fn encoding(&self, inputs: &[TValue]) -> TractResult<Encoding> {
        #[expect(clippy::cast_possible_truncation, reason = "integers of 16 bits")]
        let zero_points = numbers(&inputs[2])?.iter().map(|z| *z as i32).collect();
        let scales = numbers(&inputs[1])?.into();
        Ok(Encoding { dtype: self.dtype, granularity: self.granularity, scales, zero_points })
    }

    fn run(&self, inputs: &[TValue]) -> TractResult<Tensor> {
        let (shape, code) = (inputs[0].shape(), self.encoding(inputs)?);
        let mut output = Tensor::zero_dt(self.types()?.1, shape)?;
        let (held, mut plain) = (held(self.dtype), output.try_as_plain_ram_mut()?);
        let size = usize::try_from(held.bytes(1))?;
        if self.quantizes {
            let parts = plain.as_bytes_mut().par_chunks_mut(TASK * size).zip(numbers(&inputs[0])?.par_chunks(TASK));
            parts.enumerate().for_each(|(index, (out, x))| {
                let (mut q, mut bytes) = (vec![0; x.len()], Vec::with_capacity(out.len()));
                code.quantize(shape, index * TASK, x, &mut q);
                pack(&q, held, &mut bytes);
                out.copy_from_slice(&bytes);
            });
        } else {
            let input = inputs[0].try_as_plain_ram()?;
            let parts = plain.as_slice_mut::<f32>()?.par_chunks_mut(TASK).zip(input.as_bytes().par_chunks(TASK * size));
            parts.enumerate().for_each(|(index, (x, bytes))| {
                code.dequantize(shape, index * TASK, &unpack(bytes, held, x.len()), x);
            });
        }
        Ok(output)
    }
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        if self.quantizes { "EdgeQuantize".into() } else { "EdgeDequantize".into() }
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 3)?;
        check_output_arity(outputs, 1)?;
        let (from, to) = self.types()?;
        solver.equals(&inputs[0].datum_type, from)?;
        solver.equals(&outputs[0].datum_type, to)?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        Expansion::name(self)
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.run(&inputs)?.into_tvalue()))
    }

    op_out_of_plan!();
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let (from, to) = self.types()?;
        ensure!(inputs[0].datum_type == from, "expected {from:?}, got {:?}", inputs[0].datum_type);
        Ok(tvec!(to.fact(inputs[0].shape.clone())))
    }

    as_op!();
}
