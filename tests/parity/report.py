"""Collects the outcome of checks and writes it as a table."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path


MARKER = "<!-- table -->"


def write_after_marker(page: Path, text: str) -> None:
    """Replaces what follows the marker line of a page; without a page, or a marker, writes all."""
    before = page.read_text() if page.exists() else ""
    head = before.split(MARKER)[0] + MARKER + "\n\n" if MARKER in before else ""
    page.write_text(head + text)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One check: `error` is a figure under `limit`, or None for a check without one."""

    variant: str
    column: str
    name: str
    passed: bool
    error: float | None
    limit: float | None
    message: str = ""


class Report:
    """Every outcome so far, in order."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.variant = ""

    def measure(self, column: str, name: str, limit: float, check: Callable[[], float]) -> None:
        """Runs a check that returns an error, which must be at most `limit`."""
        try:
            error = check()
        except Exception as cause:  # a check that cannot run is a check that failed
            self.broken(column, name, cause)
            return
        self.add(Outcome(self.variant, column, name, error <= limit, error, limit))

    def require(self, column: str, name: str, check: Callable[[], object]) -> object | None:
        """Runs a check that raises when it fails; returns what it returns."""
        try:
            value = check()
        except Exception as cause:
            self.broken(column, name, cause)
            return None
        self.add(Outcome(self.variant, column, name, True, None, None))
        return value

    def broken(self, column: str, name: str, cause: Exception) -> None:
        """Records an exception as a failure."""
        text = "".join(traceback.format_exception_only(cause)).strip()
        self.add(Outcome(self.variant, column, name, False, None, None, text))

    def add(self, outcome: Outcome) -> None:
        """Records an outcome; a failure is printed at once."""
        self.outcomes.append(outcome)
        if not outcome.passed:
            figure = outcome.message
            if outcome.error is not None:
                figure = f"{outcome.error:.2e} is over {outcome.limit:.0e}"
            print(f"FAIL {outcome.variant}: {outcome.column}: {outcome.name}: {figure}", flush=True)

    def failed(self) -> int:
        """How many checks failed."""
        return sum(not outcome.passed for outcome in self.outcomes)

    def summary(self) -> str:
        """The closing line."""
        return f"{len(self.outcomes) - self.failed()} passed, {self.failed()} failed"

    def table(self, notes: dict[str, str]) -> str:
        """Markdown: a row per variant, the worst error per column."""
        columns = list(dict.fromkeys(o.column for o in self.outcomes if o.error is not None))
        variants = list(dict.fromkeys(outcome.variant for outcome in self.outcomes))
        limits = {}
        for outcome in self.outcomes:
            if outcome.limit is not None:
                limits[outcome.column] = f"{outcome.limit:.0e}"
        rows = [
            ["variant", *columns, "checks"],
            ["---"] * (len(columns) + 2),
            ["limit", *[limits[column] for column in columns], ""],
        ]
        for variant in variants:
            mine = [outcome for outcome in self.outcomes if outcome.variant == variant]
            row = [f"`{variant}`"]
            for column in columns:
                errors = [o.error for o in mine if o.column == column and o.error is not None]
                row.append(f"{max(errors):.0e}" if errors else "")
            good = sum(outcome.passed for outcome in mine)
            row.append(f"{good} of {len(mine)}")
            rows.append(row)
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines += ["", "Variants:", ""]
        lines += [f"- `{variant}`: {notes[variant]}" for variant in variants if variant in notes]
        return "\n".join(lines) + "\n"
