#!/usr/bin/env python3
"""Measure quantized forms of the model in recipes/shapes, and write the table of docs/quantization.md.

    quantized.py --edgetool target/release/edgetool [--recipe recipes/shapes] [--table docs/quantization.md]

Each row is converted for qnn with two steps folded, calibrated on 64 prompts, quantized, and draws the 200 evaluation
prompts. The second table has ways of rounding and repairs alone and together; they look at 32 prompts, and what smooths
has its ranges from these. Pictures
are compared with those of the converted float model, prompt by prompt, with the same noise.

The conditioning ratio says what is left of the text's influence: for two prompts and the same noise, the spread of the
difference of the UNet's two answers in the first step, over that of the float model. Prompts are taken in all pairs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

CONDITIONED = 12  # prompts whose pairs give the conditioning ratio
BEGIN, END = "<!-- table: tests/shapes/quantized.py -->", "<!-- end of table -->"
REPAIRS = "<!-- repairs: tests/shapes/quantized.py -->"
# Options of a row; `SEEN` stands for the prompts of calibration, `SMOOTH` for them in the place of statistics.
SEEN, SMOOTH = "<seen>", "<smooth>"
# All in 8 bits, as a quantizer does it that knows nothing of the network.
NAIVE = "naive.yaml"
PARTS = ["Add", "conv_shortcut", "conv_in", "conv_norm_out", "conv_act", "conv_out", "scheduler", "Softmax", "MatMul"]
NAIVE_RULES = "".join(f"  - {{of: {part}, activations: uint8}}\n" for part in PARTS)
ROWS = [
    ("fp16", "fp16", []),
    ("W8", "w8", [SEEN]),
    ("W8A16", "w8a16", [SEEN]),
    ("W8A16, plan: int16 in `conv_in` and `conv_out`", "plans/w8a16.yaml", [SEEN]),
    ("W4A16", "w4a16", [SEEN]),
    ("W4A16, measured plan", "plans/w4a16.yaml", [SEEN]),
    ("W8A8, ranges by MSE", "w8a8", [SEEN]),
    ("W8A8, ranges by min-max", "w8a8", [SEEN, "--ranges", "min-max"]),
    ("W8A8, measured plan", "plans/w8a8.yaml", [SEEN]),
    ("W8A16, from statistics alone", "w8a16", []),
    ("W4A16, from statistics alone", "w4a16", []),
    ("W8A8, from statistics alone", "w8a8", []),
    ("W8A8, naive", NAIVE, ["--ranges", "min-max", "--rounding", "min-max"]),
]
BIAS, BOTH = ["--repair", "bias"], ["--repair", "bias", "--repair", "smooth"]
NEAREST = ["--rounding", "nearest"]
ABLATION = [
    ("W4A16: min-max", "w4a16", ["--rounding", "min-max"]),
    ("W4A16: nearest", "w4a16", NEAREST),
    ("W4A16: sequential-mse", "w4a16", [SEEN, "--repair", "none", "--rounding", "sequential-mse"]),
    ("W4A16: gptq", "w4a16", [SEEN, "--repair", "none"]),
    ("W4A16: gptq, bias", "w4a16", [SEEN, *BIAS]),
    ("W4A16: gptq, bias, smooth", "w4a16", [SMOOTH, *BOTH]),
    ("W8A16: nearest", "w8a16", NEAREST),
    ("W8A16: gptq", "w8a16", [SEEN, "--repair", "none"]),
    ("W8A16: gptq, bias", "w8a16", [SEEN, *BIAS]),
    ("W8A8: nearest", "w8a8", NEAREST),
    ("W8A8: gptq", "w8a8", [SEEN, "--repair", "none"]),
    ("W8A8: gptq, bias", "w8a8", [SEEN, *BIAS]),
    ("W8A8: gptq, smooth", "w8a8", [SMOOTH, "--repair", "smooth"]),
    ("W8A8: gptq, bias, smooth", "w8a8", [SMOOTH, *BOTH]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/shapes"), help="model, judge and prompts")
    parser.add_argument("--limit", type=int, default=200, help="evaluation prompts")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    parser.add_argument("--only", choices=["table", "repairs"], help="make one table only")
    args = parser.parse_args()
    parts = [(BEGIN, ROWS), (REPAIRS, ABLATION)]
    if args.only:
        parts = [part for part in parts if args.only in part[0]]
    for begin, rows in parts:
        with tempfile.TemporaryDirectory() as folder:
            table = measure(args, Path(folder), rows, begin == BEGIN)
        print(table)
        if args.table:
            text = args.table.read_text()
            before, rest = text.split(begin)
            args.table.write_text(f"{before}{begin}\n{table}\n{END}{rest.split(END, 1)[1]}")


def measure(args: argparse.Namespace, folder: Path, rows: list, in_full: bool) -> str:
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

    def conditioned(model: Path) -> np.ndarray:
        """The spread of the difference of the first step's results, for each pair of prompts."""
        saved, results = folder / "tensors.safetensors", []
        texts = (args.recipe / "prompts/evaluation.txt").read_text().splitlines()
        for text in dict.fromkeys(t.split("\t")[0] for t in texts):
            run("run", model, "--prompt", text, "--seed", "3", "--quiet", "-o", folder / "p.png", "--save-tensors", saved)
            results.append(load_file(saved)["prev_sample"][0].astype(np.float64))
            if len(results) == CONDITIONED:
                break
        return np.array([np.std(a - b) for a, b in itertools.combinations(results, 2)])

    floats, statistics = folder / "float", folder / "statistics"
    run("convert", args.recipe / "model", "-o", floats, "--fold", "per-step", "--steps", "2", "--target", "qnn")
    prompts = args.recipe / "prompts/calibration.txt"
    run("calibrate", floats, "--prompts", prompts, "--number", "64", "-o", statistics, "--quiet")
    (folder / NAIVE).write_text(f"schema: precision-plan/v1\nscheme: w8a8\nrules:\n{NAIVE_RULES}")
    accuracy, reference = evaluate(floats)
    spread = conditioned(floats) if in_full else None
    more = ["conditioning", "worst pair", "UNet's files"] if in_full else []
    heads = ["UNet", "prompt accuracy", "mean PSNR", "least PSNR", *more]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    sizes = f" | | {kibibytes(floats):.0f} KiB |" if in_full else ""
    lines.append(f"| float | {100 * accuracy:.1f} % | | |{sizes}")
    print(lines[-1], flush=True)
    for name, precision, options in rows:
        model = folder / name.replace(",", "").replace(":", "").replace(" ", "-")
        known = ["--statistics", statistics] if "a" in precision and SMOOTH not in options else []
        if {SEEN, SMOOTH} & set(options):
            known += ["--calibration", prompts, "--number", "32"]
        options = [option for option in options if option not in (SEEN, SMOOTH)]
        plan = folder / NAIVE if precision == NAIVE else args.recipe / precision
        asked = ["--plan", plan] if precision.endswith(".yaml") else ["--precision", precision]
        run("quantize", floats, *asked, "-o", model, *known, *options)
        accuracy, images = evaluate(model)
        psnr = [decibels(a, b) for a, b in zip(images, reference)]
        cells = f"{100 * accuracy:.1f} % | {np.mean(psnr):.1f} dB | {np.min(psnr):.1f} dB"
        if in_full:
            ratios = conditioned(model) / spread
            worst = ratios[np.argmax(np.abs(ratios - 1))]
            cells += f" | {np.mean(ratios):.3f} | {worst:.3f} | {kibibytes(model):.0f} KiB"
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
