#!/usr/bin/env python3
"""Compare what edgetool converts and draws with diffusers, onnxruntime and OpenVINO.

    parity.py --work DIR [--edgetool target/release/edgetool] [--table docs/parity.md] [VARIANT...]

For every tiny variant: make the reference (kept in DIR while its scripts stay the same), convert
the folder (and the single file) in both opsets, several shapes and weight modes, check the graphs
with onnx.checker, and compare every component and whole runs with the goldens.  Figures are
relative L2 errors.  The last line is `N passed, N failed`; the exit status is 1 when one failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = """Worst relative L2 error of each variant against diffusers and transformers in float32, from
`tests/parity/parity.py`. `text_encoder` to `seed` are edgetool (tract); `image` is the picture in
[0, 1] after a whole run of 1, 2 or 4 steps, `pipeline` everything on the way to it, `seed` a run
from a seed instead of stored noise, `8-bit values` the share of PNG values that differ (by one).
`folded` is the picture of every folded form, `to unfolded` its difference from the unfolded run.
`onnxruntime` and `openvino` run the same ONNX files: every component and every whole run.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("variants", nargs="*", help="which variants (default: every tiny one)")
    parser.add_argument("--work", type=Path, required=True, help="where references are kept")
    parser.add_argument("--edgetool", type=Path, default=default_binary(), help="the binary")
    parser.add_argument("--table", type=Path, help="write the achieved errors as markdown")
    parser.add_argument("--threads", type=int, default=2, help="threads of every executor")
    parser.add_argument(
        "--without", nargs="*", default=[], help="executors to leave out: onnxruntime openvino"
    )
    parser.add_argument(
        "--folded", nargs="*", metavar="VARIANT", help="variants to fold as well (default: each)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the converted folders")
    args = parser.parse_args()
    if not args.edgetool.is_file():
        parser.error(f"no binary at `{args.edgetool}`: build it, or name one with --edgetool")

    from cases import Cases
    from executors import Edgetool, OnnxRuntime, OpenVino
    from reference import TINY, VARIANTS, load_reference
    from report import Report, write_after_marker

    quiet()
    names = args.variants or TINY
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"unknown variant {unknown[0]}; known: {', '.join(VARIANTS)}")
    edgetool = Edgetool(args.edgetool.resolve(), args.threads)
    others = [OnnxRuntime(args.threads), OpenVino(args.threads)]
    others = [executor for executor in others if executor.name not in args.without]
    report = Report()
    notes = {}
    args.work.mkdir(parents=True, exist_ok=True)
    for name in names:
        start = time.monotonic()
        report.variant, before = name, len(report.outcomes)
        scratch = args.work / f"{name}.converted"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        reference = report.require("run", "reference", lambda n=name: load_reference(n, args.work))
        if reference is not None:
            floor = f"diffusers' own float32 rounding of the image: {reference.rounding:.0e}"
            notes[name] = f"{VARIANTS[name].note} ({floor})"
            fold = args.folded is None or name in args.folded
            Cases(reference, edgetool, others, report, scratch).run(fold)
        for executor in others:
            executor.forget()
        if not args.keep:
            shutil.rmtree(scratch)
        count = len(report.outcomes) - before
        print(f"{name}: {count} checks, {time.monotonic() - start:.0f} s", flush=True)
    table = report.table(notes)
    print(table)
    if args.table:
        write_after_marker(args.table, HEAD + table)
    print(report.summary())
    sys.exit(1 if report.failed() else 0)


def default_binary() -> Path:
    """target/release/edgetool, wherever cargo puts it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return target / "release" / "edgetool"


def quiet() -> None:
    """No progress bars and advice from the libraries."""
    import warnings

    import diffusers
    import transformers

    warnings.filterwarnings("ignore")
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()
