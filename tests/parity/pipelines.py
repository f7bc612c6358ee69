"""Whole pipelines: by edgetool, by diffusers, and by hand around another executor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from executors import Edgetool, Executor
from reference import PROMPT, Reference
from safetensors.numpy import load_file, save_file


def image_of(decoded: np.ndarray) -> np.ndarray:
    """The image in [0, 1] of a decoder's output."""
    return np.clip(decoded / np.float32(2) + np.float32(0.5), 0, 1)


def read_png(path: Path) -> np.ndarray:
    """8-bit values as [3, H, W]."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def pixel_difference(pixels: np.ndarray, image: np.ndarray) -> tuple[float, int]:
    """Share of values that differ from round(255 * image), and by how much at most."""
    want = np.rint(image.reshape(pixels.shape) * np.float32(255)).astype(np.int16)
    difference = np.abs(pixels.astype(np.int16) - want)
    return float((difference > 0).mean()), int(difference.max())


def run_edgetool(
    edgetool: Edgetool,
    model: Path,
    reference: Reference,
    work: Path,
    steps: int,
    guidance: float,
    options: list[str] | None = None,
    seed: int | None = None,
) -> tuple[dict[str, np.ndarray], Path]:
    """`edgetool run` with the reference's noise, or with a seed: saved tensors, and the PNG."""
    png, saved = work / "out.png", work / "saved.safetensors"
    for path in (png, saved):
        path.unlink(missing_ok=True)
    args: list[object] = ["run", model, "--prompt", PROMPT, "-o", png, "--steps", steps]
    args += ["--guidance", f"{guidance:g}", "--save-tensors", saved]
    args += ["--threads", edgetool.threads]
    if seed is None:
        given = work / "latents.safetensors"
        golden = reference.golden
        save_file({"latent": golden["pipe.latent"], "noise": golden["pipe.noise"]}, given)
        args += ["--latents", given]
    else:
        args += ["--seed", seed]
    edgetool.call(*args, *(options or []))
    return load_file(saved), png


def drive(
    executor: Executor, folder: Path, reference: Reference, steps: int, guidance: float
) -> np.ndarray:
    """The image that diffusers' LCMScheduler and the converted graphs give on another executor."""
    import torch
    from diffusers import LCMScheduler
    from golden import GivenNoise

    golden = reference.golden

    def component(name: str, **inputs: np.ndarray) -> np.ndarray:
        outputs = executor.run(folder / name / "model.onnx", inputs)
        return next(iter(outputs.values()))

    contexts = [component("text_encoder", input_ids=golden["pipe.ids"])]
    if guidance > 1 and not reference.spec.time_cond:
        contexts.append(component("text_encoder", input_ids=golden["pipe.empty_ids"]))
    extra = {}
    if reference.spec.time_cond:
        extra["timestep_cond"] = golden[f"w_embedding.{guidance:g}"]
    scheduler = LCMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    sample = torch.from_numpy(golden["pipe.latent"])
    with GivenNoise(torch.from_numpy(golden["pipe.noise"])):
        for t in scheduler.timesteps:
            outputs = [
                component(
                    "unet",
                    sample=sample.numpy(),
                    timestep=np.array([int(t)]),
                    encoder_hidden_states=context,
                    **extra,
                )
                for context in contexts
            ]
            output = outputs[0]
            if len(outputs) == 2:
                output = outputs[1] + np.float32(guidance) * (outputs[0] - outputs[1])
            output = torch.from_numpy(output)
            sample, denoised = scheduler.step(output, t, sample, return_dict=False)
    scale = np.float32(load_scaling_factor(folder))
    return image_of(component("vae_decoder", latent_sample=denoised.numpy() / scale))


def load_scaling_factor(folder: Path) -> float:
    """From the config.json beside the decoder, as Optimum reads it."""
    import json

    return json.loads((folder / "vae_decoder/config.json").read_text())["scaling_factor"]


def taesd_image(reference: Reference, tag: str) -> np.ndarray:
    """What AutoencoderTiny makes of a stored run's last latent."""
    import torch
    from diffusers import AutoencoderTiny

    folder = reference.checkpoint / "taesd"
    taesd = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32)
    latent = torch.from_numpy(reference.golden[f"{tag}.denoised"][-1])
    with torch.no_grad():
        return image_of(taesd.decode(latent).sample.numpy())


def seeded_image(reference: Reference, seed: int) -> np.ndarray:
    """Two steps of diffusers' own pipeline with torch's CPU generator."""
    import torch
    from diffusers import LatentConsistencyModelPipeline, StableDiffusionPipeline

    kind = StableDiffusionPipeline
    if reference.spec.time_cond:
        kind = LatentConsistencyModelPipeline
    pipeline = kind.from_pretrained(reference.checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=reference.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images
    return images.float().numpy()
