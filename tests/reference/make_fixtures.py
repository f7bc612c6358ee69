#!/usr/bin/env python3
"""Make the small checkpoints and goldens that the Rust tests read, in tests/fixtures/.

    make_fixtures.py [--out tests/fixtures] [--only NAME]

The result is committed.  One thread, fixed seeds: a second run on the same kind of machine with
the same library versions gives the same files.  The weights are random numbers drawn by weights.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from make_reference import make, prepare_torch
from safetensors.torch import save_file
from variants import FOUR_BLOCKS, Variant

# Narrower than make_reference.py's variants, since these are committed.
SMALL = dict(text_hidden=32, text_layers=2, merges=254, taesd=8, vae_channels=(8, 8, 8, 8))
FIXTURES: dict[str, Variant] = {
    "edgefusion": Variant(
        "BK-SDM-Tiny block structure with the guidance embedding, as EdgeFusion; fp16",
        channels=(16, 16, 24),
        dtype="float16",
        sample=12,
        unet_steps=2,
        **SMALL,
    ),
    "sd15": Variant(
        "SD 1.5 block structure (4 blocks, mid block, 2 layers), no guidance embedding, text keys "
        "without prefix; fp16; the same weights also as one original-layout file",
        **{**FOUR_BLOCKS, "channels": (16, 16, 16, 16)},
        mid=True,
        layers=2,
        single_file=True,
        bare_text_keys=True,
        dtype="float16",
        sample=8,
        unet_steps=2,
        **SMALL,
    ),
    "sd2": Variant(
        "SD 2 style: linear projections, head list, gelu text encoder, '!' padding, v-prediction; bf16",
        **{**FOUR_BLOCKS, "channels": (16, 16, 16, 24)},
        mid=True,
        linear_projection=True,
        heads=(2, 2, 4, 3),
        prediction="v_prediction",
        text_act="gelu",
        pad="!",
        dtype="bfloat16",
        sample=8,
        unet_steps=2,
        **SMALL,
    ),
}
# Goldens that no Rust test needs: scheduler_cases.json covers the scheduler, and at one and four
# steps the latents say all that the decoded image would.
DROPPED = ("lcm", "text.penultimate", "w_embedding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    default = Path(__file__).resolve().parent.parent / "fixtures"
    parser.add_argument("--out", type=Path, default=default, help="folder (default tests/fixtures)")
    parser.add_argument("--only", choices=FIXTURES, help="make one of them")
    args = parser.parse_args()
    prepare_torch(1)
    for name, spec in FIXTURES.items():
        if args.only in (None, name):
            golden = make(name, spec, args.out / name, seed=0)
            trim(golden.tensors, golden.about, args.out / name)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


def trim(tensors: dict, about: dict[str, str], folder: Path) -> None:
    """Rewrites the goldens with what the tests need."""

    def wanted(key: str) -> bool:
        if key.startswith(DROPPED):
            return False
        if key.startswith("pipe.") and key.endswith(".image"):
            return False  # image_u8 says it
        return not (key.endswith(".decoded") and ".s2." not in key)

    kept = [key for key in tensors if wanted(key)]
    save_file({key: tensors[key] for key in kept}, folder / "golden.safetensors")
    path = folder / "golden.json"
    doc = json.loads(path.read_text())
    doc["tensors"] = {key: about[key] for key in kept}
    path.write_text(json.dumps(doc, indent=1) + "\n")


if __name__ == "__main__":
    main()
