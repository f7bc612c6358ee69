#!/usr/bin/env python3
"""Models through Qualcomm's offline compiler and emulator, device by device: the table of docs/packaging.md.

    matrix.py --edgetool target/release/edgetool --work work --model recipes/shapes/model sm8450:w8a16 sm8650:fp16

Needs the packages of tests/requirements-qnn.txt. Each `--model` is converted with per-step UNets, quantized (UNets alone,
with `--whole` all that draws a picture) with ranges of the calibration prompts of recipes/shapes, and packed for each
DEVICE:PRECISION, `float` being no quantization. A row for each graph: operators, those that compute in floating point and
have integers in the ONNX file, the size of the context, and the emulator's output against the golden one. What is done is
kept in `--work` and not done again. Limits of `verify` do not count here: networks with random weights may lie beyond them.
Exit code 1: a graph was refused, or not taken whole, or an operator is in float that should not be, or an output is further
off than `--least`.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

PROMPTS = Path(__file__).resolve().parents[2] / "recipes/shapes/prompts"
LIMITS = ["token_mismatches", "context_sqnr_db", "unet_output_sqnr_db", "later_unet_output_sqnr_db", "latent_sqnr_db",
          "conditioning_deviation", "picture_psnr_db", "picture_ssim", "saturated_share"]
# Devices whose types of operands are other than the default device's; the others have one quantized model together.
OWN_TYPES = ["sm8450", "sm8475"]
HEAD = "| model | device | precision | graph | operators | unasked float | context | output |\n|---|---|---|---|---|---|---|---|"


def run(command, **more):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)


def must(command):
    done = run(command)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")


def quantized(edgetool, model, device, precision, options, work):
    """A verified model for the device."""
    family = device if device in OWN_TYPES else "sm8650"
    target, converted = f"qnn/{family}", work / f"{model.name}-float"
    folder = work / f"{model.name}-{family}-{precision}{'-whole' if options.whole else ''}-onnx"
    limits = work / "limits.yaml"
    least = lambda name: {"name": name, "reason": "Not what is tested.", **({"most": 1e9} if name in
                          ("token_mismatches", "conditioning_deviation", "saturated_share") else {"least": -1e9})}
    limits.write_text(json.dumps({"schema": "tolerances/v1", "tolerances": [least(name) for name in LIMITS]}))
    if not converted.exists():
        must([edgetool, "convert", model, "-o", converted, "--target", "qnn", "--fold", "per-step", "--dtype", "float32"])
    source = converted
    if precision != "float":
        source = folder
        if not folder.exists():
            names = ["text_encoder", "unet_step_0", "unet_step_1", "vae_decoder"] if options.whole else []
            chosen = [word for name in names for word in ("--component", name)]
            calibration = ["--precision", precision, "--calibration", PROMPTS / "calibration.txt", "--number", options.number]
            must([edgetool, "quantize", converted, "--target", target, *chosen, *calibration, "-o", folder])
    if not (source / "report.json").exists():
        prompts = ["--prompts", PROMPTS / "evaluation.txt", "--limit", "2", "--thresholds", limits]
        must([edgetool, "verify", source, "--against", model, *prompts, "--quiet"])
    return source


def packed(edgetool, model, device, precision, options, work):
    """The extracted bundle."""
    folder = work / f"{model.name}-{device}-{precision}{'-whole' if options.whole else ''}"
    if not folder.exists():
        source, bundle = quantized(edgetool, model, device, precision, options, work), folder.with_suffix(".zip")
        prompt = ["--prompt", "a red heart on a white background"]
        must([edgetool, "package", source, "--target", f"qnn/{device}", *prompt, "-o", bundle, "--quiet"])
        must([edgetool, "bundle", "extract", bundle, "-o", folder])
    return folder


def objects(folder, script, name):
    done = run([sys.executable, script, "--json", name], cwd=folder)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done


def rows(edgetool, model, device, precision, options, work):
    """A row for each graph, and the number of graphs that are not as they should be."""
    folder = packed(edgetool, model, device, precision, options, work)
    manifest = json.loads((folder / "manifest.json").read_text())
    integers = json.loads((folder / "model/edgetool.json").read_text()).get("quantization", {}).get("components", [])
    bad = 0
    for name in dict.fromkeys(r["component"] for r in manifest["golden"]["runs"]):
        start = f"| {model.name} | {device.upper()} | {precision} | `{name}` |"
        said, done = objects(folder, "qnn/compile.py", name)
        if not said or "error" in said[0]:
            bad += 1
            print(f"{start} refused: {(said or [{'error': f'exit code {done.returncode}'}])[0]['error'][:90]} | | | |", flush=True)
            continue
        found = said[0]
        unasked = len(found["floats"]) if name in integers else 0
        near, done = objects(folder, "qnn/accept.py", name)
        nearest = min((o["sqnr_db"] for o in near), default=None)
        output = f"exit code {done.returncode}" if nearest is None else f"{nearest:.1f} dB"
        bad += found["graphs"] != 1 or unasked > 0 or nearest is None or nearest < options.least
        size = f"{found['bytes'] / 1e6:.1f} MB"
        print(f"{start} {found['operators']} | {unasked} | {size} | {output} |", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="+", metavar="DEVICE:PRECISION")
    parser.add_argument("--edgetool", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--whole", action="store_true", help="quantize text encoder and decoder as well")
    parser.add_argument("--least", type=float, default=0, metavar="DB", help="how near outputs have to be [default: any]")
    parser.add_argument("--number", type=int, default=64, help="calibration prompts [default: 64]")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(HEAD)
    bad = 0
    for model in arguments.model:
        for wanted in arguments.devices:
            device, _, precision = wanted.partition(":")
            bad += rows(arguments.edgetool.resolve(), model.resolve(), device, precision or "float", arguments, arguments.work.resolve())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
