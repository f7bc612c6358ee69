#!/usr/bin/env python3
"""Quantized models in onnxruntime: they load, and give what edgetool's executor gives.

    agree.py --work DIR --edgetool target/release/edgetool [--seed N] [VARIANT...]

First the operators: random cases of QuantizeLinear and DequantizeLinear, bit by bit. Then, for each variant that
tests/parity/parity.py has left in DIR: the checkpoint is converted for qnn with its steps folded, calibrated, and
quantized in every way, and compared in two ways.

Tensor by tensor: each tensor of integers of the first step is made from onnxruntime's own tensors before it. Sums in
another order put a value on the other side of a tie now and then: no element is off by more than one step, and few are.

As a whole, each UNet's output. What such ties change is passed on. With 16 bits the two runtimes differ by at most 3 % of
what the model differs from the float one (L2), which is what quantization costs. Beside it stands how far onnxruntime is
from itself when one element of its input is one quantum off: two runtimes that differ in a tie are not nearer than that.
With 8 bits one tie can be as much as all that quantization costs, so that outputs tell nothing there.

The last line is `N passed, N failed`; the exit status is 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/reference"))
import make_quantize_cases as cases  # noqa: E402

PROMPTS = REPO / "recipes/shapes/prompts/calibration.txt"
# Parts of the difference from the float model.
PARTS = {"w8a16": 0.03, "w4a16": 0.03}
INTEGERS = ["w8a16", "w4a16", "w8a8", "mixed"]
# Elements of the input that are one quantum off, one at a time.
NUDGES = 100
# Weights alone have no steps: relative L2.
FLOAT_LIMIT = 2e-5
# Tensors of integers, each made from onnxruntime's own: the parts of their elements that may be off, by bits.
OFF = {8: 0.01, 16: 0.15}
# Every type of weights and activations in one network, with borders between all of them.
PLAN = """schema: precision-plan/v1
scheme: w8a8
rules:
  - {of: down_blocks.0, weights: int4, activations: uint16}
  - {of: attn1, activations: float}
  - {of: attn2, weights: int16, activations: uint16}
  - {of: ff, weights: float16}
  - {of: proj_in, weights: float, activations: float}
  - {of: up_blocks.0.resnets.0.conv1, weights: int16}
  - {of: conv_out, weights: float16, activations: float}
"""


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def evaluate(edgetool: Path, model: Path, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    save_file(feeds, folder / "in.safetensors")
    command = [edgetool, "eval", model, "-i", folder / "in.safetensors", "-o", folder / "out.safetensors"]
    subprocess.run(command, check=True)
    return load_file(folder / "out.safetensors")


def checkpoint(reference: Path) -> Path:
    """The folder in it that holds the model."""
    return reference / json.loads((reference / "golden.json").read_text())["checkpoint"]


def operators(edgetool: Path, seed: int, folder: Path) -> list[str]:
    """Random cases through ONNX files; gives those that differ."""
    rng, wrong = np.random.default_rng(seed), []
    for _ in range(2):
        for name, axis, block in cases.GRANULARITIES:
            for dtype in cases.LIMITS:
                case = cases.case(rng, dtype, axis, block)
                model = operator_model(case, dtype, axis, block)
                onnx.save(model, folder / "op.onnx")
                found = evaluate(edgetool, folder / "op.onnx", {"x": case["x"]}, folder)
                if found["back"].tobytes() != case["back"].tobytes():
                    wrong.append(f"{dtype}.{name}")
                if "q" in found and not np.array_equal(found["q"].astype(np.int32), case["q"]):
                    wrong.append(f"{dtype}.{name} integers")
    return wrong


def operator_model(case, dtype, axis, block):
    attributes = {} if axis is None else {"axis": axis}
    if block:
        attributes["block_size"] = block
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q", **attributes),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["back"], name="dq", **attributes)]
    outputs = [helper.make_tensor_value_info("back", TensorProto.FLOAT, cases.SHAPE)]
    if "4" not in dtype:
        # safetensors have no integers of 4 bits.
        outputs.append(helper.make_tensor_value_info("q", cases.CODES[dtype], cases.SHAPE))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, cases.SHAPE)]
    zero = helper.make_tensor("z", cases.CODES[dtype], case["zero"].shape, case["zero"].reshape(-1).tolist())
    constants = [numpy_helper.from_array(case["scale"], "s"), zero]
    graph = helper.make_graph(nodes, "op", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def networks(edgetool: Path, checkpoint: Path, folder: Path) -> list[tuple[str, float, bool]]:
    """For each precision and UNet: the greatest difference and whether it is small enough."""
    def run(*command):
        subprocess.run([edgetool, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    converted, statistics, rows = folder / "qnn", folder / "statistics", []
    run("convert", checkpoint, "-o", converted, "--fold", "per-step", "--steps", "2", "--target", "qnn")
    run("calibrate", converted, "--prompts", PROMPTS, "--number", "4", "-o", statistics)
    (folder / "plan.yaml").write_text(PLAN)
    for precision in ["w8a16", "w4a16", "w8a8", "mixed", "w8", "fp16"]:
        quantized = folder / precision
        known = ["--statistics", statistics] if precision in INTEGERS else []
        asked = ["--plan", folder / "plan.yaml"] if precision == "mixed" else ["--precision", precision]
        run("quantize", converted, *asked, "-o", quantized, *known)
        for model in sorted((quantized / "unet").glob("*.onnx")):
            onnx.checker.check_model(str(model))
            theirs = session(model)
            rng = np.random.default_rng(0)
            feeds = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in theirs.get_inputs()}
            expected = dict(zip([o.name for o in theirs.get_outputs()], theirs.run(None, feeds)))
            if precision in INTEGERS and model.stem == "step_0":
                rows += [(f"{precision} {model.stem} {what}", *row) for what, *row in cut(edgetool, model, feeds, folder)]
            if precision in INTEGERS and precision not in PARTS:
                continue
            found = evaluate(edgetool, model, feeds, folder)
            plain = session(converted / "unet" / model.name).run(None, feeds)
            for (name, value), exact in zip(expected.items(), plain):
                difference = found[name] - value
                if precision in PARTS:
                    cost = np.linalg.norm(value - exact)
                    own = nudged(theirs, onnx.load(str(model), load_external_data=False).graph, feeds, value) / cost
                    what, limit = f"of the quantization's error (one quantum: {own:.3g})", PARTS[precision]
                    worst = float(np.linalg.norm(difference) / cost)
                else:
                    what, limit = "relative L2", FLOAT_LIMIT
                    worst = float(np.linalg.norm(difference) / np.linalg.norm(value))
                rows.append((f"{precision} {model.stem} {what}", worst, worst <= limit))
    return rows


def nudged(theirs: ort.InferenceSession, graph: onnx.GraphProto, feeds: dict[str, np.ndarray], value: np.ndarray) -> float:
    """How far one quantum of the first input carries onnxruntime's output from `value`, at most (L2)."""
    name = graph.input[0].name
    scale = next(n.input[1] for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == name)
    quantum = numpy_helper.to_array(next(t for t in graph.initializer if t.name == scale)).item()
    rng, furthest = np.random.default_rng(1), 0.0
    for place in rng.choice(feeds[name].size, NUDGES, replace=False):
        moved = feeds[name].copy()
        moved.reshape(-1)[place] += quantum
        furthest = max(furthest, float(np.linalg.norm(theirs.run(None, feeds | {name: moved})[0] - value)))
    return furthest


