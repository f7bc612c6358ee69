#!/usr/bin/env python3
"""Makes a workspace of Exynos AI Studio for each graph of this bundle: build/enn/GRAPH."""
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]

manifest = json.loads((ROOT / "manifest.json").read_text())
wanted = [run["component"] for run in manifest["golden"]["runs"]]
for component in (c for c in manifest["components"] if c["name"] in wanted):
    name = component["name"]
    folder = ROOT / "build" / "enn" / name
    (folder / "DATA").mkdir(parents=True, exist_ok=True)
    # One file, with its weights in it.
    onnx.save(onnx.load(str(ROOT / component["file"])), str(folder / f"{name}.onnx"))
    ports = {port["name"]: port for port in component["inputs"]}
    examples = {port: [] for port in ports}
    for line in (ROOT / "enn" / f"{name}.txt").read_text().splitlines():
        port, file = line.split(" ")
        tensor = np.fromfile(ROOT / file, dtype=ports[port]["dtype"]).reshape(ports[port]["shape"])
        examples[port].append(tensor.astype(np.float32))
    with h5py.File(folder / "DATA" / f"{name}.h5", "w") as data:
        for port, tensors in examples.items():
            data.create_dataset(port, data=np.concatenate(tensors))
    shutil.copy(ROOT / "enn" / "options.yaml", folder / "options.yaml")
    print(folder.relative_to(ROOT))
