#!/usr/bin/env python3
"""Quantize the full-size UNet with edgetool and with onnxruntime, and compare time, memory and error.

    quantization.py --work DIR --reference CHECKPOINT [--edgetool target/release/edgetool] [--table docs/quantization.md]
                    [--precisions w8a16 w8a8] [--samples 1 4]

Both read what edgetool converted, in float32. onnxruntime's `quantize_static` gets the plain UNet, for both timesteps
together, and as many samples as there are prompts, alternately of step 999 and 499: unit-normal latents, and contexts
that the text encoder made of the prompts. edgetool gets the folder with two steps folded in, one graph each, and the
same number of prompts, and draws both steps of each. Its time is that of the whole command, from prompts to files.

The error is that of the UNet's answer, on inputs that neither has seen: unit-normal latents and contexts at either step,
and unit-normal latents with a text context. edgetool's graphs have the scheduler's step within them, in integers too;
the answer's error is the error of their output divided by the step's factor of it. onnxruntime computes all.

Peak memory of onnxruntime is 10 GB for one sample, 17 GB for four.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from measure import measure  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- table: tests/bench/quantization.py -->", "<!-- end of table: tests/bench/quantization.py -->"
STEPS = (999, 499)
GUIDANCE = 8.0
FREE_GB = {1: 11, 4: 19}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    parser.add_argument("--work", type=Path, required=True, help="folder for conversions, made if it is not there")
    parser.add_argument("--reference", type=Path, help="checkpoint of a full-size model")
    parser.add_argument("--edgetool", type=Path, default=target / "release/edgetool", help="the program")
    parser.add_argument("--precisions", nargs="+", choices=["w8a16", "w8a8"], default=["w8a16", "w8a8"])
    parser.add_argument("--samples", nargs="+", type=int, default=[1, 4], help="numbers of samples")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    parser.add_argument("--theirs", nargs=3, metavar=("SCHEME", "SAMPLES", "MODEL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        return theirs(args.work, *args.theirs)
    args.work.mkdir(parents=True, exist_ok=True)
    table = compare(args)
    print(table)
    if args.table:
        text = args.table.read_text()
        before, rest = text.split(BEGIN)
        args.table.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


def compare(args: argparse.Namespace) -> str:
    work, prompts = args.work, ROOT / "recipes/shapes/prompts/calibration.txt"
    for name, options in [("plain", []), ("folded", ["--fold", "per-step", "--steps", "2", "--target", "qnn"])]:
        if not (work / name).exists():
            subprocess.run(
                [args.edgetool, "convert", args.reference, "-o", work / name, "--dtype", "float32", *options],
                check=True, capture_output=True,
            )  # fmt: skip
    if not (work / "contexts.npy").exists():
        np.save(work / "contexts.npy", contexts(work / "plain", prompts.read_text().splitlines()[: max(args.samples) + 1]))
    expected = [run(work / "plain/unet/model.onnx", plain_feeds(work, case)) for case in CASES]
    lines = ["| tool | precision | samples | wall s | peak MiB | SQNR at 999 | at 499 | with a text |", "|---|---|---|---|---|---|---|---|"]
    lines[1:1] = []
    for precision in args.precisions:
        for samples in args.samples:
            # One line of prompts at least two different ones: edgetool refuses less.
            ours = work / f"{precision}-{samples}"
            command = [args.edgetool, "quantize", work / "folded", "--precision", precision, "--link", "--force"]
            done = measure([*command, "--calibration", prompts, "--number", max(samples, 2), "-o", ours])
            answers = [folded_answer(work, ours, case) - folded_answer(work, work / "folded", case) for case in CASES]
            errors = [decibels(eps, error) for eps, error in zip(expected, answers)]
            lines.append(row("edgetool", precision, f"{max(samples, 2)} prompts, both steps", done, errors))
            print(lines[-1], flush=True)
            shutil.rmtree(ours)
            if free_gb() < FREE_GB.get(samples, 19):
                print(f"{samples} samples take onnxruntime more memory than the {free_gb():.0f} GB that are free")
                continue
            model = work / "theirs/model.onnx"
            model.parent.mkdir(exist_ok=True)
            script = [sys.executable, __file__, "--work", work, "--theirs", precision, samples, model]
            done = measure(script)
            answers = [run(model, plain_feeds(work, case)) - eps for case, eps in zip(CASES, expected)]
            errors = [decibels(eps, error) for eps, error in zip(expected, answers)]
            lines.append(row("onnxruntime", precision, str(samples), done, errors))
            print(lines[-1], flush=True)
            shutil.rmtree(model.parent)
    return "\n".join(lines)


def row(tool, precision, samples, done, errors) -> str:
    cells = [tool, precision.upper(), samples, f"{done.seconds:.1f}", f"{done.peak_mib:.0f}"]
    return "| " + " | ".join(cells + [f"{e:.1f} dB" for e in errors]) + " |"


# Step, and whether the context is a text's.
CASES = [(0, False), (1, False), (0, True)]


def normal(seed: int, shape: list[int]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def inputs(work: Path, case: tuple[int, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Latents and context that no calibration saw."""
    step, text = case
    context = np.load(work / "contexts.npy")[-1:] if text else normal(900 + step, [1, 77, 768])
    return normal(800 + step, [1, 4, 64, 64]), context


