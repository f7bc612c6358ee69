#!/usr/bin/env python3
"""The whole two-step pipeline of recipes/shapes as one ONNX file, in onnxruntime and OpenVINO from plain inputs.

    pipeline.py --edgetool target/release/edgetool [--prompts 40]

Token ids come from transformers' tokenizer and noise from torch, so that nothing but the ONNX file is edgetool's. The
pictures are those of `edgetool run` on the same file, and the judge sees on them what the prompts ask for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from PIL import Image
from transformers import CLIPTokenizer

RECIPE = Path("recipes/shapes")
ACCURACY = 0.95     # of shape and colour, as the Rust tests ask of two steps
ROUNDED = 0.001     # share of 8-bit values that may be the neighbour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    parser.add_argument("--prompts", type=int, default=40, help="how many of the evaluation prompts")
    args = parser.parse_args()
    lines = (RECIPE / "prompts/evaluation.txt").read_text().splitlines()[: args.prompts]
    prompts = [line.split("\t") for line in lines]
    with tempfile.TemporaryDirectory() as work:
        folder, pictures = Path(work) / "onnx", Path(work) / "pictures"
        run = lambda *words: subprocess.run([args.edgetool, *words], check=True, capture_output=True)
        run("convert", RECIPE / "model", "-o", folder, "--fold", "pipeline", "--steps", "2", "--guidance", "8")
        evaluation = ["--prompts", RECIPE / "prompts/evaluation.txt", "--judge", RECIPE / "judge"]
        run("evaluate", folder, *evaluation, "--limit", str(args.prompts), "-o", pictures, "--quiet")
        tract = [np.asarray(Image.open(pictures / f"{k + 1:04}.png")) for k in range(len(prompts))]
        inputs = [plain_inputs(prompt, seed) for seed, (prompt, _) in enumerate(prompts)]
        bad = 0
        for name, draw in runtimes(folder / "pipeline/model.onnx").items():
            drawn = [to_bytes(draw(feeds)) for feeds in inputs]
            right = np.mean([asked(truth, picture) for (_, truth), picture in zip(prompts, drawn, strict=True)])
            apart = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(drawn, tract, strict=True)]
            share, most = np.mean([d > 0 for d in apart]), max(d.max() for d in apart)
            good = right >= ACCURACY and share <= ROUNDED and most <= 1
            bad += not good
            print(f"{'ok ' if good else 'BAD'} {name}: prompt accuracy {100 * right:.1f} %; {share:.1e} of the values are not tract's, by {most} at most")
    sys.exit(1 if bad else 0)


def plain_inputs(prompt: str, seed: int) -> dict[str, np.ndarray]:
    tokenizer = CLIPTokenizer.from_pretrained(RECIPE / "model/tokenizer")
    ids = tokenizer(prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    generator = torch.Generator().manual_seed(seed)
    noise = lambda: torch.randn(1, 4, 16, 16, generator=generator).numpy()
    return {"input_ids": np.array([ids], np.int64), "sample": noise(), "noise_0": noise()}


def runtimes(model: Path) -> dict:
    """The file in each runtime, as a function from inputs to the picture."""
    session = onnxruntime.InferenceSession(model)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {
        "onnxruntime": lambda feeds: session.run(None, feeds)[0],
        "OpenVINO": lambda feeds: compiled(feeds)[0],
    }


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image[0], 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


JUDGE = onnxruntime.InferenceSession(RECIPE / "judge/judge.onnx")
SPEC = json.loads((RECIPE / "judge/judge.json").read_text())


def asked(truth: str, picture: np.ndarray) -> bool:
    """Whether the judge reads what counts as the prompt asks for it."""
    wanted = dict(pair.split("=") for pair in truth.split("; "))
    logits = JUDGE.run(None, {"image": picture.transpose(2, 0, 1)[None].astype(np.float32) / 255})
    read = {head["name"]: head["labels"][int(row.argmax())] for head, row in zip(SPEC["heads"], logits, strict=True)}
    return all(read[name] == wanted[name] for name in SPEC["accuracy"])


if __name__ == "__main__":
    main()
