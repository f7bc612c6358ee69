#!/usr/bin/env python3
"""Healthy models pass with the built-in limits, and how far they are from them.

    limits.py --work DIR --edgetool target/release/edgetool [--table docs/verify.md] [MODEL...]
    limits.py --work DIR --edgetool target/release/edgetool --quick

Every model that tests/parity/parity.py has left in DIR, the fixtures and recipes/shapes are converted, for no target and
for qnn, quantized in every precision, and verified against their checkpoint; four of them in every form. Ranges are of 64 prompts of
recipes/shapes, which are not those that are drawn: random networks draw the built-in ones, shapes those of its
evaluation. In integers random networks have limits of their own, random.yaml beside this script: they enlarge errors. `--table` writes the worst values into a document; `--quick` takes the few models and forms that CI has time
for. The last line is `N passed, N failed`; the exit status is 1 when a healthy model failed, or one passed whose
pictures are not the reference's.

Random networks do not bear activations of 8 bits: nothing in them is small enough to be lost. They are here for that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
RANDOM = Path(__file__).resolve().parent / "random.yaml"
SHAPES, FIXTURES = REPO / "recipes/shapes", REPO / "tests/fixtures"
CALIBRATION, EVALUATION = SHAPES / "prompts/calibration.txt", SHAPES / "prompts/evaluation.txt"
BEGIN, END = "<!-- table: tests/verify/limits.py -->", "<!-- end of table: tests/verify/limits.py -->"
PRECISIONS = ["float32", "float32-approximate", "float16", "w8", "w8a16", "w4a16", "w8a8"]
# Larger is better; of all others smaller is.
LEAST = ("_db", "_ssim", "_ssimulacra2")
FORMS = [["none"], ["table"], ["per-step"], ["unrolled"], ["per-step", "--hoist-kv"], ["pipeline"]]
# Models that differ in what a form makes of them; the others differ from these in how their files lie, or in size.
FULL = ["tiny", "tiny-nocond", "tiny-sd15", "shapes"]
FOLDED = ["table", "per-step", "unrolled"]


class Case(NamedTuple):
    """A form of a model. What is not `healthy` has to fail."""

    model: str
    form: tuple[str, ...]
    target: str | None = None
    precision: str | None = None
    plan: str | None = None
    component: str | None = None
    healthy: bool = True

    def __str__(self) -> str:
        parts = [self.model, *self.form, self.target, self.precision, self.plan, self.component]
        return " ".join(part for part in parts if part)


def cases(models: list[str]) -> list[Case]:
    found = []
    for model in models:
        in_full = model in FULL
        for form in FORMS if in_full else [["none"], ["per-step"]]:
            found += [Case(model, tuple(form)), Case(model, tuple(form), "qnn")]
        for form in FOLDED if in_full else ["per-step"]:
            found += [Case(model, (form,), "qnn", precision) for precision in ["fp16", "w8", "w8a16", "w4a16"]]
        if in_full:
            found += [Case(model, ("per-step",), "onnxruntime", precision) for precision in ["fp16", "w8", "w8a16"]]
            found.append(Case(model, ("pipeline",), "qnn", "w8a16", component="pipeline"))
        if model == "shapes":
            found += [Case(model, (form,), "qnn", "w8a8") for form in FOLDED]
            found += [Case(model, ("per-step",), "qnn", plan=plan) for plan in ["w8a16", "w4a16", "w8a8"]]
        if model == "tiny":
            found.append(Case(model, ("per-step",), "qnn", "w8a8", healthy=False))
    return found


def quick() -> list[Case]:
    return [
        Case("shapes", ("per-step",), "onnxruntime", "fp16"),
        Case("shapes", ("table",), "qnn", "w8"),
        Case("tiny-nocond", ("per-step",), "qnn", "w4a16"),
        Case("tiny-linear-proj", ("table",), "qnn", "w8a16"),
        Case("tiny-sd15", ("unrolled",), "onnxruntime", "w8a16"),
        Case("tiny", ("per-step",), "qnn", "w8a8", healthy=False),
    ]


def checkpoint(model: str, work: Path) -> Path:
    if model == "shapes":
        return SHAPES / "model"
    if (FIXTURES / model).is_dir():
        return FIXTURES / model
    folder = work / model
    if (folder / "model_index.json").exists():
        return folder
    snapshots = sorted(folder.glob("**/snapshots/*/model_index.json"))
    if not snapshots:
        sys.exit(f"{folder} has no model: run tests/parity/parity.py --work {work} {model} first")
    return snapshots[0].parent


def guidance(source: Path) -> str:
    """What an LCM is guided by: the embedded scale that it was trained with, or the small one of two answers."""
    config = json.loads((source / "unet/config.json").read_text())
    return "8" if config.get("time_cond_proj_dim") else "1.5"


def measure(case: Case, args: argparse.Namespace, work: Path, made: dict) -> dict:
    """The report of one form."""

    def run(*command: object, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run([args.edgetool, *map(str, command)], capture_output=True, text=True)
        if done.returncode not in codes:
            sys.exit(f"edgetool {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done.stdout

    source = checkpoint(case.model, args.work)
    key = (case.model, case.form, case.target)
    if key not in made:
        made[key] = work / f"float-{len(made)}"
        target = ["--target", case.target] if case.target else []
        form = ["--fold", *case.form, *(["--guidance", guidance(source)] if case.form != ("none",) else [])]
        run("convert", source, "-o", made[key], *form, *target)
    folder = made[key]
    if case.precision or case.plan:
        how = ["--precision", case.precision] if case.precision else ["--plan", SHAPES / f"plans/{case.plan}.yaml"]
        how += ["--component", case.component] if case.component else []
        seen = [] if case.precision == "fp16" else ["--calibration", CALIBRATION, "--number", args.number]
        folder = work / "quantized"
        run("quantize", made[key], "-o", folder, "--force", *how, *seen)
    prompts = ["--prompts", EVALUATION, "--limit", "16"] if case.model == "shapes" else []
    own = ["--judge", SHAPES / "judge"] if case.model == "shapes" else ["--thresholds", RANDOM]
    found = run("verify", folder, "--against", source, "--guidance", guidance(source), *prompts, *own, "--format", "json",
                codes=(0, 1))
    return json.loads(found)


def worst(name: str, a: float, b: float) -> bool:
    """Whether the first is worse."""
    return a < b if name.endswith(LEAST) else a > b


def tables(reports: list[tuple[Case, dict]]) -> str:
    """The worst values of the trained model, and of all."""
    trained = [(case, report) for case, report in reports if case.model == "shapes"]
    return f"{table(trained, 'of shapes')}\n\n{table(reports, 'of all')}" if trained else table(reports, "of all")


def table(reports: list[tuple[Case, dict]], whose: str) -> str:
    found: dict[tuple[str, str], float] = {}
    names: list[str] = []
    for case, report in reports:
        if not case.healthy:
            continue
        for check in report["checks"]:
            if check["name"] not in names:
                names.append(check["name"])
            # A network before all that is quantized says nothing of that.
            key = (check["name"], report["precision"])
            if check["name"] == "context_sqnr_db" and check["value"] == 200 and report["precision"].startswith("w"):
                continue
            if key not in found or worst(check["name"], check["value"], found[key]):
                found[key] = check["value"]
    lines = [f"| worst {whose} | " + " | ".join(PRECISIONS) + " |", "|---|" + "---|" * len(PRECISIONS)]
    for name in names:
        values = [found.get((name, precision)) for precision in PRECISIONS]
        lines.append(f"| `{name}` | " + " | ".join("" if v is None else f"{v:.4g}" for v in values) + " |")
    count = sum(case.healthy for case, _ in reports)
    models = len({case.model for case, _ in reports})
    lines.append(f"\nOf {count} forms of {models} model{'s' if models > 1 else ''}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", help="which models (default: all that are there)")
    parser.add_argument("--work", type=Path, required=True, help="where references are kept")
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    parser.add_argument("--number", type=int, default=64, help="prompts of calibration")
    parser.add_argument("--quick", action="store_true", help="a few forms alone")
    parser.add_argument("--keep", type=Path, help="a file that keeps reports, so that the next run has them")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    args = parser.parse_args()
    kept = json.loads(args.keep.read_text()) if args.keep and args.keep.exists() else {}
    stamped = sorted(stamp.stem for stamp in args.work.glob("tiny*.stamp"))
    models = args.models or stamped + sorted(f.name for f in FIXTURES.iterdir() if f.is_dir()) + ["shapes"]
    reports, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        made: dict = {}
        for case in quick() if args.quick else cases(models):
            report = kept.get(str(case)) or measure(case, args, Path(folder), made)
            if args.keep:
                kept[str(case)] = report
                args.keep.write_text(json.dumps(kept))
            reports.append((case, report))
            right = (report["verdict"] == "pass") == case.healthy
            failed += not right
            bad = [f"{c['name']} {c['value']}" for c in report["checks"] if c["verdict"] == "fail"]
            print("ok  " if right else "FAIL", case, "->", report["precision"], *bad, flush=True)
    print(tables(reports))
    if args.table:
        before, rest = args.table.read_text().split(BEGIN)
        args.table.write_text(f"{before}{BEGIN}\n{tables(reports)}\n{END}{rest.split(END, 1)[1]}")
    print(f"{len(reports) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
