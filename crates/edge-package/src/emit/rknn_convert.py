#!/usr/bin/env python3
"""Converts the graphs of this bundle with RKNN-Toolkit2: build/GRAPH.rknn."""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
from rknn.api import RKNN

ROOT = Path(__file__).resolve().parents[1]


def convert(component, arguments):
    name, build = component["name"], ROOT / "build"
    build.mkdir(exist_ok=True)
    rknn = RKNN(verbose=arguments.verbose)
    kind = {"quantized_dtype": arguments.quantize} if arguments.quantize else {}
    rknn.config(target_platform="PLATFORM", **kind)
    inputs = component["inputs"]
    steps = [
        lambda: rknn.load_onnx(
            model=str(ROOT / component["file"]),
            inputs=[i["name"] for i in inputs],
            input_size_list=[i["shape"] for i in inputs],
        ),
        lambda: rknn.build(do_quantization=bool(arguments.quantize), dataset=str(ROOT / "rknn" / f"{name}.txt")),
        lambda: rknn.export_rknn(str(build / f"{name}.rknn")),
    ]
    for step in steps:
        if step() != 0:
            sys.exit(f"{name}: the toolkit refused, see its lines above")
    print(f"build/{name}.rknn")
    if arguments.simulate and rknn.init_runtime() == 0:
        compare(rknn, name)
    rknn.release()


def compare(rknn, name):
    def tensor(entry):
        return np.fromfile(ROOT / entry["file"], dtype=entry["dtype"]).reshape(entry["shape"])

    for run in (r for r in MANIFEST["golden"]["runs"] if r["component"] == name):
        outputs = rknn.inference(inputs=[tensor(t) for t in run["inputs"]], data_format="nchw")
        for entry, found in zip(run["outputs"], outputs):
            expected = tensor(entry).astype(np.float64)
            noise = float(np.sum((found.reshape(expected.shape) - expected) ** 2))
            near = 10 * np.log10(float(np.sum(expected**2)) / max(noise, 1e-300))
            print(f"{name} {entry['name']}: {near:.1f} dB, at least {run['min_sqnr_db']}")


MANIFEST = json.loads((ROOT / "manifest.json").read_text())
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("graphs", nargs="*", help="graphs to convert [default: those that draw a picture]")
parser.add_argument("--quantize", metavar="TYPE", help="w8a8, or another that the chip takes [default: float16]")
parser.add_argument("--simulate", action="store_true", help="run the golden inputs in the simulator")
parser.add_argument("--verbose", action="store_true")
ARGUMENTS = parser.parse_args()
WANTED = ARGUMENTS.graphs or [run["component"] for run in MANIFEST["golden"]["runs"]]
for COMPONENT in MANIFEST["components"]:
    if COMPONENT["name"] in WANTED:
        convert(COMPONENT, ARGUMENTS)
