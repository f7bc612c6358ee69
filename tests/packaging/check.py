#!/usr/bin/env python3
"""Bundles as a device engineer uses them: packed, extracted, compiled and accepted by their own scripts.

    check.py --edgetool target/release/edgetool --model recipes/shapes/model onnxruntime openvino/cpu qnn/sm8650

Each target's bundle is made from the model: convert, verify, package. Then the scripts of the bundle run with this Python,
which needs the packages that the bundle's README names. Ends with exit code 1 at the first that fails.
"""
import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# What a bundle's README says to run, by target.
SCRIPTS = {
    "onnxruntime": ["onnxruntime/accept.py"],
    "openvino": ["openvino/accept.py --device CPU"],
    "qnn": ["qnn/compile.py", "qnn/accept.py"],
}


def run(command, **more):
    print("+", " ".join(map(str, command)), flush=True)
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, **more)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}")


def check(edgetool, model, target, scratch):
    name = target.split("/")[0]
    converted, folder = scratch / f"{name}-onnx", scratch / target.replace("/", "-")
    bundle = folder.with_suffix(".zip")
    if not converted.exists():
        options = ["--target", name, "--fold", "per-step", "--dtype", "float32"]
        run([edgetool, "convert", model, "-o", converted, *options])
        run([edgetool, "verify", converted, "--against", model, "--limit", "2", "--quiet"])
    run([edgetool, "package", converted, "--target", target, "-o", bundle, "--quiet"])
    # Another reader of the format.
    with zipfile.ZipFile(bundle) as archive:
        damaged = archive.testzip()
        if damaged is not None or not all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist()):
            sys.exit(f"zipfile finds {damaged} damaged, or files that are compressed")
    run([edgetool, "bundle", "extract", bundle, "-o", folder])
    for script in SCRIPTS[name]:
        run([sys.executable, *script.split()], cwd=folder)
    print(f"ok {target}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", metavar="TARGET[/DEVICE]")
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
