#!/usr/bin/env python3
"""Measure quantized forms of the model in recipes/shapes, and write the table of docs/quantization.md.

    quantized.py --edgetool target/release/edgetool [--recipe recipes/shapes] [--table docs/quantization.md]

Each row is converted for qnn with two steps folded, calibrated on 64 prompts, quantized, and draws the 200 evaluation
prompts. Pictures are compared with those of the converted float model, prompt by prompt, with the same noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

BEGIN, END = "<!-- table: tests/shapes/quantized.py -->", "<!-- end of table -->"
ROWS = [
    ("fp16", "fp16", []),
    ("W8", "w8", []),
    ("W8A16", "w8a16", []),
    ("W4A16", "w4a16", []),
    ("W4A16, int8 in the last up block", "w4a16", ["--wide", "up_blocks.2"]),
    ("W8A8, ranges by MSE", "w8a8", []),
    ("W4A16, measured plan", "plans/w4a16.yaml", []),
    ("W8A8, ranges by min-max", "w8a8", ["--ranges", "min-max"]),
    ("W8A8, measured plan", "plans/w8a8.yaml", []),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/shapes"), help="model, judge and prompts")
    parser.add_argument("--limit", type=int, default=200, help="evaluation prompts")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(args, Path(folder))
    print(table)
    if args.table:
        text = args.table.read_text()
        before, rest = text.split(BEGIN)
        args.table.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


def measure(args: argparse.Namespace, folder: Path) -> str:
    def run(*command) -> str:
        done = subprocess.run([args.edgetool, *command], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return done.stdout

    def evaluate(model: Path) -> tuple[float, list[np.ndarray]]:
        pictures = folder / f"{model.name}-pictures"
        prompts = ["--prompts", args.recipe / "prompts/evaluation.txt", "--limit", str(args.limit)]
        judge = ["--judge", args.recipe / "judge", "--format", "json", "--quiet"]
        found = json.loads(run("evaluate", model, *prompts, *judge, "-o", pictures))
        images = [np.asarray(Image.open(p), np.float64) for p in sorted(pictures.glob("*.png"))]
        return found["prompt_accuracy"]["share"], images

    floats, statistics = folder / "float", folder / "statistics"
    run("convert", args.recipe / "model", "-o", floats, "--fold", "per-step", "--steps", "2", "--target", "qnn")
    prompts = args.recipe / "prompts/calibration.txt"
    run("calibrate", floats, "--prompts", prompts, "--number", "64", "-o", statistics, "--quiet")
    accuracy, reference = evaluate(floats)
    lines = ["| UNet | prompt accuracy | mean PSNR | least PSNR | UNet's files |", "|---|---|---|---|---|"]
    lines.append(f"| float | {100 * accuracy:.1f} % | | | {kibibytes(floats):.0f} KiB |")
    print(lines[-1], flush=True)
    for name, precision, options in ROWS:
        model = folder / name.replace(",", "").replace(" ", "-")
        known = ["--statistics", statistics] if "a" in precision else []
        asked = ["--plan", args.recipe / precision] if precision.endswith(".yaml") else ["--precision", precision]
        run("quantize", floats, *asked, "-o", model, *known, *options)
        accuracy, images = evaluate(model)
        psnr = [decibels(a, b) for a, b in zip(images, reference)]
        cells = f"{100 * accuracy:.1f} % | {np.mean(psnr):.1f} dB | {np.min(psnr):.1f} dB | {kibibytes(model):.0f} KiB"
        lines.append(f"| {name} | {cells} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def decibels(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal to noise of 8-bit pictures; equal ones count as if one value in all were off by one."""
    error = max(np.mean((image - reference) ** 2), 1 / image.size)
    return float(10 * np.log10(255**2 / error))


def kibibytes(model: Path) -> float:
    return sum(p.stat().st_size for p in (model / "unet").iterdir()) / 1024


if __name__ == "__main__":
    main()
