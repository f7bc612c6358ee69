#!/usr/bin/env python3
"""Pictures of a compiled bundle on Qualcomm's emulator, read by the judge, beside those of the built-in executor.

    emulated.py --edgetool target/release/edgetool --model shapes-w8a16 --report report.json --work work --limit 40

`--model` is a folder for qnn with a UNet for each step, and `--report` its verification report. It is packed with the
prompts as examples, which have the token ids and the noise of each picture; the compiled graphs of the bundle pass their
outputs on to each other. What is in `--work` is not done again: a run that was broken off goes on. Exit code 1: the prompt
accuracy is more than one point below that of `edgetool evaluate` on the same prompts and seeds. Needs the packages of
tests/requirements-qnn.txt.
"""
import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

RECIPE = Path(__file__).resolve().parents[2] / "recipes/shapes"
PROMPTS = RECIPE / "prompts/evaluation.txt"


def must(command):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout


def loader(bundle):
    """The function of the bundle's own script that loads a compiled graph."""
    spec = importlib.util.spec_from_file_location("accept", bundle / "qnn/accept.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load


def pictures(bundle, kept, count):
    """Each `[3, height, width]`, 0 to 1, in 8 bits as a person sees them. Outputs of graphs are kept in the folder `kept`, so
    that a run that was broken off goes on where it was."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    components = {c["name"]: c for c in manifest["components"]}
    load = loader(bundle)
    kept.mkdir(exist_ok=True)
    values = [{} for _ in range(count)]
    for name in dict.fromkeys(run["component"] for run in manifest["golden"]["runs"]):
        component, session = components[name], None
        for index, known in enumerate(values):
            file = kept / f"{index:03}-{name}.npz"
            if not file.exists():
                session = session or load(bundle / component["file"], name, "HTP")
                feeds = {}
                for port in component["inputs"]:
                    raw = bundle / f"qnn/inputs/{name}/{index:03}-{port['name']}.raw"
                    given = np.fromfile(raw, dtype=port["dtype"]).reshape(port["shape"])
                    # What another graph has made is the emulator's; ids and noise are the example's.
                    feeds[port["name"]] = known.get(alias(name, port["name"]), given)
                partial = kept / "partial.npz"
                np.savez(partial, **session(feeds))
                partial.rename(file)
            known.update(np.load(file))
        print(f"emulated {name} {count} times", flush=True)
    return [np.round(np.clip(known["image"][0], 0, 1) * 255) / np.float32(255) for known in values]


def alias(name, port):
    """The name under which an earlier graph has made what this input takes."""
    if port in ("sample", "latent_sample", "latent") and name != "unet_step_0":
        return "prev_sample"
    return {"encoder_hidden_states": "last_hidden_state"}.get(port, port)


def accuracy(drawn, prompts):
    judge = json.loads((RECIPE / "judge/judge.json").read_text())
    session = onnxruntime.InferenceSession(str(RECIPE / "judge" / judge["model"]), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    labels = {head["name"]: head["labels"] for head in judge["heads"]}
    right = 0
    for picture, line in zip(drawn, prompts):
        wanted = dict(part.split("=") for part in line.split("\t")[1].split("; "))
        read = dict(zip(names, session.run(names, {session.get_inputs()[0].name: picture[None].astype(np.float32)})))
        right += all(labels[head][int(np.argmax(read[head]))] == wanted[head] for head in judge["accuracy"])
    return right / len(prompts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edgetool", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="sm8650")
    parser.add_argument("--limit", type=int, default=200, help="prompts [default: 200]")
    arguments = parser.parse_args()
    prompts = PROMPTS.read_text().splitlines()[: arguments.limit]
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    listed, bundle, folder = work / "prompts.txt", work / "bundle.zip", work / "bundle"
    listed.write_text("".join(f"{line}\n" for line in prompts))
    own = ["--target", f"qnn/{arguments.device}", "--report", arguments.report, "--compile", "--python", sys.executable]
    if not folder.exists():
        must([arguments.edgetool, "package", arguments.model, *own, "--examples", listed, "-o", bundle])
        must([arguments.edgetool, "bundle", "extract", bundle, "-o", folder])
    emulated = accuracy(pictures(folder, work / "drawn", len(prompts)), prompts)
    # The first example has the seed behind that of the golden run.
    options = ["--prompts", listed, "--judge", RECIPE / "judge", "--seed", "1", "--format", "json", "--quiet"]
    built_in = json.loads(must([arguments.edgetool, "evaluate", arguments.model, *options]))["prompt_accuracy"]["share"]
    good = emulated >= built_in - 0.01
    print(
        f"{'ok' if good else 'TOO FEW'}: {len(prompts)} prompts on {arguments.device.upper()}: prompt accuracy "
        f"{100 * emulated:.1f} % on the emulator, {100 * built_in:.1f} % on the built-in executor"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
