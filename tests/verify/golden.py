#!/usr/bin/env python3
"""The lines of docs/verify.md that write golden values in training do what it says.

    golden.py --edgetool target/release/edgetool

The block of Python in the document runs as it stands there, but for the size of the noise, on the fixture `edgefusion`; the
converted model is verified against the file that it writes, and one with another guidance is found out.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FIXTURE = REPO / "tests/fixtures/edgefusion"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True)
    args = parser.parse_args()
    blocks = re.findall(r"```python\n(.*?)```", (REPO / "docs/verify.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if "golden.safetensors" in block)
    size = json.loads((FIXTURE / "unet/config.json").read_text())["sample_size"]
    assert code.count("4, 64, 64") == 1, "the block makes noise of 64x64"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(FIXTURE, work / "edgefusion")
        # diffusers draws at the UNet's size.
        code_of_size = code.replace("4, 64, 64", f"4, {size}, {size}")
        done = subprocess.run([sys.executable, "-c", code_of_size], cwd=work, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)

        def run(*command: object) -> subprocess.CompletedProcess[str]:
            return subprocess.run([args.edgetool.resolve(), *map(str, command)], cwd=work, capture_output=True, text=True)

        (work / "prompt.txt").write_text(re.search(r'prompt, latents = "(.*?)"', code)[1] + "\n")
        done = run("convert", "edgefusion", "-o", "model", "--fold", "table", "--steps", "1", "--guidance", "8")
        golden = ["--against", "golden.safetensors", "--prompts", "prompt.txt", "--guidance", "8", "--steps", "1"]
        done = done if done.returncode else run("verify", "model", *golden, "--format", "json")
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
        names = [check["name"] for check in json.loads(done.stdout)["checks"]]
        assert names == ["token_mismatches", "context_sqnr_db", "latent_sqnr_db"], names
        run("convert", "edgefusion", "-o", "other", "--fold", "table", "--steps", "1", "--guidance", "3")
        manifest = json.loads((work / "other/edgetool.json").read_text())
        manifest["fold"]["guidance"]["scale"] = 8.0
        (work / "other/edgetool.json").write_text(json.dumps(manifest))
        assert run("verify", "other", *golden).returncode == 1, "another guidance is another model"
    print(f"ok   {len(code.strip().splitlines())} lines of torch write golden values that a conversion has")


if __name__ == "__main__":
    main()
