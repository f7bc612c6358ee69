#!/usr/bin/env python3
"""Verifying takes less than 1.5 times the memory of one float drawing.

    memory.py --edgetool target/release/edgetool

A checkpoint of random weights, half as wide as a full one in every network, is converted, quantized to W8A16, and
verified against the float folder: alone, with --bisect, and with ONNX Runtime, that of this Python, as second executor.
The peak of each is compared with that of `run` on the float folder. Weights are most of it, as at full size, and so they
would be seen if they were in memory twice. Peaks vary by some per cent, with what threads happen to hold at once: one that
is over the limit is measured again, twice at most, and the least counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
for part in ["bench", "reference"]:
    sys.path.insert(0, str(REPO / "tests" / part))

from measure import measure  # noqa: E402
from variants import VARIANTS  # noqa: E402

LIMIT = 1.5
TRIES = 3
HALF = dataclasses.replace(
    VARIANTS["full"],
    note="as full, half as wide",
    channels=(160, 320, 640),
    sample=32,
    text_hidden=384,
    text_heads=6,
    vae_channels=(64, 128, 256, 256),
    taesd=32,
)


def make_checkpoint(folder: Path) -> None:
    """Writes the checkpoint; nothing is computed with it."""
    import torch
    from checkpoint import build, save_checkpoint
    from make_reference import prepare_torch, tokenize

    prepare_torch(os.cpu_count() or 1)
    folder.mkdir()
    vocabulary, _, _ = tokenize(HALF, folder / "tokenizer")
    with torch.no_grad():
        models, scheduler = build(HALF, 0, vocabulary)
        save_checkpoint(models, scheduler, HALF, folder)


def onnxruntime() -> Path:
    """The library of this Python's package."""
    package = Path(importlib.util.find_spec("onnxruntime").origin).parent
    return next((package / "capi").glob("libonnxruntime.so*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_checkpoint(work / "checkpoint")
        prompts = work / "prompts.txt"
        prompts.write_text("a photo of a cat\na photo of a dog\n")

        def peak(*command: object) -> float:
            return measure([args.edgetool.resolve(), *command]).peak_mib

        peak("convert", work / "checkpoint", "-o", work / "float", "--target", "qnn", "--fold", "per-step")
        peak("quantize", work / "float", "-o", work / "w8a16", "--precision", "w8a16", "--rounding", "nearest",
             "--calibration", prompts, "--number", 2)
        one = peak("run", work / "float", "--prompt", "a photo of a cat", "-o", work / "cat.png")
        print(f"     run on the float folder: {one:.0f} MiB")
        verify = ["verify", work / "w8a16", "--against", work / "float", "--limit", 1, "--no-cache",
                  "--thresholds", REPO / "tests/verify/random.yaml"]
        failed = 0
        for options in [[], ["--bisect"], ["--executor", "onnxruntime", "--ort-lib", onnxruntime()]]:
            verified = peak(*verify, *options)
            for _ in range(TRIES - 1):
                if verified >= LIMIT * one:
                    verified = min(verified, peak(*verify, *options))
            right = verified < LIMIT * one
            failed += not right
            name = " ".join(["verify", *options[:2]])
            print(f"{'ok  ' if right else 'FAIL'} {name}: {verified:.0f} MiB, {verified / one:.2f} times")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
