#!/usr/bin/env python3
"""Quantized models in onnxruntime: they load, and give what edgetool's executor gives.

    agree.py --work DIR --edgetool target/release/edgetool [--seed N] [VARIANT...]

First the operators: random cases of QuantizeLinear and DequantizeLinear, bit by bit. Then, for each variant that
tests/parity/parity.py has left in DIR: the checkpoint is converted for qnn with its steps folded, calibrated, and
quantized in every way, and each UNet's output is compared with onnxruntime's. Sums in another order put a value on the
other side of a tie now and then. With activations of 8 bits that is rare: outputs differ by one step of the UNet's own
output (`conv_out`), and of what the scheduler's step makes of it, at most. With 16 bits it happens in every layer, and is
passed on: there the two runtimes differ by at most 3 % of what the model differs from the float one (L2), which is
what quantization costs. The last line is `N passed, N failed`; the exit status is 1 when one failed.
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
# Steps of the output, or parts of the difference from the float model.
STEPS = {"w8a8": 1}
PARTS = {"w8a16": 0.03, "w4a16": 0.03, "mixed": 0.03}
# Weights alone have no steps: relative L2.
FLOAT_LIMIT = 2e-5
# Every type of weights and activations in one network, with borders between them. Those of 8 bits come first: what sums of
# 16 bits or float put on the other side of a tie behind them would be a step of 8 bits there.
PLAN = """schema: precision-plan/v1
scheme: w8a16
rules:
  - {of: conv_in, activations: uint8}
  - {of: down_blocks.0.resnets.0, weights: int4, activations: uint8}
  - {of: attn1, activations: float}
  - {of: attn2, weights: int16}
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
        known = ["--statistics", statistics] if precision in STEPS | PARTS else []
        asked = ["--plan", folder / "plan.yaml"] if precision == "mixed" else ["--precision", precision]
        run("quantize", converted, *asked, "-o", quantized, *known)
        steps = json.loads((quantized / "edgetool.json").read_text())["fold"]["steps"]
        for step, model in zip(steps, sorted((quantized / "unet").glob("*.onnx"))):
            onnx.checker.check_model(str(model))
            theirs = session(model)
            rng = np.random.default_rng(0)
            feeds = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in theirs.get_inputs()}
            expected = dict(zip([o.name for o in theirs.get_outputs()], theirs.run(None, feeds)))
            found = evaluate(edgetool, model, feeds, folder)
            plain = session(converted / "unet" / model.name).run(None, feeds)
            for (name, value), exact in zip(expected.items(), plain):
                difference = found[name] - value
                if precision in STEPS:
                    what, limit = "steps", STEPS[precision]
                    worst = float(np.abs(difference).max() / quantum(model, name, step))
                elif precision in PARTS:
                    what, limit = "of the quantization's error", PARTS[precision]
                    worst = float(np.linalg.norm(difference) / np.linalg.norm(value - exact))
                else:
                    what, limit = "relative L2", FLOAT_LIMIT
                    worst = float(np.linalg.norm(difference) / np.linalg.norm(value))
                rows.append((f"{precision} {model.stem} {what}", worst, worst <= limit))
    return rows


def quantum(model: Path, output: str, step: dict[str, float]) -> float:
    """What a step of each tensor from `conv_out` on is at the output."""
    graph = onnx.load(str(model), load_external_data=False).graph
    scales = {i.name: float(numpy_helper.to_array(i)) for i in graph.initializer if i.name.endswith("_scale") and not i.dims}
    parts = {"conv_out": abs(step["output"]), "scheduler_Sub_next": abs(step["sample"]), output: 1}
    # The product of the output and its factor, before the difference.
    parts["scheduler_Mul_next_part"] = abs(step["sample"])
    return sum(scales[f"{name}_scale"] * factor for name, factor in parts.items())


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
            for what, worst, good in networks(args.edgetool, args.work / variant, Path(folder)):
                print(f"{'ok  ' if good else 'FAIL'} {variant} {what}: {worst:.3g}", flush=True)
                passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
