"""The cases of one variant: graphs, components, pipelines, seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from executors import Edgetool, Executor, relative_l2
from folded import folded
from graphs import check_graph, require_same_graph
from pipelines import (
    drive,
    image_of,
    pixel_difference,
    read_png,
    run_edgetool,
    seeded_image,
    taesd_image,
)
from reference import Reference
from report import Report

COMPONENT_LIMIT = 2e-5
IMAGE_LIMIT = 1e-4
OTHER_LIMIT = 1e-4  # onnxruntime and OpenVINO
PIXEL_LIMIT = 1e-3  # share of 8-bit values that differ
SEED = 7


class Cases:
    """Runs every check of one reference."""

    def __init__(
        self,
        reference: Reference,
        edgetool: Edgetool,
        others: list[Executor],
        report: Report,
        work: Path,
    ) -> None:
        self.ref, self.edgetool, self.others = reference, edgetool, others
        self.report, self.work = report, work
        self.executors: list[Executor] = [edgetool, *others]

    def run(self, fold: bool) -> None:
        """Everything, most basic first; without a conversion there is nothing to compare."""
        folders = {}
        for opset in (17, 21):
            folder = self.convert(f"opset{opset}", opset, "--opset", opset)
            if folder is not None:
                folders[opset] = folder
        for opset, folder in folders.items():
            self.components(folder, opset)
        self.other_shapes()
        self.other_weights()
        if 17 in folders:
            self.single_file(folders[17])
            self.pipelines(folders[17])
            if fold:
                folded(self, folders[17])

    def convert(
        self, name: str, opset: int, *options: object, source: Path | None = None
    ) -> Path | None:
        """Converts, then checks every graph that came out."""
        folder = self.work / name
        source = source or self.ref.checkpoint

        def check() -> Path:
            args = ["convert", source, "-o", folder, "--force", *map(str, options)]
            self.edgetool.call(*args)
            models = sorted(folder.glob("*/model.onnx"))
            found = {model.parent.name for model in models}
            missing = {"text_encoder", "unet", "vae_decoder", "vae_encoder"} - found
            if missing:
                raise FileNotFoundError(f"no model.onnx for {sorted(missing)}")
            for model in models:
                check_graph(model, model.parent.name, opset, linked="link" in options)
            return folder

        return self.report.require("graphs", f"convert and check, {name}", check)

    def compare(
        self,
        executor: Executor,
        label: str,
        model: Path,
        inputs: dict[str, np.ndarray],
        want: np.ndarray,
    ) -> None:
        """One graph on one executor against a golden."""
        ours = executor is self.edgetool
        component = model.parent.name
        column = f"{component.split('_decoder')[0]}" if ours else executor.name
        limit = COMPONENT_LIMIT if ours else OTHER_LIMIT

        def error() -> float:
            outputs = executor.run(model, inputs)
            return relative_l2(next(iter(outputs.values())), want)

        self.report.measure(column, f"{component} {label}", limit, error)

    def components(self, folder: Path, opset: int) -> None:
        """Every component against its goldens, on every executor."""
        golden = self.ref.golden
        for executor in self.executors:
            for i, ids in enumerate(golden["text.ids"]):
                model = folder / "text_encoder/model.onnx"
                want = golden["text.hidden"][i : i + 1]
                inputs = {"input_ids": ids[None]}
                self.compare(executor, f"prompt {i}, opset {opset}", model, inputs, want)
            model = folder / "unet/model.onnx"
            keys = [key for key in golden if key.startswith("unet.out.")]
            for key in keys if opset == 17 else (keys[0], keys[-1]):
                t = int(key.split(".")[-1])
                inputs = self.unet_inputs("unet", np.array([t]))
                self.compare(executor, f"t={t}, opset {opset}", model, inputs, golden[key])
            parts = (
                ("vae_decoder", "latent_sample", "vae.decode_input", "vae.image"),
                ("taesd_decoder", "latent_sample", "vae.latent", "taesd.image"),
                (
                    "vae_encoder",
                    "sample",
                    "vae_encoder.sample",
                    "vae_encoder.latent_parameters",
                ),
            )
            for component, name, given, want in parts:
                model = folder / component / "model.onnx"
                inputs = {name: golden[given]}
                self.compare(executor, f"opset {opset}", model, inputs, golden[want])

    def unet_inputs(self, prefix: str, timestep: np.ndarray) -> dict[str, np.ndarray]:
        """The UNet's named inputs from the goldens called `prefix.*`."""
        golden = self.ref.golden
        latent = golden[f"{prefix}.latent"]
        context = golden.get(f"{prefix}.context", golden["unet.context"])
        inputs = {
            "sample": latent,
            "timestep": timestep.astype(np.int64),
            "encoder_hidden_states": context,
        }
        if "unet.w_embedding" in golden:
            inputs["timestep_cond"] = golden["unet.w_embedding"].repeat(len(latent), axis=0)
        return inputs

    def other_shapes(self) -> None:
        """A non-square batch of two with a timestep each, and a width that does not halve."""
        golden = self.ref.golden
        shapes = (
            ("unet_wide", ["--timestep", "per-image"], golden["unet_wide.timestep"]),
            ("unet_odd", [], np.array([499])),
        )
        for prefix, options, timestep in shapes:
            batch, _, height, width = golden[f"{prefix}.latent"].shape
            size = ["--height", 8 * height, "--width", 8 * width, "--batch", batch]
            folder = self.convert(prefix, 17, "--opset", 17, *size, *options)
            if folder is None:
                continue
            inputs = self.unet_inputs(prefix, timestep)
            for executor in self.executors:
                model = folder / "unet/model.onnx"
                label = f"{batch} of {height}x{width}"
                self.compare(executor, label, model, inputs, golden[f"{prefix}.out"])

    def other_weights(self) -> None:
        """Where the weights lie, and in which type, changes nothing."""
        golden = self.ref.golden
        options = [["--weights", mode] for mode in ("link", "copy", "inline")]
        options.append(["--dtype", "float32"])
        key = next(key for key in golden if key.startswith("unet.out."))
        inputs = self.unet_inputs("unet", np.array([int(key.split(".")[-1])]))
        for option in options:
            folder = self.convert("-".join(option).strip("-"), 17, "--opset", 17, *option)
            if folder is None:
                continue
            for executor in self.executors:
                model = folder / "unet/model.onnx"
                self.compare(executor, " ".join(option), model, inputs, golden[key])

    def single_file(self, folder: Path) -> None:
        """The original-layout file gives the folder's graphs."""
        if not self.ref.spec.single_file:
            return
        source = self.ref.checkpoint / "single_file.safetensors"
        single = self.convert(
            "single_file", 17, "--opset", 17, "--config", self.ref.checkpoint, source=source
        )
        if single is None:
            return
        for component in ("text_encoder", "unet", "vae_decoder", "vae_encoder"):
            one, other = (root / component / "model.onnx" for root in (folder, single))
            name = f"{component} of the single file equals the folder's"
            self.report.require("graphs", name, lambda a=one, b=other: require_same_graph(a, b))

    def pipelines(self, folder: Path) -> None:
        """Whole runs: stored noise on every executor, then a seed against diffusers' own noise."""
        golden = self.ref.golden
        for steps, guidance in self.ref.runs():
            tag = f"pipe.s{steps}.g{guidance:g}"
            label = f"{steps} steps, guidance {guidance:g}"
            for executor in self.others:
                self.report.measure(
                    executor.name,
                    f"pipeline, {label}",
                    OTHER_LIMIT,
                    lambda e=executor, s=steps, g=guidance, t=tag: relative_l2(
                        drive(e, folder, self.ref, s, g), image_of(golden[f"{t}.decoded"])
                    ),
                )
            self.edgetool_run(folder, label, tag, steps, guidance)
        tag = f"pipe.s2.g{self.ref.guidance:g}"
        self.edgetool_run(self.ref.checkpoint, "unconverted, 2 steps", tag, 2, self.ref.guidance)
        self.taesd_run(folder, tag)
        self.seeded_run(folder)

    def edgetool_run(self, model: Path, label: str, tag: str, steps: int, guidance: float) -> None:
        """`edgetool run` with stored noise: every tensor it saves, and its picture."""
        golden, report = self.ref.golden, self.report

        def check() -> tuple[dict[str, np.ndarray], Path]:
            return run_edgetool(self.edgetool, model, self.ref, self.work, steps, guidance)

        result = report.require("run", f"edgetool run, {label}", check)
        if result is None:
            return
        saved, png = result

        def same_ids() -> None:
            got = saved["ids"].reshape(-1)[:77]
            if not np.array_equal(got, golden["pipe.ids"].reshape(-1)):
                raise ValueError("the token ids differ")

        report.require("run", f"token ids, {label}", same_ids)
        wanted: dict[str, Callable[[], np.ndarray]] = {
            "context": lambda: golden["text.hidden"][:1],
            "model_output": lambda: golden[f"{tag}.model_output"],
            "prev_sample": lambda: golden[f"{tag}.prev_sample"],
            "denoised": lambda: golden[f"{tag}.denoised"],
            "decoded": lambda: golden[f"{tag}.decoded"],
            "image": lambda: image_of(golden[f"{tag}.decoded"]),
        }
        for key, want in wanted.items():
            column = "image" if key == "image" else "pipeline"
            name = f"run's {key}, {label}"
            report.measure(
                column, name, IMAGE_LIMIT, lambda k=key, w=want: relative_l2(saved[k], w())
            )
        self.pixels(f"picture, {label}", png, image_of(golden[f"{tag}.decoded"]))

    def pixels(self, name: str, png: Path, image: np.ndarray) -> None:
        """At most 0.1 % of the 8-bit values differ, and by one."""

        def share() -> float:
            differing, largest = pixel_difference(read_png(png), image)
            if largest > 1:
                raise ValueError(f"a value differs by {largest}")
            return differing

        self.report.measure("8-bit values", name, PIXEL_LIMIT, share)

    def taesd_run(self, folder: Path, tag: str) -> None:
        """The tiny decoder at the end of a run."""
        want = taesd_image(self.ref, tag)

        def error() -> float:
            saved, _ = run_edgetool(
                self.edgetool,
                folder,
                self.ref,
                self.work,
                2,
                self.ref.guidance,
                ["--decoder", "taesd"],
            )
            return relative_l2(saved["image"], want)

        self.report.measure("image", "run's image with taesd, 2 steps", IMAGE_LIMIT, error)

    def seeded_run(self, folder: Path) -> None:
        """The same seed draws the same picture as diffusers on CPU."""
        want = self.report.require(
            "run", f"diffusers with seed {SEED}", lambda: seeded_image(self.ref, SEED)
        )
        if want is None:
            return

        def error() -> float:
            saved, png = run_edgetool(
                self.edgetool, folder, self.ref, self.work, 2, self.ref.guidance, seed=SEED
            )
            self.pixels(f"picture, seed {SEED}", png, want)
            return relative_l2(saved["image"], want)

        self.report.measure("seed", f"image, seed {SEED}", IMAGE_LIMIT, error)
