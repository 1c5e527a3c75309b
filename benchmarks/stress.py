"""What `migrc stress` is claimed to find, not to find, and how fast it is; measured on live actors.

    python benchmarks/stress.py table --out docs/live-evidence.md    what is wrong: live against explored
    python benchmarks/stress.py clean --runs 2000                    policies that must break no rule
    python benchmarks/stress.py speed                                runs a second of a test on three CPUs
    python benchmarks/stress.py replays                              recordings come out again

`table` writes between the two marks in the file, else prints. Any report in `clean`, and any recording that
does not come out again, makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from actors.mode import Mode
from actors.session import LiveSession
from emulator.hardware.awaits import watch_coroutines
from scenarios.files.keeper import Keeper
from scenarios.files.recording import Recording
from scenarios.litmus import LITMUS
from scenarios.runs.replays import Replay
from scenarios.runs.searches import run_job
from scenarios.runs.swarm import DEFAULT_LEVEL, Pace, draw_chaos
from scenarios.runs.tally import Tally, is_harm
from scenarios.runs.trials import Plan, one_run, stress, target
from scenarios.runs.verdict import Job, Settings
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject
from scenarios.workloads.workload_file import load_workload

BEGIN: Final = "<!-- table of benchmarks/stress.py -->"
END: Final = "<!-- end of table -->"
CLEAN: Final = ("immediate", "migrc:v3", "migrc:rfc2", "migrc:v9")
WEAK: Final = "riscv"
TEST_SPEED: Final = "two-adders-one-taker"

# The catalogue's mistakes by what is missing in them; the others are wrong in another way.
MISSING: Final = {
    "mistake:no-wait-for-acknowledgements": "acknowledgement",
    "mistake:interrupt-to-nobody": "flush",
    "mistake:deferred-without-waiting": "acknowledgement",
    "mistake:skip-test-inverted": "flush",
    "mistake:no-barrier-before-flush": "barrier",
    "mistake:no-barrier-after-flush": "barrier",
    "mistake:generation-read-after-flush": "flush",
    "mistake:note-before-flush": "flush",
    "mistake:generation-before-unmap": "flush",
    "mistake:plain-comparison": "flush",
    "mistake:narrow-generation": "flush",
    "mistake:empty-means-done": "acknowledgement",
    "mistake:adds-while-flushing": "flush",
    "mistake:write-fault-forgets": "flush",
    "mistake:marks-what-is-pending": "flush",
    "mistake:defers-writable": "flush",
    "mistake:switched-off-forgets": "flush",
    "mistake:mask-before-unmap": "flush",
    "mistake:fork-without-flush": "flush",
    "mistake:pageout-without-flush": "flush",
    "mistake:zap-without-flush": "flush",
}

TIERING: Final = (
    "memory.fast_pages=128",
    "memory.slow_pages=512",
    "memory.min_free_pages=24",
    "threads.table_pages=192",
    "threads.heap_pages=32",
    "threads.hot_pages=24",
    "threads.drift_every=1000",
    "threads.drift_pages=16",
    "threads.accesses=12000",
    "kernel.numa_scan_pages=256",
    "kernel.numa_scan_period_accesses=500",
    "checks.sample_every=50",
)


def table(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Every test and policy expected to break a rule: runs until happens-before reports it, until harm."""
    rows = []
    with LiveSession() as session:
        for name, litmus in LITMUS.items():
            for expectation in litmus.expected:
                if arguments.only and arguments.only not in expectation.policy:
                    continue
                arch = "x86" if expectation.x86 == "Sometimes" else WEAK
                if getattr(expectation, arch) != "Sometimes":
                    continue
                subject = Subject(LitmusName(name), expectation.policy, arch)
                row = _found_live(session, subject, arguments.seeds, arguments.runs)
                row["explored"] = _found_explored(subject)
                rows.append(row)
                _say(_row(row))
    missing = [row for row in rows if row["missing"]]
    least = max(1, arguments.seeds * 9 // 10)
    document = {
        "rows": rows,
        "seeds": arguments.seeds,
        "within": arguments.within,
        "missing": len(missing),
        "missing_found": sum(_within(row, arguments.within) >= least for row in missing),
    }
    text = _markdown(rows, arguments)
    if arguments.out is not None:
        _write_between(arguments.out, text)
    elif not arguments.json:
        print(text)
    return document, 0 if document["missing_found"] == len(missing) else 1


def _found_live(session: LiveSession, subject: Subject, seeds: int, runs: int) -> dict[str, Any]:
    aim = target(subject)
    orders: list[int | None] = []
    harms: list[int | None] = []
    for seed in range(seeds):
        tally, pace = Tally(aim), Pace(aim.machine.cpus)
        for run in range(runs):
            one_run(session, tally, pace, draw_chaos(seed, run, DEFAULT_LEVEL, pace), seed)
            if (tally.races or tally.needless) and tally.violations:
                break
        harm = [one.run + 1 for one in tally.findings if is_harm(one.rule)]
        order = [one.run + 1 for one in tally.findings if not is_harm(one.rule)]
        harms.append(min(harm, default=None))
        orders.append(min(order, default=None))
    return {
        "test": subject.name,
        "policy": subject.policy,
        "arch": subject.arch,
        "cpus": aim.machine.cpus,
        "missing": MISSING.get(subject.policy, ""),
        "happens_before": orders,
        "harm": harms,
    }


def _found_explored(subject: Subject) -> int | None:
    """Schedules until `migrc check` finds it."""
    job = Job(subject, "Sometimes")
    with tempfile.TemporaryDirectory() as folder:
        result = run_job(job, Settings(folder=Path(folder)), None, lambda done: None)
    return None if result.witness is None else result.schedules


def _within(row: dict[str, Any], runs: int) -> int:
    return sum(one is not None and one <= runs for one in row["happens_before"])


def _runs(found: Sequence[int | None], seeds: int) -> str:
    """`4 (10/10)`: the median over the seeds that found it, and how many those are."""
    runs = [one for one in found if one is not None]
    return f"{median(runs):g} ({len(runs)}/{seeds})" if runs else "-"


def _row(row: dict[str, Any]) -> str:
    seeds = len(row["harm"])
    explored = row["explored"]
    cells = (
        row["test"],
        row["policy"],
        row["arch"],
        row["missing"],
        _runs(row["happens_before"], seeds),
        _runs(row["harm"], seeds),
        "-" if explored is None else f"{explored:,}",
    )
    return f"| {' | '.join(cells)} |"


def _markdown(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> str:
    head = ("test", "policy", "arch", "missing", "order missing", "harm seen", "explored")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *map(_row, rows)]
    lines += ["", f"{arguments.seeds} seeds, {arguments.runs} runs each, chaos {DEFAULT_LEVEL}."]
    return "\n".join(lines)


def _write_between(file: Path, text: str) -> None:
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{file}: it lacks {BEGIN} or {END}")
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def clean(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Every test under the policies of which it expects Never, in turn."""
    targets = [
        target(Subject(LitmusName(name), expectation.policy, arch))
        for name, litmus in LITMUS.items()
        for expectation in litmus.expected
        for arch in ("x86", WEAK)
        if expectation.policy in CLEAN and getattr(expectation, arch) == "Never"
    ]
    plan = Plan(arguments.seed, arguments.chaos, arguments.runs, None)
    outcome = stress(targets, plan, None, lambda tally: None)
    reports = [
        {
            "test": tally.target.subject.name,
            "policy": tally.target.subject.policy,
            "arch": tally.target.subject.arch,
            "rules": tally.rules,
            "runs": [one.run for one in tally.findings],
        }
        for tally in outcome.tallies
        if tally.rules
    ]
    document = {
        "targets": len(targets),
        "runs": outcome.runs,
        "chaos": arguments.chaos,
        "interleavings": sum(len(tally.interleavings) for tally in outcome.tallies),
        "runs_per_second": round(outcome.runs / outcome.elapsed_s, 1),
        "reports": reports,
        "problem": outcome.problem,
    }
    return document, 1 if reports or outcome.problem else 0


def speed(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Runs a second, the start of Ray and the first run left out."""
    aim = target(Subject(LitmusName(TEST_SPEED), "migrc:v3", "x86"))
    rates = {}
    with LiveSession() as session:
        stress([aim], Plan(0, DEFAULT_LEVEL, 5, None), None, lambda tally: None, session)
        for level in range(4):
            plan = Plan(0, level, arguments.runs, None)
            outcome = stress([aim], plan, None, lambda tally: None, session)
            rates[level] = round(outcome.runs / outcome.elapsed_s, 1)
    document = {"test": TEST_SPEED, "cpus": aim.machine.cpus, "runs": arguments.runs, "by_chaos": rates}
    return document, 0 if min(rates.values()) >= 5 else 1


def replays(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Record runs of a workload and of stressed tests; every one replays to the same end."""
    counts = {"workload": 0, "stress": 0}
    operations: list[int] = []
    different: list[str] = []
    with tempfile.TemporaryDirectory() as folder, LiveSession() as session:
        file = Path(folder) / "run.mrec"
        workload = load_workload("tiering", TIERING)
        for number in range(arguments.workloads):
            policy = ("immediate", "migrc")[number % 2]
            aim = target(Subject(workload, policy, "x86", 4, number))
            mode = Mode(watched=True, recorded=True)
            with Keeper.of(aim.subject.header(), file, lambda text: None) as keeper:
                keeper.end(session.run(aim.machine, mode=mode, keep=keeper.keep), "")
            operations.append(_follow(file, f"tiering {number}", different))
            counts["workload"] += 1
        tests = [
            target(Subject(LitmusName(name), expectation.policy, arch))
            for name, litmus in LITMUS.items()
            for expectation in litmus.expected
            for arch in ("x86", WEAK)
        ]
        step = max(1, len(tests) // arguments.stressed)
        for number in range(arguments.stressed):
            aim = tests[number * step % len(tests)]
            pace = Pace(aim.machine.cpus)
            chaos = draw_chaos(number, number, DEFAULT_LEVEL, pace)
            mode = Mode(watched=True, recorded=True, chaos=chaos, most=aim.most)
            with Keeper.of(aim.subject.header(chaos), file, lambda text: None) as keeper:
                keeper.end(session.run(aim.machine, mode=mode, keep=keeper.keep), "")
            _follow(file, aim.subject.title(), different)
            counts["stress"] += 1
    document = {**counts, "least_operations": min(operations, default=0), "different": different}
    return document, 1 if different or min(operations, default=10_000) < 10_000 else 0


def _follow(file: Path, name: str, different: list[str]) -> int:
    with Recording(file) as recording:
        again = Replay(recording, recording.machine())
        again.run(lambda transitions, position: None)
    if again.different or recording.problem or not again.rules_again:
        what = again.different.text if again.different else recording.problem or "another rule"
        different.append(f"{name}: {what}")
    return again.operations


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("table", help="live against explored")
    one.add_argument("--seeds", type=int, default=10)
    one.add_argument("--runs", type=int, default=20, help="for each seed, at most")
    one.add_argument(
        "--within", type=int, default=10, help="runs within which what is missing has to be found"
    )
    one.add_argument("--only", default="", help="policies whose name has this in it")
    one.add_argument("--out", type=Path, help="write between the marks in this file")
    one.set_defaults(run=table)
    one = verbs.add_parser("clean", help="no report where there is nothing to report")
    one.add_argument("--runs", type=int, default=2000)
    one.add_argument("--chaos", type=int, default=DEFAULT_LEVEL)
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=clean)
    one = verbs.add_parser("speed", help="runs a second")
    one.add_argument("--runs", type=int, default=60)
    one.set_defaults(run=speed)
    one = verbs.add_parser("replays", help="recordings come out again")
    one.add_argument("--workloads", type=int, default=20)
    one.add_argument("--stressed", type=int, default=100)
    one.set_defaults(run=replays)
    for one in verbs.choices.values():
        one.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args()
    watch_coroutines()
    here = Path.cwd()
    if getattr(arguments, "out", None) is not None:
        arguments.out = arguments.out.resolve()
    # What breaks a rule leaves its recording in the current directory.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            document, code = arguments.run(arguments)
        finally:
            os.chdir(here)
    print(json.dumps(document, indent=2) if arguments.json else "", end="\n" if arguments.json else "")
    if not arguments.json:
        for key, value in document.items():
            if key != "rows":
                _say(f"{key}: {value}")
    sys.exit(code)


if __name__ == "__main__":
    main()
