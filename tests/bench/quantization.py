#!/usr/bin/env python3
"""Quantize the full-size UNet with edgetool and with onnxruntime, and compare time, memory and error.

    quantization.py --work DIR --reference CHECKPOINT [--edgetool target/release/edgetool] [--table docs/quantization.md]
                    [--precisions w8a16 w8a8 w4a16] [--samples 2 4]

Both read what edgetool converted, in float32, and run the UNet on the same samples: unit-normal latents, and contexts that
the text encoder made of prompts, alternately of step 999 and 499. onnxruntime's `quantize_static` gets the plain UNet,
for both timesteps together; edgetool gets the folder with two steps folded in, one graph each. A further row draws half
as many prompts in both steps, which is what edgetool's users do: its latents are those of the drawing, not unit-normal
ones. Times are those of whole commands, from samples or prompts to files.

The error is that of the UNet's answer, on inputs that neither has seen: unit-normal latents and contexts at either step,
and unit-normal latents with a text context. edgetool's graphs have the scheduler's step within them, in integers too;
the answer's error is the error of their output divided by the step's factor of it. onnxruntime computes all.

Peak memory of onnxruntime at full size grows from 10 GB for one sample to 17 GB for four: where that is not free, its row
is left out. `--aimet` names the interpreter of an environment with aimet-onnx, whose quantizer then gets the first sample
of the two, as that takes 20 GB. Weights alone are compared with a copy of what is written; both end on the disk.
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
from measure import measure, settle  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- table: tests/bench/quantization.py -->", "<!-- end of table: tests/bench/quantization.py -->"
STEPS = (999, 499)
# Of rounding and repairs: what asks no prompts but for ranges, and the default; and whether prompts are drawn.
NEAREST, PLAIN = ["--rounding", "nearest", "--repair", "none"], ["--rounding", "min-max", "--repair", "none"]
WAYS = [("nearest", NEAREST, False), ("default", [], False), ("default, from prompts", [], True)]
GUIDANCE = 8.0
WIDTH = 256  # of the guidance embedding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    parser.add_argument("--work", type=Path, required=True, help="folder for conversions, made if it is not there")
    parser.add_argument("--reference", type=Path, help="checkpoint of a full-size model")
    parser.add_argument("--edgetool", type=Path, default=target / "release/edgetool", help="the program")
    parser.add_argument("--precisions", nargs="+", choices=["w8a16", "w8a8", "w4a16"], default=["w8a16", "w8a8", "w4a16"])
    parser.add_argument("--samples", nargs="+", type=int, default=[2, 4], help="numbers of samples, 2 at least")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    parser.add_argument("--aimet", type=Path, help="interpreter with aimet-onnx")
    parser.add_argument("--theirs", nargs=4, metavar=("TOOL", "SCHEME", "SAMPLES", "MODEL"), help=argparse.SUPPRESS)
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
    for name, options in [("plain", []), ("folded", ["--fold", "per-step", "--steps", "2", "--guidance", str(GUIDANCE), "--target", "qnn"])]:
        if not (work / name).exists():
            subprocess.run(
                [args.edgetool, "convert", args.reference, "-o", work / name, "--dtype", "float32", *options],
                check=True, capture_output=True,
            )  # fmt: skip
    if not (work / "contexts.npy").exists():
        # One more than calibration sees.
        np.save(work / "contexts.npy", contexts(work / "plain", prompts.read_text().splitlines()[: max(args.samples) + 1]))
    expected = [run(work / "plain/unet/model.onnx", plain_feeds(work, case)) for case in CASES]
    heads = ["tool", "precision", "samples", "wall s", "peak MiB", "SQNR at 999", "at 499", "with a text"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *weights_alone(args, work)]
    for precision in args.precisions:
        for samples in args.samples:
            record(work, samples)
            plain = [("min-max", PLAIN, False)] if precision == "w4a16" else []
            for way, options, drawn in plain + WAYS:
                ours = work / f"{precision}-{samples}"
                command = [args.edgetool, "quantize", work / "folded", "--precision", precision, "--link", "--force", *options]
                calibration = ["--calibration", prompts, "--number", samples // 2] if drawn else ["--calibration", work / "samples.safetensors"]
                done = measure([*command, *calibration, "-o", ours])
                answers = [folded_answer(work, ours, case) - folded_answer(work, work / "folded", case) for case in CASES]
                errors = [decibels(eps, error) for eps, error in zip(expected, answers)]
                lines.append(row(f"edgetool, {way}", precision, f"{samples // 2} x 2 steps", done, errors))
                print(lines[-1], flush=True)
                shutil.rmtree(ours)
            if precision == "w4a16":
                continue  # onnxruntime's quantizer has no 4 bits for convolutions.
            peers = [("onnxruntime", sys.executable, samples)]
            if args.aimet and samples == max(args.samples):
                peers.append(("aimet-onnx", args.aimet, 1))
            for tool, python, seen in peers:
                size = (work / "plain/unet/model.onnx_data").stat().st_size / 1e9
                if free_gb() < size * (6.5 + 1.8 * seen + (7 if tool == "aimet-onnx" else 0)):
                    print(f"{seen} samples take {tool} more memory than the {free_gb():.0f} GB that are free")
                    continue
                model = work / "theirs/model.onnx"
                model.parent.mkdir(exist_ok=True)
                done = measure([python, __file__, "--work", work, "--theirs", tool, precision, seen, model])
                answers = [run(model, plain_feeds(work, case)) - eps for case, eps in zip(CASES, expected)]
                errors = [decibels(eps, error) for eps, error in zip(expected, answers)]
                lines.append(row(tool, precision, str(seen), done, errors))
                print(lines[-1], flush=True)
                shutil.rmtree(model.parent)
    return "\n".join(lines)


def weights_alone(args: argparse.Namespace, work: Path) -> list[str]:
    """Quantizing weights, and copying what it writes, from memory to disk both, in turns; the best of three."""
    out, copy = work / "w8", work / "w8-copy"
    quantize = [args.edgetool, "quantize", work / "folded", "--precision", "w8", "-o", out]
    rows = []
    for link in ([], ["--link"]):
        written = "unet" if link else "."
        seen: dict[str, list] = {"edgetool": [], "cp": []}
        for _ in range(3):
            for folder in (out, copy):
                shutil.rmtree(folder, ignore_errors=True)
            settle()
            seen["edgetool"].append(measure(synced(out, [*quantize, *link])))
            settle()
            seen["cp"].append(measure(synced(copy, ["cp", "-r", out / written, copy])))
        what = "W8, others linked" if link else "W8, others copied"
        for tool, name in (("edgetool", what), ("cp", f"{what}: what was written")):
            best = min(seen[tool], key=lambda done: done.seconds)
            rows.append(f"| {tool} | {name} | | {best.seconds:.2f} | {best.peak_mib:.0f} | | | |")
            print(rows[-1], flush=True)
    for folder in (out, copy):
        shutil.rmtree(folder)
    return rows


def synced(folder: Path, command: list[object]) -> list[object]:
    """A command that ends when what it wrote is on the disk."""
    return ["sh", "-c", 'folder=$1; shift; "$@" && sync -f "$folder"', "sh", folder, *command]


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
    known = np.load(work / "contexts.npy")
    context = known[-1:] if text else normal(900 + step, [1, *known.shape[1:]])
    return normal(800 + step, latent_shape(work)), context


def latent_shape(work: Path) -> list[int]:
    pipeline = json.loads((work / "folded/edgetool.json").read_text())["pipeline"]
    return [1, pipeline["latent_channels"], *(pipeline[side] // pipeline["vae_scale_factor"] for side in ("height", "width"))]


def plain_feeds(work: Path, case: tuple[int, bool]) -> dict[str, np.ndarray]:
    latent, context = inputs(work, case)
    return unet_feeds(latent, context, STEPS[case[0]])


def sample(work: Path, index: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Latent, context and place of the step of a sample to calibrate with."""
    return normal(index, latent_shape(work)), np.load(work / "contexts.npy")[index : index + 1], index % 2


