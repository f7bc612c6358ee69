#!/usr/bin/env python3
"""Writes crates/edge-run/tests/data/quantize_cases.safetensors: what onnxruntime makes of QuantizeLinear and
DequantizeLinear, for every type, shape of scale, tie and saturation.

    make_quantize_cases.py [--seed N] [--out FILE]

A case is named `TYPE.GRANULARITY.NUMBER`, where GRANULARITY is `tensor`, `axisA` or `blocksAxS`, and has the tensors `x`,
`scale`, `zero` (int32), `q` (int32: the integers of x) and `back` (the numbers of q). Cases of int32, which is only
dequantized, have no `x`. `--seed` makes other cases for a property test.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from safetensors.numpy import save_file

REPO = Path(__file__).resolve().parents[2]
LIMITS = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767),
          "uint16": (0, 65535)}
CODES = {"int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8,
         "int16": TensorProto.INT16, "uint16": TensorProto.UINT16, "int32": TensorProto.INT32}
SHAPE = (3, 5, 7)
GRANULARITIES = [("tensor", None, 0), ("axis0", 0, 0), ("axis1", 1, 0), ("axis2", 2, 0), ("blocks1x2", 1, 2),
                 ("blocks2x4", 2, 4), ("blocks0x2", 0, 2)]


def scale_shape(axis, block):
    if axis is None:
        return ()
    if block == 0:
        return (SHAPE[axis],)
    return tuple(-(-d // block) if i == axis else d for i, d in enumerate(SHAPE))


def spread(per_scale, axis, block):
    """Each element's own number, from the tensor of scales."""
    if axis is None:
        return np.broadcast_to(per_scale, SHAPE)
    if block == 0:
        return np.broadcast_to(per_scale.reshape([-1 if i == axis else 1 for i in range(3)]), SHAPE)
    return np.take(np.repeat(per_scale, block, axis), range(SHAPE[axis]), axis)


def run(nodes, inputs, feeds, constants, outputs):
    graph = helper.make_graph(nodes, "case", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def case(rng, dtype, axis, block):
    shape = scale_shape(axis, block)
    low, high = LIMITS[dtype]
    scale = np.exp2(rng.uniform(-12, 3, shape)).astype(np.float32)
    zero = rng.integers(low, high + 1, shape).astype(np.int32)
    steps = rng.uniform(low - 4, high + 4, SHAPE)
    # Ties, and numbers far outside: within what 32 bits hold in blocks, whose kernel in onnxruntime adds in 32 bits.
    steps = np.where(rng.random(SHAPE) < 0.3, np.round(steps) + 0.5, steps)
    far = np.where(rng.random(SHAPE) < 0.5, -1, 1) * (1e6 if block else 1e30)
    steps = np.where(rng.random(SHAPE) < 0.05, far, steps - spread(zero, axis, block))
    # Products with a power of two keep ties.
    scale = np.where(rng.random(shape) < 0.5, np.exp2(np.round(np.log2(scale))), scale).astype(np.float32)
    x = (steps * spread(scale, axis, block)).astype(np.float32)
    attributes = {} if axis is None else {"axis": axis}
    if block:
        attributes["block_size"] = block
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["back"], **attributes),
             helper.make_node("Cast", ["q"], ["narrow"], to=TensorProto.INT32 if "4" not in dtype else TensorProto.INT8)]
    narrow = TensorProto.INT32 if "4" not in dtype else TensorProto.INT8
    packed = zero.reshape(-1)
    if dtype in ("int4", "uint4"):
        z = onnx.TensorProto(name="z", data_type=CODES[dtype], dims=shape)
        nibbles = np.concatenate([packed & 15, np.zeros(len(packed) % 2, np.int32)])
        z.raw_data = (nibbles[0::2] | nibbles[1::2] << 4).astype(np.uint8).tobytes()
    else:
        z = helper.make_tensor("z", CODES[dtype], shape, packed.astype(dtype).tobytes(), raw=True)
    constants = [helper.make_tensor("s", TensorProto.FLOAT, shape, scale.tobytes(), raw=True), z]
    outputs = [helper.make_tensor_value_info("narrow", narrow, SHAPE),
               helper.make_tensor_value_info("back", TensorProto.FLOAT, SHAPE)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    q, back = run(nodes, inputs, {"x": x}, constants, outputs)
    return {"x": x, "scale": scale, "zero": zero, "q": q.astype(np.int32), "back": back}


def bias(rng, axis):
    shape = scale_shape(axis, 0)
    scale = np.exp2(rng.uniform(-30, -10, shape)).astype(np.float32)
    q = rng.integers(-2**31, 2**31, SHAPE).astype(np.int32)
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["back"], **({} if axis is None else {"axis": axis}))]
    constants = [helper.make_tensor("s", TensorProto.FLOAT, shape, scale.tobytes(), raw=True)]
    inputs = [helper.make_tensor_value_info("q", TensorProto.INT32, SHAPE)]
    outputs = [helper.make_tensor_value_info("back", TensorProto.FLOAT, SHAPE)]
    [back] = run(nodes, inputs, {"q": q}, constants, outputs)
    return {"scale": scale, "zero": np.zeros(shape, np.int32), "q": q, "back": back}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=2, help="cases of each type and granularity")
    parser.add_argument("--out", type=Path, default=REPO / "crates/edge-run/tests/data/quantize_cases.safetensors")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    tensors = {}
    for number in range(args.number):
        for name, axis, block in GRANULARITIES:
            for dtype in LIMITS:
                for part, value in case(rng, dtype, axis, block).items():
                    tensors[f"{dtype}.{name}.{number}.{part}"] = np.ascontiguousarray(value)
            if block == 0:
                for part, value in bias(rng, axis).items():
                    tensors[f"int32.{name}.{number}.{part}"] = np.ascontiguousarray(value)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out)
    print(f"{len({n.rsplit('.', 1)[0] for n in tensors})} cases in {args.out}")


if __name__ == "__main__":
    main()
