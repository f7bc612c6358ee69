#!/usr/bin/env python3
"""Measure the model in recipes/shapes with edgetool, and write the table and the contact sheet of docs/shapes.md.

    report.py --edgetool target/release/edgetool [--table docs/shapes.md] [--sheet docs/shapes.png]

The table stands between two comment lines of the document. The rows of teacher and student are from the training's own
figures (recipes/shapes/train/results.json): their weights are not in the repository.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

RECIPE = Path("recipes/shapes")
HEADS = ["shape and color", "shape", "color", "background", "size", "position"]
BEGIN, END = "<!-- table: tests/shapes/report.py -->", "<!-- end of table -->"
RUNS = [
    *[(f"LCM, {n} step{'s'[: n > 1]}", ["--steps", str(n)]) for n in (1, 2, 4, 8)],
    *[(f"LCM, {n} steps, tiny decoder", ["--steps", str(n), "--decoder", "taesd"]) for n in (2, 4)],
    *[(f"LCM, 2 steps, guidance {g}", ["--steps", "2", "--guidance", str(g)]) for g in (3, 5, 13)],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--edgetool", type=Path, required=True, help="the program")
    parser.add_argument("--table", type=Path, help="document whose table to write")
    parser.add_argument("--sheet", type=Path, help="PNG file for the contact sheet")
    args = parser.parse_args()
    rows = trained()
    with tempfile.TemporaryDirectory() as folder:
        for name, options in RUNS:
            rows.append((name, "edgetool", evaluate(args.edgetool, options)))
            print(rows[-1], flush=True)
        if args.sheet:
            evaluate(args.edgetool, ["--limit", "48", "-o", f"{folder}/pictures"])
            contact_sheet(Path(folder) / "pictures", args.sheet)
    if args.table:
        text = args.table.read_text()
        before, rest = text.split(BEGIN)
        args.table.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}")


def trained() -> list[tuple[str, str, dict[str, float]]]:
    """The training's figures of teacher and student."""
    results = json.loads((RECIPE / "train/results.json").read_text())
    names = [name for name in results if name.startswith(("teacher", "student"))]
    return [(name.replace(" guidance", ", guidance").replace(" 25", ", 25"), "diffusers", results[name]) for name in names]


def evaluate(edgetool: Path, options: list[str]) -> dict[str, float]:
    prompts, judge = RECIPE / "prompts/evaluation.txt", RECIPE / "judge"
    command = [edgetool, "evaluate", RECIPE / "model", "--prompts", prompts, "--judge", judge, "--quiet"]
    done = subprocess.run([*command, "--format", "json", *options], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    shares = {name: head["share"] for name, head in found["heads"].items()}
    return {"shape and color": found["prompt_accuracy"]["share"], **shares}


def table(rows: list[tuple[str, str, dict[str, float]]]) -> str:
    lines = [f"| sampler | run by | {' | '.join(HEADS)} |", "|---|---|" + "---|" * len(HEADS)]
    for name, program, shares in rows:
        cells = " | ".join(f"{100 * shares[head]:.1f} %" for head in HEADS)
        lines.append(f"| {name} | {program} | {cells} |")
    return "\n".join(lines)


def contact_sheet(folder: Path, path: Path, columns: int = 8) -> None:
    """Every picture with its prompt below it, and a mark where the judge does not see what was asked for."""
    pictures = json.loads((folder / "evaluation.json").read_text())["pictures"]
    side, text = 128, 44
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 8) + 8, rows * (side + text) + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for index, entry in enumerate(pictures):
        x, y = index % columns * (side + 8) + 8, index // columns * (side + text) + 8
        image = Image.open(folder / entry["file"]).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(image, (x, y))
        lines = [""]
        for word in entry["prompt"].split():
            longer = f"{lines[-1]} {word}".strip()
            lines = [*lines[:-1], longer] if len(longer) <= side // 6 else [*lines, word]
        colour = "black" if entry["right"] else "red"
        draw.multiline_text((x, y + side + 1), "\n".join(lines[:4]), fill=colour, font_size=10, spacing=0)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
