#!/usr/bin/env python3
"""Bundles as a device engineer uses them: packed, extracted, compiled and accepted by their own scripts.

    check.py --edgetool target/release/edgetool --model recipes/shapes/model onnxruntime openvino/cpu qnn/sm8650:w8a16

Each target's bundle is made from the model: convert, quantize where a precision stands behind `:`, verify, package. Then
the scripts of the bundle run with this Python, which needs the packages that the bundle's README names. Quantized bundles
for QNN have float graphs and encodings in them, which onnxruntime loads and compares with the golden run, and are compiled
by `edgetool compile`, which takes no operator in floating point that has integers. Ends with exit code 1 at the first that
fails.
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
# Devices whose types of operands are other than the default device's; the others have one quantized model together.
OWN_TYPES = ["qnn/sm8450"]
# How near a float graph is to the integers that it stands for: they round activations to 16 bits.
FLOAT_DB = 35
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
    """The folder that is packed; devices of one SDK have the float one together, and those of one kind the quantized one."""
    name = target.split("/")[0]
    target = target if target in OWN_TYPES else name
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


def check_float_graphs(folder):
    """Runs the float graphs of an extracted bundle on the golden inputs."""
    import onnxruntime

    from golden_run import float_graphs, sqnr_db

    found = 0
    for name, path, feeds, golden in float_graphs(folder):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for (port, expected), output in zip(golden, session.run([port for port, _ in golden], feeds)):
            near = sqnr_db(expected, output)
            print(f"float graph of {name}: {port} {near:.1f} dB from the integers")
            if near < FLOAT_DB:
                sys.exit(f"expected {FLOAT_DB} dB")
        found += 1
    if not found:
        sys.exit("the bundle has no float graphs")


def check(edgetool, model, wanted, scratch):
    target, _, precision = wanted.partition(":")
    name = target.split("/")[0]
    converted, folder = verified(edgetool, model, target, precision, scratch), scratch / wanted.replace("/", "-").replace(":", "-")
    bundle = folder.with_suffix(".zip")
    compiled = bool(precision) and name == "qnn"
    more = ["--with-float"] if compiled else []
    run([edgetool, "package", converted, "--target", target, "--prompt", PROMPT, *more, "-o", bundle, "--quiet"])
    # Another reader of the format.
    with zipfile.ZipFile(bundle) as archive:
        damaged = archive.testzip()
        if damaged is not None or not all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist()):
            sys.exit(f"zipfile finds {damaged} damaged, or files that are compressed")
    if compiled:
        run([edgetool, "bundle", "extract", bundle, "-o", folder])
        check_float_graphs(folder)
        # What edgetool compiles is checked as the scripts would, and an operator in float is a failure.
        run([edgetool, "compile", bundle, "--python", sys.executable])
        run([edgetool, "bundle", "check", bundle])
        print(f"ok {wanted}", flush=True)
        return
    run([edgetool, "bundle", "extract", bundle, "-o", folder])
    for script in SCRIPTS[name]:
        run([sys.executable, *script.split()], cwd=folder)
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
