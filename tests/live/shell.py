"""The command in a process of its own, and a workload small enough to be over soon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Long enough for the slowest machine: nothing but a hang takes so long.
HANG_S = 300
ROOT = Path(__file__).parents[2]

# Small tiers and a hot set that moves fast, so that a short run demotes and promotes.
SMALL = (
    "memory.fast_pages=128",
    "memory.slow_pages=512",
    "memory.min_free_pages=24",
    "threads.table_pages=192",
    "threads.heap_pages=32",
    "threads.hot_pages=24",
    "threads.drift_every=1000",
    "threads.drift_pages=16",
    "kernel.numa_scan_pages=256",
    "kernel.numa_scan_period_accesses=500",
    "checks.sample_every=50",
)


def settings(*more: str) -> list[str]:
    """SMALL and more, as options."""
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@contextmanager
def started(*arguments: str, folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command, under way in `folder`; if it still is after the block, it is told to end and clean up."""
    with subprocess.Popen(
        [sys.executable, "-m", "scenarios", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def migrc(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, run to its end in `folder`."""
    with started(*arguments, folder=folder) as process:
        output, errors = process.communicate(timeout=HANG_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def processes_marked(mark: str) -> dict[int, str]:
    """Other processes that inherited the mark (`NAME=value`) in their environment, with their command lines;
    Ray puts some of its own into other process groups."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.name != str(os.getpid()) and mark.encode() in (folder / "environ").read_bytes().split(
                b"\0"
            ):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found
