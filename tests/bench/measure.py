"""Wall time and peak memory of a command."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Process:
    """What a finished command took, and printed."""

    seconds: float
    peak_mib: float
    stdout: str


def measure(command: list[object]) -> Process:
    """Runs a command to its end; raises when it fails."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(words, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            message = err.read().decode(errors="replace").strip()[-600:]
            raise RuntimeError(f"`{' '.join(words[:3])}` ended with {child.returncode}: {message}")
        return Process(seconds, usage.ru_maxrss / 1024, out.read().decode(errors="replace"))


def settle() -> None:
    """Lets earlier writes reach the disk, so that they do not slow the next command."""
    os.sync()


def best(values: Iterable[float]) -> float:
    """The smallest: the run that the rest of the machine disturbed least."""
    return min(values)


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(values)
