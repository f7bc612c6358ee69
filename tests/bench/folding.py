#!/usr/bin/env python3
"""Count and time what folding takes out of a full-size UNet.

    folding.py --work DIR [--edgetool target/release/edgetool] [--table docs/folding.md]

makes a checkpoint of BK-SDM-Tiny's size with the guidance embedding in DIR, if it is not there
(1.9 GB; torch's own random weights: neither counts nor times depend on them), converts it without
and with folding, and prints nodes, parameters and MACs of a step, the time of a step on tract, and
the bytes on disk.  The forms take turns; compare figures within one table only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests/parity")]

from measure import best, measure  # noqa: E402
from report import write_after_marker  # noqa: E402

FORMS = {
    "not folded": [],
    "table": ["--fold", "table"],
    "per-step": ["--fold", "per-step"],
    "per-step, hoisted keys and values": ["--fold", "per-step", "--hoist-kv"],
    "unrolled": ["--fold", "unrolled"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    parser.add_argument("--work", type=Path, required=True, help="checkpoint and conversions")
    parser.add_argument(
        "--edgetool", type=Path, default=target / "release/edgetool", help="the binary"
    )
    parser.add_argument("--table", type=Path, help="also write the tables here")
    parser.add_argument("--rounds", type=int, default=2, help="turns (default 2)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    args = parser.parse_args()
    args.edgetool, args.work = args.edgetool.resolve(), args.work.resolve()
    checkpoint = args.work / "full-random"
    if not checkpoint.exists():
        make_checkpoint(checkpoint)
    rows: list[list[str]] = []
    seconds: dict[str, tuple[Path, list[float]]] = {}
    for label, options in FORMS.items():
        folder = args.work / "folding" / label.split(",")[0].replace(" ", "-")
        if "hoisted" in label:
            folder = folder.with_name("hoisted")
        folder.parent.mkdir(exist_ok=True)
        command = [args.edgetool, "convert", checkpoint, "-o", folder, "--force", *options]
        measure(command)
        seconds[label] = (folder, [])
    for _ in range(args.rounds):
        for folder, times in seconds.values():
            times.append(step_seconds(args, folder))
    for label, (folder, times) in seconds.items():
        rows.append(row(args, label, folder, best(times)))
    table = ["| form | nodes | parameters | MACs | inputs | s a step |", "|---|---|---|---|---|---|"]
    table += ["| " + " | ".join(cells) + " |" for cells in rows]
    text = "\n".join([*table, "", sizes(args, checkpoint)])
    print(text)
    if args.table:
        write_after_marker(args.table, text + "\n")
    shutil.rmtree(args.work / "folding")


def unet(folder: Path) -> tuple[dict, int]:
    """The graph of a step, or of all steps, and how many those are."""
    manifest = json.loads((folder / "edgetool.json").read_text())
    names = ["unet", "unet_step_0", "sampler"]
    component = next(c for c in manifest["components"] if c["name"] in names)
    steps = len(manifest["fold"]["steps"]) if component["name"] == "sampler" else 1
    return component, steps


def step_seconds(args: argparse.Namespace, folder: Path) -> float:
    """The best of two runs after one that warms up, for one step."""
    component, steps = unet(folder)
    given, result = args.work / "in.safetensors", args.work / "out.safetensors"
    generator = np.random.default_rng(0)
    feeds = {}
    for port in component["inputs"]:
        if port["dtype"] == "int64":
            value = 999 if port["name"] == "timestep" else 0
            feeds[port["name"]] = np.full(port["shape"], value)
        else:
            feeds[port["name"]] = generator.standard_normal(port["shape"]).astype(np.float32)
    save_file(feeds, given)
    command = [args.edgetool, "eval", folder / component["file"], "--inputs", given, "-o", result]
    command += ["--threads", args.threads, "--repeat", 3, "--format", "json"]
    return min(json.loads(measure(command).stdout)["seconds"][1:]) / steps


def row(args: argparse.Namespace, label: str, folder: Path, seconds: float) -> list[str]:
    """A form's figures."""
    component, steps = unet(folder)
    file = folder / component["file"]
    shown = json.loads(measure([args.edgetool, "inspect", file, "--format", "json"]).stdout)
    stats = shown["components"][0]
    nodes = sum(stats["operators"].values())
    return [
        f"{label}, {steps} steps" if steps > 1 else label,
        str(nodes),
        f"{stats['parameters'] / 1e6:.2f} M",
        f"{stats['macs'] / 1e9:.2f} G",
        str(len(component["inputs"])),
        f"{seconds:.2f}",
    ]


def sizes(args: argparse.Namespace, checkpoint: Path) -> str:
    """Bytes of the UNets of one and of two steps."""
    found = []
    for steps in (1, 2):
        folder = args.work / "folding" / f"size{steps}"
        options = ["--fold", "per-step", "--steps", steps]
        measure([args.edgetool, "convert", checkpoint, "-o", folder, "--force", *options])
        found.append(sum(file.stat().st_size for file in (folder / "unet").iterdir()))
    one, two = found
    return (
        f"The folder `unet` of `per-step` has {one:,} bytes for one step and {two:,} for two: "
        f"{two / one:.4f} times as many.\n"
    )


def make_checkpoint(folder: Path) -> None:
    """A diffusers folder of the size of BK-SDM-Tiny with LCM's guidance embedding."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    fixture = ROOT / "tests/fixtures/edgefusion"
    ignored = shutil.ignore_patterns("golden*", "unet", "vae", "text_encoder", "taesd")
    shutil.copytree(fixture, part, ignore=ignored)
    cross = "CrossAttn{}Block2D"
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280),
        down_block_types=[cross.format("Down")] * 3,
        up_block_types=[cross.format("Up")] * 3,
        mid_block_type=None,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=768,
        time_cond_proj_dim=256,
    ).save_pretrained(part / "unet")
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
    ).save_pretrained(part / "vae")
    text = CLIPTextConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    )
    CLIPTextModel(text).save_pretrained(part / "text_encoder")
    part.rename(folder)


if __name__ == "__main__":
    main()
