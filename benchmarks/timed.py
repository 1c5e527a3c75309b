"""How fast the timed engine is: user accesses a second of one core, and what looking ahead is worth.

Every row is a whole run of a workload, policy `immediate`, from the machine's making to the last check. Times
are the process' CPU time, so that others on the machine matter less. Exit code 1 if a target is missed.

`--beside FOLDER` runs the rows of this tree and of another one in turn, each time in a process of its own,
and prints how many times as fast this one is: the median, the least and the most.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# `--of FOLDER`, the first argument, is how `--beside` calls: what is measured lies there.
sys.path.insert(0, sys.argv[2] if sys.argv[1:2] == ["--of"] else str(ROOT))

from emulator.timed.engine import TimedEngine  # noqa: E402
from emulator.timed.result import TimedResult  # noqa: E402
from scenarios.subjects.policies import policy_factory  # noqa: E402
from scenarios.subjects.workload_machine import build_machine  # noqa: E402
from scenarios.workloads.settings import MAX_TIMED_CPUS  # noqa: E402
from scenarios.workloads.workload_file import load_workload  # noqa: E402

Row = dict[str, Any]

RATE_TARGET = 1_000_000
LARGE_ACCESSES = 10_000_000
LARGE_SECONDS = 15.0

# The window stays, the scanner comes by seldom: what is left is hits, most of them in the second TLB level.
SECOND_LEVEL = (
    "threads.hot_share=0.9999",
    "threads.drift_every=100000",
    "kernel.numa_scan_period_accesses=50000",
)
# A window that the first level holds.
FIRST_LEVEL = (*SECOND_LEVEL, "threads.hot_pages=24")


def run(
    cpus: int, accesses: int, overrides: Sequence[str], lookahead: bool = True
) -> tuple[Row, TimedResult]:
    """`tiering`, with `accesses` in all on `cpus` CPUs."""
    pages = max(1024, 32 * cpus)
    sizes = (f"threads.accesses={accesses // cpus}", f"memory.fast_pages={pages}")
    return run_workload("tiering", cpus, (*sizes, *overrides), lookahead)


def run_workload(
    name: str, cpus: int, overrides: Sequence[str], lookahead: bool = True
) -> tuple[Row, TimedResult]:
    """A workload of any kind."""
    workload = load_workload(name, tuple(overrides))
    started = time.process_time()
    user = workload.user_space(cpus, 0, None)
    machine = build_machine(workload, cpus, "x86", policy_factory("immediate"), user)
    result = TimedEngine(machine, workload.costs.prices(), lookahead=lookahead).run()
    seconds = time.process_time() - started
    row = {
        "cpus": cpus,
        "accesses": result.accesses,
        "seconds": round(seconds, 3),
        "accesses_per_s": round(result.accesses / seconds),
        "virtual_ms": result.elapsed_ns / 1e6,
        "walks": sum(cpu["vmstat"].get("dtlb_walks", 0) for cpu in result.cpus),
        "violations": len(result.violations),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return row, result


def hits() -> Row:
    """4 CPUs, nearly all accesses hit the first TLB level."""
    row, _ = run(4, 4_000_000, FIRST_LEVEL)
    return row | {"target": f"{RATE_TARGET:,} accesses/s", "met": row["accesses_per_s"] >= RATE_TARGET}


def second_level() -> Row:
    """4 CPUs, nearly all accesses hit the TLB, most of them its second level."""
    row, _ = run(4, 4_000_000, SECOND_LEVEL)
    return row


def shipped() -> Row:
    """4 CPUs, the shipped workload: it migrates all the time, so this is mostly kernel code."""
    row, _ = run(4, 800_000, ())
    return row


def xsbench() -> Row:
    """4 CPUs, the posted benchmark at scale 256: it fills its tables, then mostly looks up."""
    row, _ = run_workload("xsbench-rfc", 4, ("scale=256",))
    return row


def large() -> Row:
    """16 CPUs and 10 million accesses of the shipped workload."""
    row, _ = run(16, LARGE_ACCESSES, ())
    return row | {"target": f"{LARGE_SECONDS:g} s", "met": row["seconds"] <= LARGE_SECONDS}


def widest() -> Row:
    """As many CPUs as there may be."""
    row, _ = run(MAX_TIMED_CPUS, 2_000_000, ())
    return row | {"target": "runs", "met": row["accesses"] > 0 and not row["violations"]}


def lookahead() -> Row:
    """The same run without looking ahead, and whether it comes out the same."""
    row, ahead = run(4, 800_000, SECOND_LEVEL)
    slow, behind = run(4, 800_000, SECOND_LEVEL, lookahead=False)
    same = ahead.clocks_ns == behind.clocks_ns and ahead.cpus == behind.cpus
    ratio = round(slow["seconds"] / row["seconds"], 2)
    return row | {"seconds_without": slow["seconds"], "ratio": ratio, "target": "same result", "met": same}


def memory() -> Row:
    """Ten times the accesses: peak memory of the process may not grow by a tenth."""
    _, _ = run(4, 200_000, SECOND_LEVEL)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row, _ = run(4, 2_000_000, SECOND_LEVEL)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return row | {"ratio": round(after / before, 3), "target": "1.1", "met": after <= 1.1 * before}


JOBS = {one.__name__: one for one in (memory, hits, second_level, shipped, xsbench, lookahead, large, widest)}


def beside(other: Path, names: Sequence[str], times: int) -> dict[str, Row]:
    """How many times as fast this tree is as the `other`."""
    seconds: dict[str, dict[Path, list[float]]] = {name: {ROOT: [], other: []} for name in names}
    for _ in range(times):
        for tree in (other, ROOT):
            command = [sys.executable, __file__, "--of", str(tree), "--json", *names]
            told = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
            if not told.stdout:
                last = told.stderr.strip().splitlines()[-1:]
                sys.exit(f"timed.py: {tree}: not a tree whose engine can be run from here: {' '.join(last)}")
            for name, row in json.loads(told.stdout)["rows"].items():
                seconds[name][tree].append(row["seconds"])
    rows: dict[str, Row] = {}
    for name, found in seconds.items():
        ratios = sorted(old / new for old, new in zip(found[other], found[ROOT], strict=True))
        median = statistics.median(ratios)
        spread = [round(ratio, 2) for ratio in (median, ratios[0], ratios[-1])]
        rows[name] = {"seconds": found[ROOT], "seconds_other": found[other], "ratio": spread}
    return rows


def main() -> None:
    """Run the named rows, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", help=argparse.SUPPRESS)
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another tree, to be compared with")
    parser.add_argument("--times", type=int, default=5, help="with --beside: so often (default 5)")
    parser.add_argument("rows", nargs="*", choices=(*JOBS, []), help="which rows; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    rows: dict[str, Row] = {}
    if arguments.beside is not None:
        if not (arguments.beside / "emulator" / "timed" / "engine.py").is_file():
            parser.error(
                f"--beside {arguments.beside}: no tree of this project; a folder with emulator/timed"
            )
        rows = beside(arguments.beside.resolve(), arguments.rows or list(JOBS), arguments.times)
        for name, row in {} if arguments.json else rows.items():
            print(f"{name}: {row}", flush=True)
    for name in () if arguments.beside is not None else arguments.rows or JOBS:
        rows[name] = JOBS[name]()
        if not arguments.json:
            told = ", ".join(f"{key} {value}" for key, value in rows[name].items())
            print(f"{name}: {(JOBS[name].__doc__ or '').splitlines()[0]}\n    {told}", flush=True)
    met = all(row.get("met", True) for row in rows.values())
    if arguments.json:
        print(json.dumps({"benchmark": "timed", "rows": rows, "met": met}))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
