#!/usr/bin/env python3
"""Time edgetool at full size beside cp, onnxruntime, OpenVINO and torch.

    bench.py --work DIR [--edgetool target/release/edgetool] [--table docs/benchmarks.md] [--check]

makes the `full` and `full-fp16` references in DIR if they are not there (about 2.2 GB and 1.1 GB,
some CPU minutes each, 4 GB of memory), then measures in one run, taking turns:

    convert   wall time and peak memory of each weights mode, beside `cp -r` of the same files
    run       wall time and peak memory of a 512x512 picture in two steps
    parts     time of each component on the same ONNX file, as ratios to onnxruntime

Compare figures within one table only: another machine, or another hour, gives others.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests/parity"), str(ROOT / "tests/reference")]

from components import component_rows  # noqa: E402
from measure import Process, best, measure, median, settle  # noqa: E402
from parity import quiet  # noqa: E402
from report import write_after_marker  # noqa: E402

VARIANTS = ["full", "full-fp16"]
CONVERT_RSS_MIB = 300
LINK_SECONDS = 1.0
COPY_RATIO = 1.3
RUN_RSS_MIB = 3 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    default = target / "release/edgetool"
    parser.add_argument("--work", type=Path, required=True, help="references and conversions")
    parser.add_argument("--edgetool", type=Path, default=default, help="the binary")
    parser.add_argument("--table", type=Path, help="also write the tables here")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, help="references to measure")
    parser.add_argument(
        "--reference", type=Path, help="folder with references that are used as they are"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument(
        "--only", nargs="+", choices=["convert", "run", "parts"], help="leave out the others"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when over a limit")
    args = parser.parse_args()
    quiet()
    args.edgetool = args.edgetool.resolve()
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    only = args.only or ["convert", "run", "parts"]
    over: list[str] = []
    text = [heading(args)]
    for name in args.variants:
        reference = find_reference(name, args)
        files = checkpoint_files(reference, args.work / f"{name}.checkpoint")
        if "convert" in only:
            text.append(convert_table(name, files, args, over))
        folder = args.work / f"{name}.onnx"
        measure([args.edgetool, "convert", files, "-o", folder, "--force"])
        if "run" in only:
            text.append(run_table(name, folder, args, over))
        if "parts" in only and name == args.variants[0]:
            rows = component_rows(args, reference, files, folder, over)
            text.append(section(f"Components of `{name}`, {args.threads} threads", rows))
        shutil.rmtree(folder)
    text.append("Over a limit: " + ("; ".join(over) if over else "nothing") + "\n")
    document = "\n".join(text)
    print(document)
    if args.table:
        write_after_marker(args.table, document)
    sys.exit(1 if over and args.check else 0)


def find_reference(name: str, args: argparse.Namespace) -> Path:
    """The reference's folder, made when it is not there."""
    if args.reference:
        return args.reference / name
    folder = args.work / name
    if not (folder / "golden.json").exists():
        from make_reference import make, prepare_torch
        from variants import VARIANTS as KNOWN

        prepare_torch(1)
        make(name, KNOWN[name], folder, seed=0)
    return folder


def checkpoint_files(reference: Path, folder: Path) -> Path:
    """A folder with hard links to the checkpoint alone, so that cp and edgetool see one tree."""
    shutil.rmtree(folder, ignore_errors=True)

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    ignored = shutil.ignore_patterns("golden.*", "single_file.safetensors")
    shutil.copytree(reference, folder, copy_function=link, ignore=ignored)
    return folder


def convert_table(name: str, files: Path, args: argparse.Namespace, over: list[str]) -> str:
    """cp and each weights mode, in turns."""
    out = args.work / f"{name}.out"
    commands: dict[str, list[object]] = {"cp -r": ["cp", "-r", files, out]}
    for mode in ("link", "copy", "inline"):
        convert = [args.edgetool, "convert", files, "-o", out, "--weights", mode]
        commands[f"convert --weights {mode}"] = convert
    seen: dict[str, list[Process]] = {label: [] for label in commands}
    warm(files)
    for _ in range(args.rounds):
        for label, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            settle()
            seen[label].append(measure(command))
    shutil.rmtree(out, ignore_errors=True)
    base = best(p.seconds for p in seen["cp -r"])
    rows = [["command", "best s", "median s", "to cp", "peak MiB"]]
    for label, runs in seen.items():
        fastest = best(p.seconds for p in runs)
        peak = max(p.peak_mib for p in runs)
        middle = median(p.seconds for p in runs)
        rows.append(
            [label, f"{fastest:.2f}", f"{middle:.2f}", f"{fastest / base:.2f}", f"{peak:.0f}"]
        )
        if label != "cp -r" and peak > CONVERT_RSS_MIB:
            over.append(f"{name}: {label}: {peak:.0f} MiB")
        if label.endswith("link") and fastest > LINK_SECONDS:
            over.append(f"{name}: {label}: {fastest:.2f} s")
        if label.endswith("copy") and fastest > COPY_RATIO * base:
            over.append(f"{name}: {label}: {fastest / base:.2f} times cp")
    size = sum(f.stat().st_size for f in files.rglob("*") if f.is_file()) / 1e9
    return section(f"Convert `{name}` ({size:.2f} GB)", rows)


def run_table(name: str, folder: Path, args: argparse.Namespace, over: list[str]) -> str:
    """A whole picture, with either decoder."""
    rows = [["decoder", "wall s", "peak MiB"]]
    for decoder in ("vae", "taesd"):
        png = args.work / f"{name}.{decoder}.png"
        command = [args.edgetool, "run", folder, "--prompt", "a photo of a cat", "-o", png]
        command += ["--steps", 2, "--guidance", 8, "--seed", 1, "--decoder", decoder]
        command += ["--threads", args.threads]
        done = measure(command)
        rows.append([decoder, f"{done.seconds:.1f}", f"{done.peak_mib:.0f}"])
        if done.peak_mib > RUN_RSS_MIB:
            over.append(f"{name}: run --decoder {decoder}: {done.peak_mib:.0f} MiB")
    return section(f"Run `{name}`, two steps at 512x512", rows)


def warm(folder: Path) -> None:
    """Reads every file once, so that the first command is not the only one to wait for the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def section(title: str, rows: list[list[str]]) -> str:
    """A markdown heading and table."""
    lines = [f"## {title}", ""]
    for i, row in enumerate(rows):
        lines.append("| " + " | ".join(row) + " |")
        if i == 0:
            lines.append("|" + " --- |" * len(row))
    return "\n".join(lines) + "\n"


def heading(args: argparse.Namespace) -> str:
    """What was measured with what, on what."""
    import onnxruntime
    import openvino
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":", 1)[1].strip() if lines else cpu
    versions = f"onnxruntime {onnxruntime.__version__}, OpenVINO {openvino.__version__}"
    return (
        f"- {cpu}, {os.cpu_count()} cores; {args.rounds} rounds, taking turns\n"
        f"- {versions.split('-')[0]}, torch {torch.__version__}\n"
    )


if __name__ == "__main__":
    main()
