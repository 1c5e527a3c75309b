"""What each design costs: the table of docs/designs.md, on the timed engine.

`python benchmarks/designs.py run FILE` runs every design on every workload and machine, seed by seed, and
keeps a line of JSON for each run; what FILE has already is not run again, so that it goes on where it was
stopped. `python benchmarks/designs.py table FILE` prints markdown. Designs are what can be named: each mmu
with the policy `immediate`, each other policy on x86. `--design`, `--workload`, `--cpus`, `--sockets` and
`--seeds` leave out the rest. Everything takes an hour of one core, nearly all of it 64 and 128 CPUs.

A difference to mainline is that of the same seed, whose accesses are the same; what is said of all seeds is
their mean, and the interval in which it lies with 95 % (Student's t). What may as well be none, or is within
2 %, is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from emulator.kernel.mmu.catalogue import MMUS  # noqa: E402
from emulator.policies.catalogue import POLICIES, canonical  # noqa: E402
from scenarios.report.spread import Interval, ratios  # noqa: E402
from scenarios.runs.document import Run  # noqa: E402
from scenarios.runs.grid import run_point  # noqa: E402
from scenarios.subjects.subject import Subject  # noqa: E402
from scenarios.usage import UsageProblem  # noqa: E402
from scenarios.workloads.workload_file import load_workload  # noqa: E402

CPUS = (4, 16, 64, 128)
SOCKETS = (1, 8)
SEEDS = 3
SMALL = 0.02
"""What is not more than that is called no difference."""


class Design(NamedTuple):
    """When and how a flush happens."""

    policy: str
    mmu: str
    arch: str

    @property
    def name(self) -> str:
        if self.policy != "immediate":
            return self.policy
        return "mainline" if self.mmu == "x86" else self.mmu


MAINLINE = Design("immediate", "x86", "x86")
DESIGNS = {
    one.name: one
    for one in (
        *(
            Design("immediate", name, "x86" if "x86" in mmu.archs else mmu.archs[0])
            for name, mmu in MMUS.items()
        ),
        *(Design(name, "x86", "x86") for name in POLICIES if canonical(name) == name != "immediate"),
    )
}


def fast_pages(cpus: int) -> int:
    """A fast tier as small as so many CPUs can boot with: what is compared is on the same machine."""
    return max(512, 16 * cpus)


def reads(cpus: int) -> int:
    """How many pages are read in all: more than there is memory, and a thousand at least."""
    return max(1024, fast_pages(cpus) * 5 // 4)


def reclaiming(cpus: int) -> dict[str, object]:
    """Half of the fast tier is kept free or made free again by kswapd; the slow one is an eighth of it."""
    fast = fast_pages(cpus)
    return {
        "memory.fast_pages": fast,
        "memory.slow_pages": fast // 8,
        "memory.min_free_pages": fast // 4,
        "memory.slow_min_free_pages": fast // 32,
    }


WORKLOADS: dict[str, Callable[[int], dict[str, object]]] = {
    "file-reclaim": lambda cpus: (
        reclaiming(cpus)
        | {
            "threads.processes": 1,
            "file_reclaim.file_pages": 2 * fast_pages(cpus),
            "file_reclaim.stretches": fast_pages(cpus) * 3 // 16,
        }
    ),
    "munmap-storm": lambda cpus: {"munmap_storm.loops": 256, "munmap_storm.pages": 8},
    "write-syscall": lambda cpus: (
        reclaiming(cpus)
        | {
            "write_syscall.writes": reads(cpus) // 2,
            "write_syscall.file_pages": 2,
            "write_syscall.table_pages": fast_pages(cpus),
        }
    ),
    "allocation-latency": lambda cpus: (
        reclaiming(cpus)
        | {
            "allocation_latency.file_pages": fast_pages(cpus),
            "allocation_latency.stretches": reads(cpus) // 16,
            "allocation_latency.loops": fast_pages(cpus) // 16,
            "allocation_latency.pages": 16,
        }
    ),
}


class Point(NamedTuple):
    """One run."""

    workload: str
    cpus: int
    sockets: int
    seed: int
    design: str

    def subject(self) -> Subject:
        settings = WORKLOADS[self.workload](self.cpus) | {"costs.sockets": self.sockets}
        workload = load_workload(self.workload, [f"{key}={value}" for key, value in settings.items()])
        workload.check(self.cpus)
        policy, mmu, arch = DESIGNS[self.design]
        return Subject(workload, policy, arch, self.cpus, self.seed, None, mmu=mmu)


FIGURES: dict[str, Callable[[Run], float]] = {
    "flushes": lambda run: run["vmstat"]["nr_tlb_remote_flush"],
    "interrupts": lambda run: sum(run["interrupts"]["TLB"]),
    "time in shootdowns": lambda run: run["shootdown_share"],
    "refills": lambda run: run["vmstat"]["tlb_refills_full"],
    "allocation p99": lambda run: run["allocation_ns"]["all"]["p99"] or 0,
    "held back": lambda run: run["pending_peak"] + run["vmstat"].get("latr_pages_kept", 0),
    "elapsed": lambda run: run["elapsed_ns"],
}
SHOWN: dict[str, Callable[[float], str]] = {
    "time in shootdowns": lambda share: f"{share:.2%}",
    "allocation p99": lambda ns: f"{ns / 1000:,.2f} us",
    "elapsed": lambda ns: f"{ns / 1e6:,.2f} ms",
}

Results = dict[Point, dict[str, float]]


def read(path: Path) -> Results:
    """What there is so far. A last line without its end is dropped."""
    found: Results = {}
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                found[Point(**row["point"])] = row["figures"]
    return found


def points(arguments: argparse.Namespace) -> Iterator[Point]:
    """Seeds vary slowest: each round is a whole table. Fewer CPUs than sockets are left out."""
    for seed in range(arguments.seeds):
        for workload in arguments.workload or WORKLOADS:
            for cpus in arguments.cpus or CPUS:
                for sockets in arguments.sockets or SOCKETS:
                    if cpus >= 2 * sockets:
                        for design in arguments.design or DESIGNS:
                            yield Point(workload, cpus, sockets, seed, design)


def run(path: Path, wanted: Sequence[Point]) -> None:
    """Run what is missing."""
    there = read(path)
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])
    begun = time.monotonic()
    with path.open("a") as file:
        for number, point in enumerate(wanted, 1):
            if point in there:
                continue
            found = run_point(point.subject(), False)
            figures = {name: value(found) for name, value in FIGURES.items()}
            figures["violations"] = len(found["violations"])
            file.write(json.dumps({"point": point._asdict(), "figures": figures}) + "\n")
            file.flush()
            print(
                f"{number} of {len(wanted)}, {time.monotonic() - begun:,.0f} s: {' '.join(map(str, point))}",
                file=sys.stderr,
                flush=True,
            )


def change(figures: Sequence[float], mainline: Sequence[float]) -> Interval | None:
    """By how much a figure differs, as a share of mainline's, over the seeds. None where there are too few of
    them, or mainline has nothing to compare with."""
    found = ratios(mainline, figures) if len(figures) > 1 else None
    return None if found is None else Interval(*(value - 1 for value in found))


def is_none(found: Interval) -> bool:
    """Whether that may as well be no difference."""
    return 0 in found or abs(found.mean) <= SMALL


def cell(name: str, figures: Sequence[float], mainline: Sequence[float]) -> str:
    """The mean of the seeds, and how it differs from mainline."""
    value = SHOWN.get(name, "{:,.0f}".format)(statistics.mean(figures))
    if figures == mainline:
        return f"{value} ="
    found = change(figures, mainline)
    if found is None:
        return value
    half = 100 * (found.high - found.mean)
    return f"{value} =" if is_none(found) else f"{value} ({found.mean:+.0%} ±{half:.0f} %)"


def table(results: Results) -> Iterator[str]:
    """Markdown, a table for each workload; designs that change nothing are told below each machine."""
    machines: dict[tuple[str, int, int], dict[str, list[dict[str, float]]]] = {}
    for point in sorted(results, key=lambda point: point.seed):
        by_design = machines.setdefault((point.workload, point.cpus, point.sockets), {})
        by_design.setdefault(point.design, []).append(results[point])
    order = {name: place for place, name in enumerate(WORKLOADS)}
    last = ""
    for workload, cpus, sockets in sorted(machines, key=lambda one: (order[one[0]], *one[1:])):
        by_design = machines[workload, cpus, sockets]
        mainline = by_design.get(MAINLINE.name)
        if mainline is None:
            continue
        if workload != last:
            yield f"\n`{workload}`:\n"
            yield f"| CPUs, sockets | design | {' | '.join(FIGURES)} |"
            yield "|---" * (len(FIGURES) + 2) + "|"
            last = workload
        alike = []
        for design in DESIGNS:
            runs = by_design.get(design)
            if runs is None or len(runs) != len(mainline):
                continue
            pairs = {name: ([one[name] for one in runs], [one[name] for one in mainline]) for name in FIGURES}
            cells = [cell(name, *pair) for name, pair in pairs.items()]
            if runs is not mainline and all(text.endswith("=") for text in cells):
                alike.append(design)
                continue
            if runs is mainline:
                cells = [text.removesuffix(" =") for text in cells]
            broken = sum(one["violations"] for one in runs)
            name = f"{design} ({broken:,.0f} violations)" if broken else design
            yield f"| {cpus}, {sockets} | {name} | {' | '.join(cells)} |"
        if alike:
            yield f"| {cpus}, {sockets} | {', '.join(alike)} | no difference |{' |' * (len(FIGURES) - 1)}"


def main() -> None:
    """Run, or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--design", action="append", choices=DESIGNS)
    parser.add_argument("--workload", action="append", choices=WORKLOADS)
    parser.add_argument("--cpus", action="append", type=int)
    parser.add_argument("--sockets", action="append", type=int)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many (default {SEEDS})")
    arguments = parser.parse_args()
    if arguments.what == "table":
        print("\n".join(table(read(arguments.file))))
        return
    try:
        run(arguments.file, list(points(arguments)))
    except UsageProblem as problem:
        sys.exit(f"designs.py: {problem.message}")


if __name__ == "__main__":
    main()
