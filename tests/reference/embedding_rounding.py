#!/usr/bin/env python3
"""What diffusers' float32 roundings of the time and guidance embeddings do to a picture.

    embedding_rounding.py FOLDER [--steps N] [--guidance W]

Runs the UNet of a diffusers folder and the LCM scheduler in float64 twice: on sinusoids that are
rounded as diffusers rounds them, and on exact ones.  Prints the largest difference of a sinusoid,
and the relative L2 difference of the UNet's first output, of the last latent and of the picture.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a diffusers checkpoint")
    parser.add_argument("--steps", type=int, default=2, help="sampling steps (default 2)")
    parser.add_argument("--guidance", type=float, default=8.0, help="guidance scale (default 8)")
    args = parser.parse_args()
    from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(args.folder / "unet").double().eval()
    vae = AutoencoderKL.from_pretrained(args.folder / "vae").double().eval()
    generator = torch.Generator().manual_seed(0)
    size = unet.config.sample_size
    latent = torch.randn((1, 4, size, size), generator=generator).double()
    noise = torch.randn((args.steps, *latent.shape), generator=generator).double()
    context = torch.randn((1, 77, unet.config.cross_attention_dim), generator=generator).double()

    def draw(exact: bool) -> dict[str, torch.Tensor]:
        scheduler = LCMScheduler.from_pretrained(args.folder / "scheduler")
        scheduler.set_timesteps(args.steps)
        sample, seen, sinusoids = latent, {}, []
        for k, t in enumerate(scheduler.timesteps):
            time = time_embedding(unet, float(t), exact)
            condition = None
            if unet.config.time_cond_proj_dim:
                condition = guidance_embedding(args.guidance - 1, unet, exact)
                sinusoids.append(condition)
            sinusoids.append(time)
            unet.time_proj.forward = lambda _, time=time: time
            output = unet(sample, t, context, timestep_cond=condition).sample
            seen.setdefault("output", output)
            alpha, before = alphas(scheduler, k)
            denoised = (sample - math.sqrt(1 - alpha) * output) / math.sqrt(alpha)
            sample = math.sqrt(before) * denoised + math.sqrt(1 - before) * noise[k]
        seen["latent"] = denoised
        image = vae.decode(denoised / vae.config.scaling_factor).sample
        seen["image"] = (image / 2 + 0.5).clamp(0, 1)
        seen["sinusoids"] = torch.cat(sinusoids, dim=1)
        return seen

    with torch.no_grad():
        rounded, exact = draw(False), draw(True)
    largest = (rounded.pop("sinusoids") - exact.pop("sinusoids")).abs().max()
    print(f"sinusoids: {largest:.1e} at most")
    for name, value in exact.items():
        print(f"{name}: {torch.linalg.norm(rounded[name] - value) / torch.linalg.norm(value):.1e}")


def alphas(scheduler, k: int) -> tuple[float, float]:
    """The cumulated alphas of a step and of the next one."""
    steps = scheduler.timesteps
    following = steps[k + 1] if k + 1 < len(steps) else steps[k]
    return float(scheduler.alphas_cumprod[steps[k]]), float(scheduler.alphas_cumprod[following])


def time_embedding(unet, t: float, exact: bool) -> torch.Tensor:
    """Sinusoids of the timestep."""
    from diffusers.models.embeddings import get_timestep_embedding

    half = unet.config.block_out_channels[0] // 2
    shift, flip = unet.config.freq_shift, unet.config.flip_sin_to_cos
    if not exact:
        return get_timestep_embedding(torch.tensor([t]), 2 * half, flip, shift).double()
    rates = [math.exp(-math.log(10000) * i / (half - shift)) for i in range(half)]
    sines, cosines = [math.sin(t * r) for r in rates], [math.cos(t * r) for r in rates]
    return torch.tensor([cosines + sines if flip else sines + cosines], dtype=torch.float64)


def guidance_embedding(w: float, unet, exact: bool) -> torch.Tensor:
    """Sinusoids of the guidance scale."""
    from diffusers import LatentConsistencyModelPipeline

    width = unet.config.time_cond_proj_dim
    if not exact:
        embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        return embed(None, torch.tensor([w]), embedding_dim=width).double()
    half = width // 2
    angles = [1000 * w * math.exp(-math.log(10000) * i / (half - 1)) for i in range(half)]
    numbers = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor([numbers], dtype=torch.float64)


if __name__ == "__main__":
    main()