def cut(edgetool: Path, model: Path, feeds: dict[str, np.ndarray], folder: Path) -> list[tuple[str, float, bool]]:
    """Each tensor of integers from onnxruntime's own tensors before it: by bits, the greatest part that is off; and how far."""
    whole = onnx.load(str(model))
    inner = {tensor.name: tensor for tensor in whole.graph.value_info}
    made = [n for n in whole.graph.node if n.op_type == "QuantizeLinear" and n.output[0] in inner]
    names = [n.output[0] for n in made]
    whole.graph.output.extend(inner[name] for name in names)
    outputs = [o.name for o in whole.graph.output]
    onnx.save(whole, folder / "whole.onnx", save_as_external_data=True, location="whole.data")
    expected = dict(zip(outputs, session(folder / "whole.onnx").run(outputs, feeds)))
    # The same graph, in which what reads such a tensor reads an input, and what made it makes an output.
    for node in made:
        node.output[0] += "_again"
    del whole.graph.output[:]
    for name in names:
        whole.graph.input.append(inner[name])
        again = whole.graph.output.add()
        again.CopyFrom(inner[name])
        again.name = f"{name}_again"
    onnx.save(whole, folder / "cut.onnx", save_as_external_data=True, location="cut.data")
    found = evaluate(edgetool, folder / "cut.onnx", feeds | {name: expected[name] for name in names}, folder)
    parts, furthest = {bits: [0.0] for bits in OFF}, 0
    for name in names:
        distance = np.abs(found[f"{name}_again"].astype(np.int32) - expected[name].astype(np.int32))
        parts[8 * expected[name].itemsize].append(np.count_nonzero(distance) / distance.size)
        furthest = max(furthest, int(distance.max()))
    rows = [(f"{bits} bits off", max(parts[bits]), max(parts[bits]) <= limit) for bits, limit in OFF.items()]
    return [*rows, (f"steps of {len(names)} tensors", furthest, furthest <= 1 and bool(names))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("variants", nargs="*", default=["tiny", "tiny-linear-proj"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--edgetool", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        wrong = operators(args.edgetool, args.seed, Path(folder))
        print(f"operators, seed {args.seed}: {', '.join(wrong) or 'all equal, bit by bit'}", flush=True)
        passed, failed = passed + (not wrong), failed + bool(wrong)
    for variant in args.variants:
        with tempfile.TemporaryDirectory() as folder:
            for what, worst, good in networks(args.edgetool, checkpoint(args.work / variant), Path(folder)):
                print(f"{'ok  ' if good else 'FAIL'} {variant} {what}: {worst:.3g}", flush=True)
                passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
