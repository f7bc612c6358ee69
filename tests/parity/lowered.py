#!/usr/bin/env python3
"""Compare lowered graphs with those that they are made from, on edgetool (tract) and onnxruntime.

    lowered.py --work DIR [--edgetool target/release/edgetool] [--table docs/lowerings.md] [VARIANT...]

For every tiny variant: convert the reference plainly, with each lowering alone, and for each
built-in target; feed every component of both the same inputs; the outputs must agree.  Figures are
relative L2 errors.  The last line is `N passed, N failed`; the exit status is 1 when one failed.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")

EXACT_LIMIT = 1e-5
# The error of a whole network; the functions themselves are off by 4.8e-4 and 2.1e-2 at most.
LIMITS = {"gelu: tanh": 1e-3, "gelu: sigmoid": 5e-2}
# Attention in chunks needs rows that fill one.
OPTIONS = (
    "gelu: native",
    "gelu: tanh",
    "gelu: sigmoid",
    "geglu: two-projections",
    "sigmoid: tanh",
    "attention_scale: weights",
    "attention: per-head",
    "query_chunk: 24",
    "skip_concat: two-convs",
    "upsample: depth-to-space",
    "group_norm: native",
    "group_norm: decomposed",
    "norm_affine: conv",
    "linear: conv1x1",
    "linear: matmul",
    "layer_norm: decomposed",
    "index: int32",
)
HEAD = """Worst relative L2 error of lowered networks against those that they are made from, over all
components of {variants}, from `tests/parity/lowered.py`: each lowering alone, and all of each
target. `edgetool` and `onnxruntime` run the same ONNX files.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("variants", nargs="*", help="which variants (default: every tiny one)")
    parser.add_argument("--work", type=Path, required=True, help="where references are kept")
    parser.add_argument("--edgetool", type=Path, help="the binary")
    parser.add_argument("--table", type=Path, help="write the achieved errors as markdown")
    parser.add_argument("--threads", type=int, default=2, help="threads of every executor")
    args = parser.parse_args()

    from executors import Edgetool, OnnxRuntime
    from parity import default_binary
    from reference import TINY, load_reference
    from report import Report, write_after_marker

    edgetool = Edgetool((args.edgetool or default_binary()).resolve(), args.threads)
    onnxruntime = OnnxRuntime(args.threads)
    report = Report()
    args.work.mkdir(parents=True, exist_ok=True)
    errors: dict[str, dict[str, float]] = {}
    for name in args.variants or TINY:
        start = time.monotonic()
        report.variant = name
        scratch = args.work / f"{name}.lowered"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        reference = load_reference(name, args.work)
        Lowered(reference, [edgetool, onnxruntime], report, scratch, errors).run()
        onnxruntime.forget()
        shutil.rmtree(scratch)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    table = markdown(errors)
    print(table)
    if args.table:
        variants = ", ".join(f"`{name}`" for name in args.variants or TINY)
        write_after_marker(args.table, HEAD.format(variants=variants) + table)
    print(report.summary())
    sys.exit(1 if report.failed() else 0)


class Lowered:
    """All comparisons of one reference."""

    def __init__(self, reference, executors, report, work, errors) -> None:
        self.ref, self.executors, self.report = reference, executors, report
        self.work, self.errors = work, errors
        self.edgetool = executors[0]
        self.plain: dict[tuple[str, str], np.ndarray] = {}
        self.names: list[str] = []

    def run(self) -> None:
        """The plain conversion, then every lowering and target."""
        folder = self.convert("plain", "--opset", "21")
        for executor in self.executors:
            for model in sorted(folder.glob("*/model.onnx")):
                self.names.append(model.parent.name)
                self.plain[executor.name, model.parent.name] = self.output(executor, model)
        for option in OPTIONS:
            target = self.work / "alone.yaml"
            target.write_text(self.target(option))
            self.compare(f"`{option}`", LIMITS.get(option, EXACT_LIMIT), target)
        listed = json.loads(self.edgetool.call("targets", "--format", "json"))["targets"]
        for target in listed:
            gelu = f"gelu: {target['graph'].get('gelu', 'erf')}"
            limit = LIMITS.get(gelu, EXACT_LIMIT)
            self.compare(f"target `{target['name']}`", limit, target["name"])

    def target(self, option: str) -> str:
        """A target that asks for one lowering and takes every operator."""
        listed = json.loads(self.edgetool.call("targets", "--format", "json"))["targets"]
        more = {"DepthToSpace", "Erf", "Gelu", "Gemm", "GroupNormalization", "ReduceMean", "Sqrt"}
        ops = sorted(more.union(*(target["ops"] for target in listed)))
        return (
            "schema: target/v1\nname: alone\nabout: one lowering\n"
            f"graph:\n  opset: 21\n  max_rank: 4\n  {option}\nops: {json.dumps(ops)}\n"
        )

    def convert(self, name: str, *options: object) -> Path:
        """Converts the reference's checkpoint."""
        folder = self.work / name
        self.edgetool.call("convert", self.ref.checkpoint, "-o", folder, "--force", *options)
        return folder

    def compare(self, label: str, limit: float, target: object) -> None:
        """One target against the plain conversion, on every executor."""
        folder = self.report.require("convert", label, lambda: self.convert("one", "--target", target))
        if folder is None:
            return
        for executor in self.executors:
            for model in sorted(folder.glob("*/model.onnx")):
                component = model.parent.name

                def error(executor=executor, model=model, component=component) -> float:
                    from executors import relative_l2

                    if same_files(model.parent, self.work / "plain" / component):
                        return 0.0
                    found = self.output(executor, model)
                    error = relative_l2(found, self.plain[executor.name, component])
                    row = self.errors.setdefault(label, {"limit": limit})
                    row[executor.name] = max(row.get(executor.name, 0.0), error)
                    return error

                self.report.measure(executor.name, f"{label} {component}", limit, error)
        self.executors[1].forget()

    def output(self, executor, model: Path) -> np.ndarray:
        """What a component gives for the reference's inputs, in the types that it declares."""
        import onnx

        golden = self.ref.golden
        given = {
            "input_ids": golden["text.ids"][:1],
            "sample": golden["unet.latent"],
            "timestep": np.array([499]),
            "encoder_hidden_states": golden["unet.context"],
            "latent_sample": golden["vae.latent"],
        }
        if model.parent.name == "vae_encoder":
            given["sample"] = golden["vae_encoder.sample"]
        if "unet.w_embedding" in golden:
            images = len(golden["unet.latent"])
            given["timestep_cond"] = np.repeat(golden["unet.w_embedding"], images, axis=0)
        declared = onnx.load(model, load_external_data=False).graph.input
        types = {i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in declared}
        inputs = {name: given[name].astype(dtype) for name, dtype in types.items()}
        return next(iter(executor.run(model, inputs).values()))


def same_files(one: Path, other: Path) -> bool:
    """Whether a pass left a component alone: then there is nothing to run."""
    names = ["model.onnx", "model.onnx_data"]
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def markdown(errors: dict[str, dict[str, float]]) -> str:
    """A row per lowering and target."""
    lines = ["| lowering | limit | edgetool | onnxruntime |", "| --- | --- | --- | --- |"]
    for label, row in errors.items():
        figures = " | ".join(f"{row.get(key, float('nan')):.0e}" for key in ("limit", "edgetool", "onnxruntime"))
        lines.append(f"| {label} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