def record(work: Path, samples: int) -> None:
    """The samples in a file, as the folded graphs take them."""
    from safetensors.numpy import save_file

    tensors: dict[str, list[np.ndarray]] = {}
    for index in range(samples):
        latent, context, step = sample(work, index)
        feeds = {"sample": latent, "encoder_hidden_states": context, "noise": normal(600 + index, list(latent.shape))}
        loaded = session(work / f"folded/unet/step_{step}.onnx")
        for name in (i.name for i in loaded.get_inputs()):
            tensors.setdefault(f"unet_step_{step}/{name}", []).append(feeds[name])
        del loaded
    save_file({name: np.concatenate(parts) for name, parts in tensors.items()}, work / "samples.safetensors")


def unet_feeds(latent: np.ndarray, context: np.ndarray, step: int) -> dict[str, np.ndarray]:
    # As diffusers embeds the guidance scale: the scale less one, times 1000, sines before cosines.
    half = WIDTH // 2
    angles = 1000 * (GUIDANCE - 1) * np.exp(np.arange(half) * -(np.log(10000.0) / (half - 1)))
    condition = np.concatenate([np.sin(angles), np.cos(angles)])[None].astype(np.float32)
    return {
        "sample": latent, "encoder_hidden_states": context, "timestep": np.array([step]), "timestep_cond": condition,
    }  # fmt: skip


