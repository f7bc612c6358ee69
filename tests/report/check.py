#!/usr/bin/env python3
"""Verification with everything that a report can have: a second executor, and the page in a browser.

    check.py --edgetool target/release/edgetool [--pictures DIR]

A float candidate and a quantized one of recipes/shapes are verified with ONNX Runtime, that of this Python, as second
executor: both must agree in every component. Then Chromium opens the `report.html` of the second, at the width of a
laptop and of a phone, light and dark, without a network, and prints it. Checked: nothing is said on the console, all
images are there, nothing is wider than the page, no row of a table is a column of letters, every section is there,
points and bars say what they are. `--pictures` keeps the screenshots and the printed page.

Chromium is looked for on the PATH. Where there is none and this runs as root, `apt-get install chromium` is tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SHAPES = REPO / "recipes/shapes"
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
SECTIONS = ["Checks", "Pictures", "Error of each layer", "Values of the worst layers", "Use of the integers' ranges",
            "What if these layers were in float", "Two executors", "Tensors", "Components"]
# Name, width, height, further options.
VIEWS = [("laptop", 1280, 900, []), ("phone", 390, 844, []), ("laptop-dark", 1280, 900, ["--force-dark-mode"])]
# Runs in the page; the title carries the answer out of it.
PROBE = """<script>
window.addEventListener('error', e => window.faults = (window.faults || []).concat(String(e.message)));
window.addEventListener('load', () => {
  const images = [...document.images];
  document.title = 'PROBE' + JSON.stringify({
    images: images.length,
    missing: images.filter(i => !i.complete || !i.naturalWidth).length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    tall: Math.max(...[...document.querySelectorAll('tr')].map(r => r.offsetHeight)),
    titles: document.querySelectorAll('svg title').length,
    marks: document.querySelectorAll('svg circle, svg .bar').length,
    sections: [...document.querySelectorAll('h2')].map(h => h.textContent),
    faults: window.faults || [],
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
  }) + 'END';
});
</script>"""


def chromium() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], stdout=subprocess.DEVNULL, check=False)
        found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        sys.exit(f"no browser: expected one of {', '.join(NAMES)} on the PATH (`apt-get install chromium`)")
    return found


def report(edgetool: Path, work: Path) -> Path:
    """The report of a quantized model."""
    # `python3` is this Python, whose ONNX Runtime is to be found.
    (work / "bin").mkdir()
    (work / "bin/python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (work / "bin/python3").chmod(0o755)
    environment = os.environ | {"PATH": f"{work / 'bin'}:{os.environ['PATH']}"}
    environment.pop("ORT_DYLIB_PATH", None)

    def run(*command: object) -> None:
        done = subprocess.run([edgetool, *map(str, command)], capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"edgetool {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")

    second = ["--executor", "onnxruntime", "--no-cache"]
    run("convert", SHAPES / "model", "-o", work / "float", "--target", "qnn", "--fold", "per-step")
    run("quantize", work / "float", "-o", work / "w8a16", "--precision", "w8a16",
        "--calibration", SHAPES / "prompts/calibration.txt", "--number", "64")
    recipe = ["--against", work / "float", "--recipe", REPO / "recipes/shapes.yaml"]
    run("verify", work / "float", *recipe, "--limit", "2", "--report", work / "of-float", *second)
    run("verify", work / "w8a16", *recipe, "--limit", "6", "--bisect", "--float", "conv_out",
        "--report", work / "report", *second)
    for folder in ["of-float", "report"]:
        opinion = json.loads((work / folder / "report.json").read_text())["second"]
        agree = {f"{o['component']} {o['output']}": o["sqnr_db"] for o in opinion["outputs"]}
        print(f"{folder}, {opinion['executor']}: " + ", ".join(f"{name} {db:.1f} dB" for name, db in agree.items()))
        components = {o["component"] for o in opinion["outputs"]}
        if opinion["verdict"] != "pass" or components != {"text_encoder", "unet_step_0", "unet_step_1", "vae_decoder"}:
            sys.exit(f"the executors do not agree: {opinion}")
    return work / "report/report.html"


def browse(browser: str, page: Path, work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-extensions",
               "--no-first-run", "--disable-background-networking", "--disable-sync", "--disable-component-update",
               "--proxy-server=127.0.0.1:9", "--enable-logging=stderr", f"--user-data-dir={work / 'profile'}",
               "--virtual-time-budget=4000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def check(browser: str, page: Path, work: Path, pictures: Path) -> list[str]:
    text, faults = page.read_text(), []
    for foreign in ["http:", "https:", "<script", "@import", "url("]:
        if foreign in text:
            faults.append(f"the page has `{foreign}`")
    probed = work / "probed.html"
    probed.write_text(text.replace("</head>", PROBE + "</head>"))
    for name, width, height, options in VIEWS:
        size = f"--window-size={width},{height}"
        done = browse(browser, probed, work, size, *options, "--dump-dom")
        answer = re.search(r"PROBE(\{.*?\})END", done.stdout, re.DOTALL)
        if not answer:
            faults.append(f"{name}: the page did not load\n{done.stderr}")
            continue
        seen = json.loads(answer[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        absent = [s for s in SECTIONS if not any(h.startswith(s) for h in seen["sections"])]
        wrong = {"on the console": said, "errors": seen["faults"], "images missing": seen["missing"],
                 "pixels wider than the window": max(0, seen["wide"]), "sections missing": absent,
                 "a table's row is too high": seen["tall"] > 240 and f"{seen['tall']} pixels"}
        faults += [f"{name}: {what}: {found}" for what, found in wrong.items() if found]
        if seen["images"] < 18 or seen["titles"] < seen["marks"] or seen["marks"] < 100:
            faults.append(f"{name}: expected 18 images and 100 points and bars with titles, got {seen}")
        print(f"{name}: {seen['images']} images, {seen['marks']} points and bars, dark: {seen['dark']}")
        tall = browse(browser, page, work, f"--window-size={width},{4200 if width > 600 else 7000}", *options,
                      f"--screenshot={pictures / name}.png")
        if not (pictures / f"{name}.png").exists():
            faults.append(f"{name}: no screenshot\n{tall.stderr}")
    browse(browser, page, work, f"--print-to-pdf={pictures / 'printed.pdf'}")
    printed = pictures / "printed.pdf"
    if not printed.exists() or not printed.read_bytes().startswith(b"%PDF"):
        faults.append("the page was not printed")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    browser = chromium()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pictures = args.pictures or work / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        faults = check(browser, report(args.edgetool.resolve(), work), work, pictures.resolve())
    for fault in faults:
        print(f"FAIL {fault}")
    print("FAIL" if faults else f"ok   two executors agree; the report's page in {len(VIEWS)} views, and printed")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
