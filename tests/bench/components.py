"""Times each component on edgetool, onnxruntime, OpenVINO and torch, in turns."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from executors import OnnxRuntime, OpenVino, relative_l2
from measure import best, measure, median
from safetensors.numpy import load_file, save_file

# Component: calls per turn, and the limit of our time to onnxruntime's.
PARTS = {
    "text_encoder": (5, 1.7),
    "unet": (2, 1.35),
    "taesd_decoder": (2, None),
    "vae_decoder": (1, 1.6),
}


def component_rows(
    args: argparse.Namespace, reference: Path, checkpoint: Path, folder: Path, over: list[str]
) -> list[list[str]]:
    """A row per component and runner; a ratio compares it with onnxruntime's."""
    rows = [["component", "runner", "best s", "median s", "to onnxruntime", "error"]]
    golden = load_file(reference / "golden.safetensors")
    for component, (calls, limit) in PARTS.items():
        inputs, want = case(component, golden)
        times, errors = time_component(args, component, checkpoint, folder, inputs, want, calls)
        base = (best(times["onnxruntime"]), median(times["onnxruntime"]))
        for runner, seconds in times.items():
            fastest, middle = best(seconds), median(seconds)
            ratio = f"{fastest / base[0]:.2f} / {middle / base[1]:.2f}"
            figures = [f"{fastest:.3f}", f"{middle:.3f}", ratio, f"{errors[runner]:.0e}"]
            rows.append([component, runner, *figures])
        if limit and best(times["edgetool"]) > limit * base[0]:
            ratio = best(times["edgetool"]) / base[0]
            over.append(f"{component}: {ratio:.2f} times onnxruntime, limit {limit}")
    return rows


def case(component: str, golden: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A component's inputs and golden output."""
    if component == "text_encoder":
        return {"input_ids": golden["text.ids"][:1]}, golden["text.hidden"][:1]
    if component == "unet":
        inputs = {
            "sample": golden["unet.latent"],
            "timestep": np.array([999]),
            "encoder_hidden_states": golden["unet.context"],
        }
        if "unet.w_embedding" in golden:
            inputs["timestep_cond"] = golden["unet.w_embedding"]
        return inputs, golden["unet.out.999"]
    if component == "vae_decoder":
        return {"latent_sample": golden["vae.decode_input"]}, golden["vae.image"]
    return {"latent_sample": golden["vae.latent"]}, golden["taesd.image"]


def time_component(
    args: argparse.Namespace,
    component: str,
    checkpoint: Path,
    folder: Path,
    inputs: dict[str, np.ndarray],
    want: np.ndarray,
    calls: int,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every call, and the error of the last, by runner."""
    model = folder / component / "model.onnx"
    runtime, openvino = OnnxRuntime(args.threads), OpenVino(args.threads)
    torch_call = torch_runner(component, checkpoint, args.threads)
    runners: dict[str, Callable[[], np.ndarray]] = {
        "onnxruntime": lambda: first(runtime.run(model, inputs)),
        "openvino": lambda: first(openvino.run(model, inputs)),
        "torch": lambda: torch_call(inputs),
    }
    times: dict[str, list[float]] = {"edgetool": [], **{name: [] for name in runners}}
    errors = {name: relative_l2(call(), want) for name, call in runners.items()}  # warms up
    with tempfile.TemporaryDirectory() as work:
        given, result = Path(work) / "in.safetensors", Path(work) / "out.safetensors"
        save_file(inputs, given)
        for _ in range(args.rounds):
            seconds = edgetool_seconds(args, model, given, result, calls)
            times["edgetool"] += seconds
            for name, call in runners.items():
                for _ in range(calls):
                    start = time.perf_counter()
                    call()
                    times[name].append(time.perf_counter() - start)
        errors["edgetool"] = relative_l2(first(load_file(result)), want)
    return times, errors


def edgetool_seconds(
    args: argparse.Namespace, model: Path, given: Path, result: Path, calls: int
) -> list[float]:
    """Times of `calls` evaluations after one that warms up."""
    command = [args.edgetool, "eval", model, "--inputs", given, "-o", result]
    command += ["--threads", args.threads, "--repeat", calls + 1, "--format", "json"]
    return json.loads(measure(command).stdout)["seconds"][1:]


def first(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The only output."""
    return next(iter(outputs.values()))


def torch_runner(
    component: str, checkpoint: Path, threads: int
) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The component as diffusers or transformers runs it, in float32."""
    import torch
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.set_num_threads(threads)
    kinds = {
        "text_encoder": (CLIPTextModel, "text_encoder"),
        "unet": (UNet2DConditionModel, "unet"),
        "vae_decoder": (AutoencoderKL, "vae"),
        "taesd_decoder": (AutoencoderTiny, "taesd"),
    }
    kind, part = kinds[component]
    model = kind.from_pretrained(checkpoint / part, torch_dtype=torch.float32).eval()

    def call(inputs: dict[str, np.ndarray]) -> np.ndarray:
        values = {name: torch.from_numpy(value) for name, value in inputs.items()}
        with torch.inference_mode():
            if component == "text_encoder":
                return model(**values).last_hidden_state.numpy()
            if component == "unet":
                return model(**values).sample.numpy()
            return model.decode(values["latent_sample"]).sample.numpy()

    return call
