"""What exploring costs and finds: speed, workers, proofs, mistakes by strategy, shrunk witnesses.

`python benchmarks/explore.py speed` (or `workers`, `proofs`, `mistakes`, `witnesses`). All checks are on.
Figures to compare are taken side by side in one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from emulator.explore.compiled.runs import search as compiled_search  # noqa: E402
from emulator.explore.ddmin import shrink  # noqa: E402
from emulator.explore.exhaustive import exhaust, shortest  # noqa: E402
from emulator.explore.learned import LearnedMachine  # noqa: E402
from emulator.explore.search import Limits, search  # noqa: E402
from emulator.explore.strategies import find_strategy  # noqa: E402
from emulator.hardware.ordering import ARCHITECTURES  # noqa: E402
from emulator.machine.litmus import LitmusMachine  # noqa: E402
from emulator.machine.referee import Referee  # noqa: E402
from scenarios.litmus import LITMUS  # noqa: E402
from scenarios.subjects.policies import policy_factory  # noqa: E402
from scenarios.subjects.programs import LitmusName, machine_of  # noqa: E402
from scenarios.subjects.subject import Subject  # noqa: E402

SPEED_TEST = ("deferred-copy", "migrc:v3", "x86")
PROOFS = (("shootdown", "immediate"), ("deferred-copy", "migrc:v3"))
PROOF_CPUS = (2, 3, 4)
STRATEGIES = ("random", "pct:2", "pct:3", "uniform", "delay:2", "portfolio")
SEEDS = range(1, 6)
CAP = 10_000
STEPS_LIMIT = 200_000
SCHEDULES_LIMIT = 3_000
COMPILED_LIMIT = 100_000
WORKERS_LIMIT = 1.7
WITNESS_LIMIT = 1.5

Report = dict[str, Any]


def never() -> bool:
    """A search that is not to be stopped."""
    return False


def learned(name: str, policy: str, arch: str) -> LearnedMachine:
    """A test of the catalogue on the fast engine."""
    return LearnedMachine(machine_of(LitmusName(name), policy, arch))


def speed(_arguments: argparse.Namespace) -> Report:
    """Steps and schedules a second, learning included: compiled, in Python, the plain engine; one core."""
    machine = machine_of(LitmusName(SPEED_TEST[0]), *SPEED_TEST[1:])
    report: Report = {"test": SPEED_TEST}
    for name, explorer, run, schedules in (
        ("compiled", LearnedMachine(machine), compiled_search, 300_000),
        ("learned", LearnedMachine(machine), search, 30_000),
        ("plain", Referee(machine), search, 300),
    ):
        began = time.perf_counter()
        tally = run(explorer, find_strategy("portfolio")(), 1, Limits(schedules), never)
        elapsed = time.perf_counter() - began
        assert tally.violation is None, tally.violation
        report[name] = {
            "schedules": tally.schedules,
            "steps_per_s": round(tally.steps / elapsed),
            "schedules_per_s": round(tally.schedules / elapsed),
        }
    fast, learned, plain = report["compiled"], report["learned"], report["plain"]
    report["ratio"] = round(learned["steps_per_s"] / plain["steps_per_s"], 1)
    report["ratio_compiled"] = round(fast["steps_per_s"] / learned["steps_per_s"], 1)
    report["met"] = (
        fast["schedules_per_s"] >= COMPILED_LIMIT
        and learned["steps_per_s"] >= STEPS_LIMIT
        and learned["schedules_per_s"] >= SCHEDULES_LIMIT
    )
    return report


def workers(arguments: argparse.Namespace) -> Report:
    """Two Ray workers beside one, on the same schedules; starting Ray is left out."""
    from actors.search_workers import SearchWorkers, Task

    schedules = arguments.schedules
    task = Task(
        "scenarios.runs.searches:open_machine",
        (Subject(LitmusName(SPEED_TEST[0]), *SPEED_TEST[1:]),),
        "portfolio",
        1,
        10_000,
    )
    elapsed = {}
    for count in (1, 2):
        with SearchWorkers(count, str(ROOT)) as pool:
            list(pool.ranges(task, range(0, 2_000, 1_000), None, lambda: None))
            began = time.perf_counter()
            list(pool.ranges(task, range(0, schedules, 1_000), None, lambda: None))
            elapsed[count] = time.perf_counter() - began
    ratio = elapsed[1] / elapsed[2]
    return {
        "schedules": schedules,
        "elapsed_s": {count: round(value, 2) for count, value in elapsed.items()},
        "ratio": round(ratio, 2),
        "met": ratio >= WORKERS_LIMIT,
    }


def one_proof(name: str, policy: str, arch: str, cpus: int) -> Report:
    """One exhaustive search, timed, with this process' peak memory. Further CPUs run the last program."""
    began = time.perf_counter()
    litmus = LITMUS[name]
    programs = litmus.programs + litmus.programs[-1:] * (cpus - litmus.cpus)
    wide = replace(litmus, programs=programs)
    machine = LearnedMachine(LitmusMachine(wide, ARCHITECTURES[arch], policy_factory(policy)))
    found = exhaust(machine)
    return {
        "complete": found.complete,
        "states": found.states,
        "transitions": found.steps,
        "executions": found.schedules,
        "saved": f"{found.saved:.3g}",
        "elapsed_s": round(time.perf_counter() - began, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "violation": found.violation and found.violation._asdict(),
    }


def proofs(_arguments: argparse.Namespace) -> Report:
    """Exhaustive search of shootdown and deferred read copy, each in a process of its own."""
    rows = []
    for base, policy in PROOFS:
        for cpus in PROOF_CPUS:
            for arch in ARCHITECTURES:
                done = subprocess.run(
                    [sys.executable, __file__, "--json", "one-proof", base, policy, arch, str(cpus)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                rows.append(
                    {"test": base, "policy": policy, "arch": arch, "cpus": cpus} | json.loads(done.stdout)
                )
                print(rows[-1], file=sys.stderr)
    return {"rows": rows, "met": all(row["complete"] and row["violation"] is None for row in rows)}


def expected_sometimes(only: str = "") -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(test, policy, arch, rules) of every "Sometimes" of the catalogue."""
    found = []
    for litmus in LITMUS.values():
        for expectation in litmus.expected:
            for arch in ARCHITECTURES:
                if getattr(expectation, arch) == "Sometimes" and only in expectation.policy:
                    found.append((litmus.name, expectation.policy, arch, expectation.rules))
    return found


def mistakes(arguments: argparse.Namespace) -> Report:
    """Schedules until found, by strategy: the median over seeds 1 to 5."""
    rows = []
    for name, policy, arch, _rules in expected_sometimes():
        if arch != arguments.arch:
            continue
        row: Report = {"test": name, "policy": policy, "arch": arch}
        for strategy in STRATEGIES:
            explorer = learned(name, policy, arch)
            needed = []
            for seed in SEEDS:
                tally = search(explorer, find_strategy(strategy)(), seed, Limits(CAP), never)
                needed.append(tally.run + 1 if tally.violation else CAP + 1)
            row[strategy] = int(statistics.median(needed))
        rows.append(row)
        print(row, file=sys.stderr)
    return {"rows": rows, "cap": CAP, "met": all(row["portfolio"] <= 10_000 for row in rows)}


def markdown(report: Report) -> str:
    """The table of `mistakes` for the documentation."""
    lines = [
        "| test | policy | " + " | ".join(STRATEGIES) + " |",
        "|---" * (2 + len(STRATEGIES)) + "|",
    ]
    for row in report["rows"]:
        cells = [str(row[one]) if row[one] <= report["cap"] else "-" for one in STRATEGIES]
        lines.append(f"| {row['test']} | {row['policy']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def witnesses(arguments: argparse.Namespace) -> Report:
    """Shrunk witnesses beside the shortest that breadth-first search finds, the five smallest."""
    rows = []
    for name, policy, arch, _rules in expected_sometimes():
        if arch != arguments.arch:
            continue
        explorer = learned(name, policy, arch)
        tally = search(explorer, find_strategy("portfolio")(), 1, Limits(CAP), never)
        if tally.violation is None:
            continue
        rule = tally.violation.rule
        deadline = time.monotonic() + 20
        short = shrink(explorer, tally.schedule, rule, lambda: time.monotonic() > deadline, 200)  # noqa: B023
        until = time.monotonic() + 60
        best = shortest(explorer, rule, lambda: time.monotonic() > until)  # noqa: B023
        rows.append(
            {
                "test": name,
                "policy": policy,
                "found": len(tally.schedule),
                "shrunk": len(short),
                "shortest": None if best is None else len(best),
            }
        )
        print(rows[-1], file=sys.stderr)
    rows.sort(key=lambda row: row["shortest"] or row["shrunk"])
    smallest = [row for row in rows if row["shortest"]][:5]
    return {
        "rows": rows,
        "five_smallest": smallest,
        "met": all(row["shrunk"] <= WITNESS_LIMIT * row["shortest"] for row in smallest),
    }


def main() -> None:
    """Run one of the jobs; exit code 1 if its target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    verbs = parser.add_subparsers(dest="verb", required=True)
    jobs: dict[str, Callable[[argparse.Namespace], Report]] = {
        "speed": speed,
        "workers": workers,
        "proofs": proofs,
        "mistakes": mistakes,
        "witnesses": witnesses,
    }
    for verb, job in jobs.items():
        sub = verbs.add_parser(verb, help=(job.__doc__ or "").splitlines()[0])
        if verb in ("mistakes", "witnesses"):
            sub.add_argument("--arch", default="riscv", choices=tuple(ARCHITECTURES))
        if verb == "mistakes":
            sub.add_argument("--markdown", action="store_true", help="the table for the documentation")
        if verb == "workers":
            sub.add_argument("--schedules", type=int, default=200_000)
    one = verbs.add_parser("one-proof")
    for name in ("name", "policy", "arch"):
        one.add_argument(name)
    one.add_argument("cpus", type=int)
    arguments = parser.parse_args()
    if arguments.verb == "one-proof":
        report = one_proof(arguments.name, arguments.policy, arguments.arch, arguments.cpus)
    else:
        report = jobs[arguments.verb](arguments)
    if getattr(arguments, "markdown", False):
        print(markdown(report))
    else:
        print(json.dumps(report, indent=None if arguments.json else 2))
    sys.exit(0 if report.get("met", True) else 1)


if __name__ == "__main__":
    main()