def folded_answer(work: Path, folder: Path, case: tuple[int, bool]) -> np.ndarray:
    """The UNet's answer times its factor in the step, which is divided by: what else the step adds is the same for all."""
    latent, context = inputs(work, case)
    factor = json.loads((folder / "edgetool.json").read_text())["fold"]["steps"][case[0]]["output"]
    feeds = {"sample": latent, "encoder_hidden_states": context, "noise": normal(700, list(latent.shape))}
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
        ids = np.array([ids + ids[-1:] * (77 - len(ids))], np.int64)
        found.append(loaded.run(None, {"input_ids": ids})[0])
    return np.concatenate(found)


def theirs(work: Path, tool: str, precision: str, samples: str, model: str) -> None:
    """Another tool's quantizer, as its documentation has it for models with weights outside."""
    plain = work / "plain/unet/model.onnx"
    loaded = session(plain)
    kinds = {i.name: (i.type, i.shape) for i in loaded.get_inputs()}
    del loaded

    def feeds(index: int) -> dict[str, np.ndarray]:
        latent, context, step = sample(work, index)
        made = unet_feeds(latent, context, STEPS[step])
        typed = {n: f.astype(np.int32) if "int32" in kinds[n][0] else f for n, f in made.items()}
        return {n: f.reshape(kinds[n][1]) for n, f in typed.items()}

    run = {"onnxruntime": by_onnxruntime, "aimet-onnx": by_aimet}[tool]
    run(plain, model, precision == "w8a16", [feeds(index) for index in range(int(samples))])


def by_onnxruntime(plain: Path, model: str, wide: bool, samples: list[dict[str, np.ndarray]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = list(samples)

        def get_next(self):
            return self.left.pop(0) if self.left else None

    quantize_static(
        str(plain), model, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt16 if wide else QuantType.QUInt8, weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )  # fmt: skip


def by_aimet(plain: Path, model: str, wide: bool, samples: list[dict[str, np.ndarray]]) -> None:
    import aimet_onnx
    import onnx

    types = {"param_type": aimet_onnx.int8, "activation_type": aimet_onnx.int16 if wide else aimet_onnx.int8}
    made = aimet_onnx.QuantizationSimModel(onnx.load(plain), **types, providers=["CPUExecutionProvider"])
    made.compute_encodings(samples)
    onnx.save(made.to_onnx_qdq(), model, save_as_external_data=True, location="model.onnx_data")


def free_gb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


if __name__ == "__main__":
    main()
