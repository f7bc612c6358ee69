#!/usr/bin/env python3
"""Make a seeded random-weight latent-diffusion checkpoint and its golden inputs and outputs.

    make_reference.py --variant tiny --out ref/tiny

writes a diffusers-format folder (unet/ vae/ text_encoder/ scheduler/ taesd/ tokenizer/
model_index.json) plus

    golden.safetensors   inputs, and what diffusers and transformers compute from them
    golden.json          what each tensor is, the settings used, where the checkpoint lies

Nothing is downloaded and no trained weight is used: every weight is drawn by weights.py.  Every
golden number comes from diffusers' and transformers' own modules, pipelines and LCMScheduler in
float32, computed from the weights as stored.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from checkpoint import build, finish, move_into_hub_cache, save_checkpoint
from golden import Golden, make_golden, rounding_error
from make_tokenizer import write_tokenizer
from safetensors.torch import save_file
from single_file import check_single_file, write_single_file
from variants import TINY, VARIANTS, Variant

PROMPTS = ["a photo of a cat", "A red bicycle leaning on a wall, 35mm, golden hour!"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="variants:\n" + "\n".join(f"  {k:17} {v.note}" for k, v in VARIANTS.items()),
    )
    parser.add_argument("--variant", required=True, help="a name below, or all-tiny")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder to write (for all-tiny: its parent)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; 1 gives the same bytes again"
    )
    args = parser.parse_args()
    prepare_torch(args.threads)
    if args.variant == "all-tiny":
        for name in TINY:
            make(name, VARIANTS[name], args.out / name, args.seed)
    elif args.variant in VARIANTS:
        make(args.variant, VARIANTS[args.variant], args.out, args.seed)
    else:
        parser.error(f"unknown variant {args.variant}; known: {', '.join(VARIANTS)}")


def prepare_torch(threads: int = 1) -> None:
    """Deterministic arithmetic and a quiet library."""
    import diffusers
    import transformers

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def make(name: str, spec: Variant, out: Path, seed: int) -> Golden:
    """Writes one variant's checkpoint and goldens into `out`, replacing what is there."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    vocab, ids, empty_ids = tokenize(spec, out / "tokenizer")
    with torch.no_grad():
        models, scheduler = build(spec, seed, vocab)
        finish(models, scheduler, spec, ids, seed)
        save_checkpoint(models, scheduler, spec, out)
        if spec.single_file:
            write_single_file(out, spec, scheduler)
            check_single_file(out)
        checkpoint = move_into_hub_cache(out, name) if spec.hub_cache else out
        golden = make_golden(models, scheduler, spec, ids, empty_ids, seed)
        floor = None
        if spec.sample < 64:
            floor = rounding_error(golden, models, scheduler, spec, ids, empty_ids)
    save_file(golden.tensors, out / "golden.safetensors")
    doc = {
        "variant": name,
        "note": spec.note,
        "seed": seed,
        "checkpoint": str(checkpoint.relative_to(out)),
        "float32_rounding_of_2_step_image": floor,
        "settings": dataclasses.asdict(spec),
        "tensors": golden.about,
        "made_with": versions(),
    }
    (out / "golden.json").write_text(json.dumps(doc, indent=1) + "\n")
    print_summary(name, out, models, golden, floor)
    return golden


def tokenize(spec: Variant, folder: Path) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Writes the tokenizer; returns vocabulary size, ids of two prompts and of the empty one."""
    from transformers import CLIPTokenizer

    write_tokenizer(folder, merges=spec.merges, pad_token=spec.pad)
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def encode(prompts: list[str]) -> torch.Tensor:
        settings = dict(padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return tokenizer(prompts, **settings)["input_ids"]

    vocab = 512 + spec.merges + 2
    if len(tokenizer) != vocab:
        raise RuntimeError(f"expected {vocab} tokens, got {len(tokenizer)}")
    return vocab, encode(PROMPTS), encode([""])


def versions() -> dict[str, str | int]:
    """What the goldens were made with."""
    import diffusers
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }


def print_summary(name: str, out: Path, models, golden: Golden, floor: float | None) -> None:
    """One line on sizes, one on the scale of the signals."""
    files = [f for f in out.rglob("*") if f.is_file() and not f.is_symlink()]
    size = sum(f.stat().st_size for f in files)
    params = {k: sum(p.numel() for p in m.parameters()) for k, m in models.items()}
    print(f"{name}: {size / 1e6:.2f} MB, parameters {params}, float32 rounding {floor}")
    tensors = golden.tensors
    keys = ["text.hidden", "unet.out.999", "unet.out.499", "vae.image", "taesd.image"]
    keys.append("vae_encoder.latent_parameters")
    keys += [k for k in tensors if k.startswith("pipe.s2") and k.endswith("denoised")]
    stats = [f"{k} std {tensors[k].std():.3f} max {tensors[k].abs().max():.2f}" for k in keys]
    print("   " + "; ".join(stats))


if __name__ == "__main__":
    main()