def plain_feeds(work: Path, case: tuple[int, bool]) -> dict[str, np.ndarray]:
    latent, context = inputs(work, case)
    return unet_feeds(latent, context, STEPS[case[0]])


def unet_feeds(latent: np.ndarray, context: np.ndarray, step: int) -> dict[str, np.ndarray]:
    # As diffusers embeds the guidance scale: the scale less one, times 1000, sines before cosines.
    half = 128
    angles = 1000 * (GUIDANCE - 1) * np.exp(np.arange(half) * -(np.log(10000.0) / (half - 1)))
    condition = np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(np.float32)
    return {
        "sample": latent, "encoder_hidden_states": context, "timestep": np.array([step]), "timestep_cond": condition,
    }  # fmt: skip


def folded_answer(work: Path, folder: Path, case: tuple[int, bool]) -> np.ndarray:
    """The UNet's answer times its factor in the step, which is divided by: what else the step adds is the same for all."""
    latent, context = inputs(work, case)
    factor = json.loads((folder / "edgetool.json").read_text())["fold"]["steps"][case[0]]["output"]
    feeds = {"sample": latent, "encoder_hidden_states": context, "noise": normal(700, [1, 4, 64, 64])}
    return run(folder / f"unet/step_{case[0]}.onnx", feeds) / factor


def session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Fusions of integers cost onnxruntime 3 dB.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    loaded = session(path)
    wanted = {i.name: feeds[i.name].astype(np.int32 if "int32" in i.type else feeds[i.name].dtype) for i in loaded.get_inputs()}
    wanted = {name: value.reshape(next(i.shape for i in loaded.get_inputs() if i.name == name)) for name, value in wanted.items()}
    return loaded.run(None, wanted)[0].astype(np.float64)


def decibels(signal: np.ndarray, error: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(signal**2) / np.sum(error**2)))


def contexts(plain: Path, prompts: list[str]) -> np.ndarray:
    """What the text encoder says of prompts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(plain / "tokenizer/tokenizer.json"))
    loaded = session(plain / "text_encoder/model.onnx")
    found = []
    for prompt in prompts:
        ids = tokenizer.encode(prompt.split("\t")[0]).ids[:77]
        ids = np.array([ids + [49407] * (77 - len(ids))], np.int64)
        found.append(loaded.run(None, {"input_ids": ids})[0])
    return np.concatenate(found)


def theirs(work: Path, precision: str, samples: str, model: str) -> None:
    """onnxruntime's quantizer, as its documentation has it for models with weights outside."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    contexts = np.load(work / "contexts.npy")
    plain = work / "plain/unet/model.onnx"
    loaded = session(plain)
    kinds = {i.name: (i.type, i.shape) for i in loaded.get_inputs()}
    del loaded

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = list(range(int(samples)))

        def get_next(self):
            if not self.left:
                return None
            index = self.left.pop(0)
            feeds = unet_feeds(normal(index, [1, 4, 64, 64]), contexts[index : index + 1], STEPS[index % 2])
            typed = {n: f.astype(np.int32) if "int32" in kinds[n][0] else f for n, f in feeds.items()}
            return {n: f.reshape(kinds[n][1]) for n, f in typed.items()}

    wide = QuantType.QUInt16 if precision == "w8a16" else QuantType.QUInt8
    quantize_static(
        str(plain), model, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=wide, weight_type=QuantType.QInt8, use_external_data_format=True,
    )  # fmt: skip


def free_gb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


if __name__ == "__main__":
    main()
