#!/usr/bin/env python3
"""Draw with Optimum's ONNX Runtime pipeline from a converted folder, and compare.

    optimum_pipeline.py --folder OUT --golden REFERENCE/golden.safetensors [--edgetool BINARY]

The folder is loaded as it is, without export.  The picture of two steps with stored noise must
equal the golden one, and one from a seed must equal `edgetool run --seed`.  Needs Optimum, which
asks for older transformers and diffusers than the rest: see .ci/run for how both live together.
The last line is `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import numpy as np
import torch
from safetensors.torch import load_file

PROMPT = "a photo of a cat"
STEPS = 2
LIMIT = 1e-4
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="what `edgetool convert` wrote")
    parser.add_argument("--golden", type=Path, required=True, help="the reference's goldens")
    parser.add_argument("--edgetool", type=Path, help="also compare a seeded run with this binary")
    args = parser.parse_args()
    before = listing(args.folder)
    golden = load_file(args.golden)
    errors = {}
    for kind, pipeline in load(args.folder, "timestep_cond" in unet_inputs(args.folder)):
        guidance = 8.0 if "w_embedding.8" in golden or "unet.w_embedding" in golden else 1.0
        want = golden_image(golden, guidance)
        errors[f"{kind}, stored noise"] = relative(stored_run(pipeline, golden, guidance), want)
        if args.edgetool:
            ours = edgetool_image(args.edgetool, args.folder, guidance)
            generator = torch.Generator().manual_seed(SEED)
            errors[f"{kind}, seed {SEED}"] = relative(draw(pipeline, guidance, generator), ours)
    for name, error in errors.items():
        print(f"{'ok  ' if error <= LIMIT else 'FAIL'} {name}: relative L2 {error:.1e}")
    failed = sum(error > LIMIT for error in errors.values())
    if listing(args.folder) != before:
        print("FAIL the folder changed")
        failed += 1
    print(f"{len(errors) + 1 - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def unet_inputs(folder: Path) -> list[str]:
    """The UNet graph's input names."""
    import onnx

    model = onnx.load(folder / "unet/model.onnx", load_external_data=False)
    return [value.name for value in model.graph.input]


def load(folder: Path, lcm: bool):
    """The general pipeline class, and the LCM one where the UNet has the guidance embedding."""
    from optimum.onnxruntime import ORTDiffusionPipeline, ORTLatentConsistencyModelPipeline

    for kind in [ORTDiffusionPipeline, *([ORTLatentConsistencyModelPipeline] if lcm else [])]:
        pipeline = kind.from_pretrained(folder, export=False)
        pipeline.set_progress_bar_config(disable=True)
        yield kind.__name__, pipeline


def draw(pipeline, guidance: float, generator: torch.Generator | None = None, **options):
    """The float image in [0, 1]."""
    return (
        pipeline(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=generator,
            output_type="np",
            **options,
        )
        .images[0]
        .transpose(2, 0, 1)
    )


def stored_run(pipeline, golden: dict[str, torch.Tensor], guidance: float) -> np.ndarray:
    """A run in which the latent and every step's noise are given."""
    import diffusers.schedulers.scheduling_lcm as module

    queue, saved = list(golden["pipe.noise"]), module.randn_tensor
    module.randn_tensor = lambda shape, **_: queue.pop(0).reshape(shape)
    try:
        return draw(pipeline, guidance, latents=golden["pipe.latent"].clone())
    finally:
        module.randn_tensor = saved


def golden_image(golden: dict[str, torch.Tensor], guidance: float) -> np.ndarray:
    """The stored image in [0, 1]."""
    decoded = golden[f"pipe.s{STEPS}.g{guidance:g}.decoded"]
    return (decoded / 2 + 0.5).clamp(0, 1)[0].numpy()


def edgetool_image(binary: Path, folder: Path, guidance: float) -> np.ndarray:
    """The same run by `edgetool run`, as floats."""
    with tempfile.TemporaryDirectory() as work:
        saved = Path(work) / "saved.safetensors"
        command: list[object] = [binary, "run", folder, "--prompt", PROMPT, "--seed", SEED]
        command += ["--steps", STEPS, "--guidance", f"{guidance:g}"]
        command += ["-o", Path(work) / "out.png", "--save-tensors", saved]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return load_file(saved)["image"].reshape(3, *load_file(saved)["image"].shape[-2:]).numpy()


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want|."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


if __name__ == "__main__":
    main()
