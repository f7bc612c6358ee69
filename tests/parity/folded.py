"""Folded models: every form on every executor, against the goldens and the unfolded run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from executors import Executor, Tensors, relative_l2
from graphs import check_graph
from pipelines import image_of, run_edgetool
from reference import Reference

FORMS = ("table", "per-step", "unrolled", "pipeline")
GOLDEN_LIMIT = 2e-4
UNFOLDED_LIMIT = 1e-5
HIDDEN = "encoder_hidden_states"


def folded(cases, folder: Path) -> None:
    """Converts in every form, with every option in one of them, and plays the result; `folder` is
    the model without folding."""
    plain = cases.ref.guidance
    both = not cases.ref.spec.time_cond
    runs = [(form, 2, plain, []) for form in FORMS]
    runs += [("per-step", 1, plain, []), ("unrolled", 4, plain, []), ("table", 4, plain, [])]
    runs += [
        ("per-step", 2, plain, ["--hoist-kv", "--scheduler-step", "host"]),
        ("pipeline", 2, plain, ["--hoist-kv", "--image", "nhwc", "--opset", "21"]),
        ("table", 2, plain, ["--hoist-kv", "--dtype", "float32", "--weights", "inline"]),
        ("unrolled", 2, plain, ["--image", "nhwc-u8"]),
    ]
    if both:
        runs += [(form, 2, 1.5, ["--branches", "calls"]) for form in FORMS]
        runs += [(form, 2, 1.5, ["--branches", "batch", "--hoist-kv"]) for form in FORMS]
    for form, steps, guidance, options in runs:
        one(cases, folder, form, steps, guidance, options)


def one(
    cases, folder: Path, form: str, steps: int, guidance: float, options: list[str]
) -> None:
    """One conversion on all executors."""
    report, ref = cases.report, cases.ref
    label = " ".join([form, f"{steps} steps, guidance {guidance:g}", *options])
    target = cases.work / "folded"
    opset = 21 if "21" in options else 17

    def convert() -> bool:
        args = ["convert", ref.checkpoint, "-o", target, "--force", "--fold", form]
        args += ["--steps", steps, "--guidance", f"{guidance:g}", *options]
        cases.edgetool.call(*map(str, args))
        for model in target.glob("*/*.onnx"):
            check_graph(model, None, opset, linked=False)
        return True

    for executor in cases.others:
        executor.forget()
    if not report.require("graphs", f"fold and check, {label}", convert):
        return
    want = image_of(ref.golden[f"pipe.s{steps}.g{guidance:g}.decoded"])
    bytes_ = "nhwc-u8" in options

    def ours(model: Path) -> np.ndarray:
        saved, _ = run_edgetool(cases.edgetool, model, ref, cases.work, steps, guidance)
        return saved["image"]

    image = report.require("run", f"edgetool run, folded {label}", lambda: ours(target))
    if image is not None and not bytes_:
        report.measure("folded", label, GOLDEN_LIMIT, lambda: relative_l2(image, want))
        unfolded = report.require("run", f"edgetool run, unfolded {label}", lambda: ours(folder))
        if unfolded is not None:
            report.measure(
                "to unfolded", label, UNFOLDED_LIMIT, lambda: relative_l2(image, unfolded)
            )
    for executor in cases.others:
        if bytes_:
            report.require(
                executor.name, label, lambda e=executor: same_bytes(play(e, target, ref), want)
            )
        else:
            report.measure(
                executor.name,
                f"folded {label}",
                1e-4,
                lambda e=executor: relative_l2(play(e, target, ref), want),
            )


def same_bytes(got: np.ndarray, want: np.ndarray) -> None:
    """At most 0.1 % of the 8-bit values differ, and by one."""
    difference = np.abs(got.astype(np.int16) - np.rint(want * np.float32(255)).astype(np.int16))
    if difference.max() > 1 or (difference > 0).mean() > 1e-3:
        raise ValueError(f"{(difference > 0).mean():.2%} differ, by {difference.max()} at most")


def play(executor: Executor, folder: Path, ref: Reference) -> np.ndarray:
    """The image, as any runtime gets it from the manifest: `[n,3,h,w]`."""
    manifest = json.loads((folder / "edgetool.json").read_text())
    fold, golden = manifest["fold"], ref.golden
    components = {component["name"]: component for component in manifest["components"]}
    two = fold["guidance"]["by"] in ("calls", "batch")

    def run(name: str, feeds: Tensors) -> Tensors:
        component = components[name]
        inputs = {port["name"]: feeds[port["name"]] for port in component["inputs"]}
        return executor.run(folder / component["file"], inputs)

    noise = {f"noise_{k}": golden["pipe.noise"][k] for k, s in enumerate(fold["steps"]) if s["noise"]}
    feeds = {"sample": golden["pipe.latent"], **noise}
    ids = {"input_ids": golden["pipe.ids"], "negative_input_ids": golden["pipe.empty_ids"]}
    if fold["form"] == "pipeline":
        return channels_first(fold, run("pipeline", {**feeds, **ids})["image"])
    prompts = [run("text_encoder", ids)]
    if two:
        prompts.insert(0, run("text_encoder", {"input_ids": ids["negative_input_ids"]}))
    for name in prompts[0]:
        context = HIDDEN if name == "last_hidden_state" else name
        if fold["guidance"]["by"] == "batch":
            feeds[context] = np.concatenate([prompt[name] for prompt in prompts])
        else:
            feeds[context] = prompts[-1][name]
            feeds[f"negative_{context}"] = prompts[0][name]
    if fold["form"] == "unrolled":
        latent = run("sampler", feeds)["denoised"]
    else:
        latent = steps(fold, run, feeds)
    return channels_first(fold, run("vae_decoder", {"latent_sample": latent})["image"])


def steps(fold: dict, run, feeds: Tensors) -> np.ndarray:
    """The latent after one UNet after another."""
    sample = feeds["sample"]
    for k, step in enumerate(fold["steps"]):
        name = f"unet_step_{k}" if fold["form"] == "per-step" else "unet"
        noise = feeds.get(f"noise_{k}", np.zeros_like(sample))
        given = {**feeds, "sample": sample, "noise": noise, "step": np.array([k])}
        outputs = run(name, given)
        if fold["scheduler_step"] == "graph":
            sample = outputs["prev_sample"]
            continue
        output = outputs["out_sample"].astype(np.float64)
        if "clip" in step:
            clip = step["clip"]
            output = clip["sample"] * sample + clip["output"] * output
            output = np.clip(output, -clip["limit"], clip["limit"])
        sample = step["sample"] * sample + step["output"] * output + step["noise"] * noise
        sample = sample.astype(np.float32)
    return sample


def channels_first(fold: dict, image: np.ndarray) -> np.ndarray:
    """`[n,3,h,w]`."""
    return image.transpose(0, 3, 1, 2) if fold["image"].startswith("nhwc") else image
