"""Long work that should leave nothing behind: what grows, over `stress --all` and `run tiering` in a loop?

    python benchmarks/soak.py --minutes 60 --schedules 4000

One `stress --all` runs beside one short `run tiering` after the other. Every ten seconds: memory, descriptors
and threads of the stress and all its processes, and what lies in /dev/shm and in their folder for temporary
files. Prints each minute, and medians of the second and the last quarter. Then `check --all`, so many random
schedules for each result. Exit code 1 if a rule broke, or something grew by more than a tenth and a little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
RUN = ("run", "tiering", "--cpus", "2", "--set", "threads.accesses=2000", "--json")
END_S = 600


class Sample(NamedTuple):
    """Memory in MiB (each page once: USS), that of the driver alone, counts of the rest."""

    memory: int
    driver: int
    descriptors: int
    threads: int
    processes: int
    files: int


LITTLE = Sample(memory=50, driver=30, descriptors=20, threads=20, processes=2, files=20)


def sample(driver: psutil.Process, temporary: Path) -> Sample | None:
    """What the driver and its offspring hold now; None if it has no actors now."""
    memory = own = descriptors = threads = processes = 0
    for process in (driver, *driver.children(recursive=True)):
        try:
            with process.oneshot():
                uss = process.memory_full_info().uss
                memory += uss
                own += uss if process.pid == driver.pid else 0
                descriptors += process.num_fds()
                threads += process.num_threads()
                processes += 1
        except psutil.Error:
            continue
    files = sum(len(names) for _, _, names in os.walk(temporary)) + len(os.listdir("/dev/shm"))
    return Sample(memory >> 20, own >> 20, descriptors, threads, processes, files) if processes > 1 else None


def medians(samples: Sequence[Sample]) -> list[tuple[str, float, float]]:
    """Of each figure the median in the second quarter and in the last."""
    quarter = max(1, len(samples) // 4)
    parts = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for name in Sample._fields:
        before, after = (statistics.median(getattr(one, name) for one in part) for part in parts)
        found.append((name, before, after))
    return found


class Soak:
    """What runs beside each other, where, and what came out."""

    def __init__(self, folder: Path, reports: Path) -> None:
        self.folder = folder
        self.reports = reports
        self.problems: list[str] = []
        self.runs = 0
        self.samples: list[Sample] = []
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}

    @contextlib.contextmanager
    def started(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command of ours, its document and errors in files: a pipe that nobody reads would stop it."""
        with (
            (self.reports / f"{name}.json").open("wb") as out,
            (self.reports / f"{name}.err").open("wb") as errors,
        ):
            command = [sys.executable, "-m", "scenarios", *arguments]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=errors
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait(END_S)

    def ended(self, name: str, process: subprocess.Popen[bytes], good: tuple[int, ...] = (0,)) -> Any:
        """What a command that has ended reports; a problem unless its exit code is good."""
        if process.returncode not in good:
            said = (self.reports / f"{name}.err").read_text().strip().splitlines()
            self.problems.append(f"{name}: exit code {process.returncode}: {said[-1] if said else ''}")
            print(self.problems[-1], flush=True)
        text = (self.reports / f"{name}.json").read_text()
        return json.loads(text) if text else None

    def stressed(self, minutes: float) -> Any:
        """`stress --all`, with runs beside it; its document."""
        seconds = ("--seconds", str(60 * minutes), "--json")
        with self.started("stress", "stress", "--all", *seconds) as stress, contextlib.ExitStack() as held:
            driver = psutil.Process(stress.pid)
            other: subprocess.Popen[bytes] | None = None
            began = told = time.monotonic()
            while stress.poll() is None:
                time.sleep(10)
                if other is None or other.poll() is not None:
                    if other is not None:
                        self.runs += 1
                        self.ended("run", other)
                        held.close()
                    other = held.enter_context(self.started("run", *RUN))
                with contextlib.suppress(psutil.Error):
                    now = sample(driver, self.folder)
                    self.samples += [now] if now else []
                if time.monotonic() - told > 60 and self.samples:
                    told = time.monotonic()
                    print(f"{(told - began) / 60:4.0f} min  {self.runs} runs  {self.samples[-1]}", flush=True)
            # Before the other one has ended: that takes a while on a busy machine.
            document = self.ended("stress", stress)
        return document

    def checked(self, schedules: int) -> Any:
        """`check --all`, so many schedules for each result; its document."""
        random = ("--strategy", "random", "--schedules", str(schedules))
        with self.started("check", "check", "--all", *random, "--json") as check:
            check.wait()
        # 1: so few schedules do not find what is to be found.
        return self.ended("check", check, (0, 1))


def main() -> int:
    """Look for so many minutes; exit code 1 if something grew or broke."""
    parser = argparse.ArgumentParser(description="What grows in long work.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--schedules", type=int, default=0, help="of each result of check --all afterwards")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name,
        tempfile.TemporaryDirectory() as reports,
    ):
        soak = Soak(Path(name), Path(reports))
        document = soak.stressed(options.minutes) if options.minutes else None
        for figure, before, after in medians(soak.samples) if soak.samples else ():
            print(f"{figure}: {before:g} -> {after:g}")
            if after > 1.1 * before + getattr(LITTLE, figure):
                soak.problems.append(f"{figure} grew")
        if document is not None:
            kinds = ("violations", "races", "lost")
            counts = ", ".join(f"{document[kind]:,} {kind}" for kind in kinds)
            print(f"{document['runs']:,} stressed runs: {counts}; {soak.runs:,} runs of tiering", flush=True)
        if left := [path.name for path in soak.folder.iterdir()]:
            soak.problems.append(f"left behind: {', '.join(left)}")
        if options.schedules:
            found = soak.checked(options.schedules)
            never = [one for one in found["results"] if one["expected"] == "Never"]
            other = [one for one in never if one["observation"] != "Never"]
            soak.problems += [f"false alarm: {one['litmus']} {one['policy']} {one['arch']}" for one in other]
            count = sum(one["schedules"] for one in never)
            print(f"{count:,} schedules where Never is expected, {len(other)} results are not")
        print("; ".join(soak.problems) or "nothing grew or broke")
        return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
