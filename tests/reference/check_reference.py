#!/usr/bin/env python3
"""Reload checkpoints with from_pretrained and from_single_file and compare with their goldens.

    check_reference.py ref/tiny ref/tiny-sd15

This shows that a folder says what its goldens were computed from, whatever its key names, stored
type or layout.  Ends with the worst absolute difference; exit status 1 when one is over 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file

TOLERANCE = 1e-3  # the reloaded weights are the same; only the thread count may differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders made by make_reference.py")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    args = parser.parse_args()
    from make_reference import prepare_torch

    prepare_torch(args.threads)
    bad = 0
    for folder in args.folders:
        errors = check(folder)
        worst = max(errors.values())
        print(f"{folder.name}: worst {worst:.1e} over {len(errors)} comparisons")
        bad += worst > TOLERANCE
    sys.exit(1 if bad else 0)


@torch.no_grad()
def check(folder: Path) -> dict[str, float]:
    """The largest absolute difference of every golden that is compared."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    golden = load_file(folder / "golden.safetensors")
    doc = json.loads((folder / "golden.json").read_text())
    source = folder / doc["checkpoint"]
    errors = {}

    def compare(name: str, value: torch.Tensor, key: str | None = None) -> None:
        errors[name] = float((value - golden[key or name]).abs().max())

    text = CLIPTextModel.from_pretrained(source / "text_encoder", torch_dtype=torch.float32)
    compare("text.hidden", text(golden["text.ids"]).last_hidden_state)
    tokenizer = CLIPTokenizer.from_pretrained(source / "tokenizer")
    settings = dict(padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    ids = tokenizer(["a photo of a cat"], **settings)["input_ids"]
    compare("text.ids", ids.expand(1, -1).float(), "pipe.ids")

    def compare_unet(unet: UNet2DConditionModel, tag: str) -> None:
        cond = golden.get("unet.w_embedding")
        for key in [key for key in golden if key.startswith("unet.out.")][:2]:
            t = int(key.split(".")[-1])
            out = unet(golden["unet.latent"], t, golden["unet.context"], timestep_cond=cond)
            compare(tag + key, out.sample, key)

    def compare_vae(vae: AutoencoderKL, tag: str) -> None:
        compare(tag + "vae.image", vae.decode(golden["vae.decode_input"]).sample, "vae.image")
        key = "vae_encoder.latent_parameters"
        moments = vae.encode(golden["vae_encoder.sample"]).latent_dist.parameters
        compare(tag + key, moments, key)

    f32 = dict(torch_dtype=torch.float32)
    compare_unet(UNet2DConditionModel.from_pretrained(source / "unet", **f32), "")
    compare_vae(AutoencoderKL.from_pretrained(source / "vae", **f32), "")
    taesd = AutoencoderTiny.from_pretrained(source / "taesd", **f32)
    compare("taesd.image", taesd.decode(golden["vae.latent"]).sample)
    single = source / "single_file.safetensors"
    if single.exists():
        f32["config"] = str(source)
        unet = UNet2DConditionModel.from_single_file(str(single), subfolder="unet", **f32)
        compare_unet(unet, "single file: ")
        vae = AutoencoderKL.from_single_file(str(single), subfolder="vae", **f32)
        compare_vae(vae, "single file: ")
    return errors


if __name__ == "__main__":
    main()
