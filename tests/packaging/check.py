#!/usr/bin/env python3
"""Bundles as a device engineer uses them: packed, extracted, compiled and accepted by their own scripts.

    check.py --edgetool target/release/edgetool --model recipes/shapes/model onnxruntime openvino/cpu qnn/sm8650:w8a16

Each target's bundle is made from the model: convert, quantize where a precision stands behind `:`, verify, package. Then
the scripts of the bundle run with this Python, which needs the packages that the bundle's README names. Qualcomm's
compiler may leave no operator of a quantized UNet in floating point. Ends with exit code 1 at the first that fails.
"""
import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROMPTS = Path(__file__).resolve().parents[2] / "recipes/shapes/prompts"
PROMPT = "a red heart on a white background"
# What a bundle's README says to run, by target.
SCRIPTS = {
    "onnxruntime": ["onnxruntime/accept.py"],
    "openvino": ["openvino/accept.py --device CPU"],
    "qnn": ["qnn/compile.py", "qnn/accept.py"],
}


def run(command, **more):
    print("+", " ".join(map(str, command)), flush=True)
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **more)
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}")
    return done.stdout


def verified(edgetool, model, target, precision, scratch):
    """The folder that is packed; devices of one SDK have the float one together."""
    name = target.split("/")[0]
    converted = scratch / f"{name}-onnx"
    folder = scratch / f"{target.replace('/', '-')}-{precision}-onnx" if precision else converted
    if not converted.exists():
        options = ["--target", name, "--fold", "per-step", "--dtype", "float32"]
        run([edgetool, "convert", model, "-o", converted, *options])
    if precision and not folder.exists():
        calibration = ["--calibration", PROMPTS / "calibration.txt", "--number", "64"]
        run([edgetool, "quantize", converted, "--target", target, "--precision", precision, *calibration, "-o", folder])
    if not (folder / "report.json").exists():
        prompts = ["--prompts", PROMPTS / "evaluation.txt", "--limit", "8"]
        run([edgetool, "verify", folder, "--against", model, *prompts, "--quiet"])
    return folder


def check(edgetool, model, wanted, scratch):
    target, _, precision = wanted.partition(":")
    name = target.split("/")[0]
    converted, folder = verified(edgetool, model, target, precision, scratch), scratch / wanted.replace("/", "-").replace(":", "-")
    bundle = folder.with_suffix(".zip")
    run([edgetool, "package", converted, "--target", target, "--prompt", PROMPT, "-o", bundle, "--quiet"])
    # Another reader of the format.
    with zipfile.ZipFile(bundle) as archive:
        damaged = archive.testzip()
        if damaged is not None or not all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist()):
            sys.exit(f"zipfile finds {damaged} damaged, or files that are compressed")
    run([edgetool, "bundle", "extract", bundle, "-o", folder])
    for script in SCRIPTS[name]:
        said = run([sys.executable, *script.split()], cwd=folder)
        unets = [line for line in said.splitlines() if line.startswith("ok: unet") and "operators" in line]
        if precision and any(", 0 in floating point" not in line for line in unets):
            sys.exit(f"{wanted}: a part of a quantized UNet is left in floating point")
    print(f"ok {wanted}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", metavar="TARGET[/DEVICE][:PRECISION]")
    parser.add_argument("--edgetool", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        for target in arguments.targets:
            check(arguments.edgetool.resolve(), arguments.model.resolve(), target, scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
