#!/usr/bin/env python3
"""What diffusers' LatentConsistencyModelPipeline draws with the model in recipes/shapes.

    make_shapes_golden.py [--out recipes/shapes/golden.safetensors]

Every prompt at two and four steps from a seed of torch's CPU generator, weights as float32. The prompts are in the
file's metadata. The result is committed; one thread, so a second run on the same kind of machine gives the same file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from make_reference import prepare_torch
from safetensors.torch import save_file

RECIPE = Path(__file__).resolve().parents[2] / "recipes/shapes"
PROMPTS = ["a red heart on a white background", "a green heart on a yellow background", "a large blue ring, centered, black background"]
GUIDANCE = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=RECIPE / "golden.safetensors", help="file to write")
    args = parser.parse_args()
    prepare_torch(1)
    import torch
    from diffusers import AutoencoderTiny, LatentConsistencyModelPipeline

    kind = dict(torch_dtype=torch.float32)
    pipe = LatentConsistencyModelPipeline.from_pretrained(RECIPE / "model", safety_checker=None, **kind)
    tiny = AutoencoderTiny.from_pretrained(RECIPE / "model/taesd", **kind)
    pipe.set_progress_bar_config(disable=True)
    tensors = {}
    for index, prompt in enumerate(PROMPTS):
        for steps in (2, 4):
            key = f"{index}.s{steps}"
            call = dict(prompt=prompt, num_inference_steps=steps, guidance_scale=GUIDANCE, height=64, width=64)
            latent = pipe(**call, output_type="latent", generator=torch.Generator().manual_seed(index)).images
            with torch.no_grad():
                decoded = pipe.vae.decode(latent / pipe.vae.config.scaling_factor).sample
                small = tiny.decode(latent / tiny.config.scaling_factor).sample
            tensors |= {f"{key}.denoised": latent[None], f"{key}.decoded": decoded, f"{key}.taesd": small}
            image = pipe.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True])
            tensors[f"{key}.image_u8"] = (image * 255).round().to(torch.uint8)
        ids = pipe.tokenizer(prompt, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True)
        tensors[f"{index}.ids"] = torch.tensor([ids["input_ids"]])
    metadata = {f"prompt.{index}": prompt for index, prompt in enumerate(PROMPTS)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, args.out, metadata=metadata)


if __name__ == "__main__":
    main()
