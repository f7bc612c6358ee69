"""Makes and loads the references that parity.py compares with."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parent / "reference"
sys.path.insert(0, str(REFERENCE))

from variants import TINY, VARIANTS, Variant  # noqa: E402

PROMPT = "a photo of a cat"
__all__ = ["PROMPT", "TINY", "VARIANTS", "Reference", "load_reference"]


class Reference:
    """A checkpoint and what diffusers computes from it."""

    def __init__(self, folder: Path) -> None:
        doc = json.loads((folder / "golden.json").read_text())
        self.folder = folder
        self.name: str = doc["variant"]
        self.checkpoint = folder / doc["checkpoint"]
        self.spec: Variant = VARIANTS[self.name]
        self.golden: dict[str, np.ndarray] = load_file(folder / "golden.safetensors")
        self.rounding: float = doc["float32_rounding_of_2_step_image"]

    @property
    def guidance(self) -> float:
        """The guidance of the plain runs: one UNet pass per step."""
        return 8.0 if self.spec.time_cond else 1.0

    def runs(self) -> list[tuple[int, float]]:
        """(steps, guidance) of every stored run."""
        runs = [(steps, self.guidance) for steps in self.spec.steps]
        return runs if self.spec.time_cond else [*runs, (2, 1.5)]


def load_reference(name: str, work: Path) -> Reference:
    """The reference `name`, made when it is absent or older than the scripts that make it."""
    folder, stamp = work / name, work / f"{name}.stamp"
    key = scripts_hash()
    if not stamp.exists() or stamp.read_text() != key:
        from make_reference import make, prepare_torch

        shutil.rmtree(folder, ignore_errors=True)
        prepare_torch(1)
        make(name, VARIANTS[name], folder, seed=0)
        stamp.write_text(key)
    return Reference(folder)


def scripts_hash() -> str:
    """Changes whenever the references would."""
    import diffusers
    import torch
    import transformers

    digest = hashlib.sha256()
    for library in (torch, diffusers, transformers):
        digest.update(library.__version__.encode())
    for path in sorted(REFERENCE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
