"""Long work that should leave nothing behind: what grows, over `stress --all` and `run tiering` in a loop?

    python benchmarks/soak.py --minutes 60

One `stress --all` runs beside one short `run tiering` after the other. Every ten seconds: memory, descriptors
and threads of the stress and all its processes, and what lies in /dev/shm and in their folder for temporary
files. Prints each minute, and what is larger in the last quarter than in the second; exit code 1 if a rule
broke, or something grew by more than a tenth and a little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
RUN = ("run", "tiering", "--cpus", "2", "--set", "threads.accesses=2000", "--json")


class Sample(NamedTuple):
    """Memory in MiB (each page once: USS), counts of the rest."""

    memory: int
    descriptors: int
    threads: int
    processes: int
    files: int


LITTLE = Sample(memory=50, descriptors=20, threads=20, processes=2, files=20)


def sample(driver: psutil.Process, temporary: Path) -> Sample:
    """What the driver and its offspring hold now."""
    memory = descriptors = threads = processes = 0
    for process in (driver, *driver.children(recursive=True)):
        try:
            with process.oneshot():
                memory += process.memory_full_info().uss
                descriptors += process.num_fds()
                threads += process.num_threads()
                processes += 1
        except psutil.Error:
            continue
    files = sum(len(names) for _, _, names in os.walk(temporary)) + len(os.listdir("/dev/shm"))
    return Sample(memory >> 20, descriptors, threads, processes, files)


def grown(samples: Sequence[Sample]) -> list[str]:
    """What is larger in the last quarter than in the second, by the median."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for name in Sample._fields:
        before, after = (statistics.median(getattr(one, name) for one in part) for part in (early, late))
        if after > 1.1 * before + getattr(LITTLE, name):
            found.append(f"{name}: {before:g} -> {after:g}")
    return found


def main() -> int:
    """Look for so many minutes; exit code 1 if something grew or broke."""
    parser = argparse.ArgumentParser(description="What grows in long work.")
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "scenarios"]
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": name}
        seconds = ("--seconds", str(60 * options.minutes), "--json")
        stress = subprocess.Popen(
            [*command, "stress", "--all", *seconds],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        other: subprocess.Popen[bytes] | None = None
        runs, samples = 0, []
        driver = psutil.Process(stress.pid)
        began = told = time.monotonic()
        while stress.poll() is None:
            time.sleep(10)
            if other is None or other.poll() is not None:
                runs += other is not None
                if other is not None and other.returncode:
                    problems.append(f"run {runs}: exit code {other.returncode}")
                other = subprocess.Popen(
                    [*command, *RUN],
                    cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            samples.append(sample(driver, folder))
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(f"{(told - began) / 60:4.0f} min  {runs} runs  {samples[-1]}", flush=True)
        if other is not None:
            other.wait()
        document = json.loads(stress.communicate()[0])
        left = [path.name for path in folder.iterdir()]
    # The driver has ended by the last.
    problems += grown(samples[:-1])
    if stress.returncode:
        problems.append(f"stress: exit code {stress.returncode}")
    if left:
        problems.append(f"left behind: {', '.join(left)}")
    found = f"{runs} runs of tiering: {document['violations']} violations, {document['races']} races"
    print(f"{document['runs']:,} stressed runs, {found}; {problems or 'nothing grew'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
