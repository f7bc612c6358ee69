"""Wall time and peak memory of a command.

Run as a program, this file starts the command from a small process of its own: Linux counts the
memory of the process that starts a command as the command's, and the benchmark itself is large.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """What a finished command took, and printed."""

    seconds: float
    peak_mib: float
    stdout: str


def measure(command: list[object]) -> Process:
    """Runs a command to its end; raises when it fails."""
    words = [str(word) for word in command]
    read, write = os.pipe()
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, str(write), *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        pass_fds=[write],
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        report = pipe.read().split()
    if done.returncode != 0:
        message = done.stderr.strip()[-600:]
        raise RuntimeError(f"`{' '.join(words[:3])}` ended with {done.returncode}: {message}")
    return Process(float(report[0]), int(report[1]) / 1024, done.stdout)


def main() -> None:
    """Runs the command after the file descriptor to report to."""
    report, words = int(sys.argv[1]), sys.argv[2:]
    start = time.perf_counter()
    child = os.posix_spawnp(
        words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, report)]
    )
    _, status, usage = os.wait4(child, 0)
    os.write(report, f"{time.perf_counter() - start} {usage.ru_maxrss}".encode())
    sys.exit(os.waitstatus_to_exitcode(status) & 255)


def settle() -> None:
    """Lets earlier writes reach the disk, so that they do not slow the next command."""
    os.sync()


def best(values: Iterable[float]) -> float:
    """The smallest: the run that the rest of the machine disturbed least."""
    return min(values)


def median(values: Iterable[float]) -> float:
    """The middle one."""
    import statistics

    return statistics.median(values)


if __name__ == "__main__":
    main()
