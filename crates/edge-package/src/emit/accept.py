#!/usr/bin/env python3
"""Runs the golden inputs of this bundle, graph by graph, and compares the outputs with the expected ones.

A line for each graph. Exit code 1: an output is further off than `min_sqnr_db` in manifest.json allows.
"""
import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


# The SDK's `load` stands here.
def tensor(entry):
    return np.fromfile(ROOT / entry["file"], dtype=entry["dtype"]).reshape(entry["shape"])


def sqnr(found, expected):
    """Signal to noise in decibels, at most 200."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    noise = float(np.sum((found - expected) ** 2))
    return 200.0 if noise == 0 else min(10 * np.log10(max(float(np.sum(expected**2)), 1e-300) / noise), 200.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", help="graphs to run [default: all]")
    parser.add_argument("--device", default="DEVICE")
    parser.add_argument("--json", action="store_true", help="print an object for each output")
    arguments = parser.parse_args()
    manifest = json.loads((ROOT / "manifest.json").read_text())
    files = {c["name"]: c["file"] for c in manifest["components"]}
    runs = [r for r in manifest["golden"]["runs"] if not arguments.graphs or r["component"] in arguments.graphs]
    if not runs:
        sys.exit(f"no such graph, there are: {', '.join(files)}")
    failed, loaded = 0, {}
    for run in runs:
        name = run["component"]
        if name not in loaded:
            loaded = {name: load(ROOT / files[name], name, arguments.device)}
        outputs = loaded[name]({t["name"]: tensor(t) for t in run["inputs"]})
        for entry in run["outputs"]:
            near = sqnr(outputs[entry["name"]], tensor(entry))
            good = near >= run["min_sqnr_db"]
            failed += not good
            if arguments.json:
                entry = {"component": name, "output": entry["name"], "sqnr_db": round(near, 1), "least": run["min_sqnr_db"]}
                print(json.dumps(entry), flush=True)
                continue
            print(f"{'ok' if good else 'TOO FAR'}: {name} {entry['name']}: {near:.1f} dB, at least {run['min_sqnr_db']}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
