"""What `migrc stress` has found: one line for each target, what broke and how to see it again, latencies."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scenarios.drawing.phrases import shortened
from scenarios.report.comparison import print_latencies
from scenarios.report.console import plain_console, plain_table
from scenarios.runs.document import Measured
from scenarios.runs.tally import COUNTS, Outcome, Tally

_MOST_NAMED: Final = 8


def as_document(outcome: Outcome, seed: int, level: int) -> dict[str, Any]:
    """The JSON document. Counts are of runs; `interleavings` are distinct ones."""
    return {
        "engine": "live",
        "seed": seed,
        "chaos": level,
        **{name: outcome.count(name) for name in COUNTS},
        "elapsed_s": round(outcome.elapsed_s, 3),
        "runs_per_second": round(outcome.rate, 2),
        "interrupted": False,
        "problem": outcome.problem or None,
        "results": [_result(tally) for tally in outcome.tallies],
        "ipi_latency_ns": {
            policy: {kind: histogram.summary() for kind, histogram in kinds.items()}
            for policy, kinds in outcome.latencies.items()
        },
    }


def _result(tally: Tally) -> dict[str, Any]:
    subject = tally.target.subject
    return {
        "scenario": subject.name,
        "policy": subject.policy,
        "arch": subject.arch,
        "mmu": subject.mmu,
        "cpus": subject.cpus,
        **{name: tally.count(name) for name in COUNTS},
        "rules": tally.rules,
        "not_looked_at": list(subject.looked.not_at),
        "findings": [
            {**one._asdict(), "recording": one.recording and str(one.recording)} for one in tally.findings
        ],
    }


def print_outcome(outcome: Outcome, seed: int, level: int, file: TextIO) -> None:
    """Write the report to `file`: colours if it is a terminal, plain text otherwise."""
    console = plain_console(file)
    tallies = [tally for tally in outcome.tallies if tally.runs]
    console.print(f"stress: live engine, chaos {level}, seed {seed}\n")
    if tallies:
        console.print(_table(tallies))
    for tally in tallies:
        if tally.rules:
            _found(console, tally)
    latencies = [
        Measured(policy=policy, ipi_latency_ns={kind: one.summary() for kind, one in kinds.items()})
        for policy, kinds in outcome.latencies.items()
        if any(len(histogram) for histogram in kinds.values())
    ]
    if latencies:
        print_latencies(console, latencies, outcome.latencies)
    console.print()
    console.print(_last_line(outcome))
    for line in dict.fromkeys(str(tally.target.subject.looked) for tally in tallies):
        if line:
            console.print(Text(line))
    if unseen := [tally.target.subject.title() for tally in outcome.tallies if not tally.runs]:
        more = f" and {len(unseen) - _MOST_NAMED:,} more" if len(unseen) > _MOST_NAMED else ""
        console.print(Text(f"never run: {', '.join(unseen[:_MOST_NAMED])}{more}"))


def _table(tallies: Sequence[Tally]) -> Table:
    names = [
        name
        for name in COUNTS
        if name not in ("needless", "lost") or any(tally.count(name) for tally in tallies)
    ]
    table = plain_table(("", "policy", "arch", *names), left=("", "policy", "arch"))
    for tally in tallies:
        subject = tally.target.subject
        counts = (f"{tally.count(name):,}" for name in names)
        table.add_row(subject.name, subject.policy, subject.how, *counts)
    return table


def _found(console: Console, tally: Tally) -> None:
    console.print()
    console.print(Text(tally.target.subject.title(), style="bold red"))
    for one in tally.findings:
        broken = tally.rules[one.rule]
        console.print(f"  {one.rule}: {broken:,} of {tally.runs:,} runs, first in run {one.run}")
        console.print(f"    {shortened(one.text)}")
    for recording in dict.fromkeys(one.recording for one in tally.findings if one.recording is not None):
        name = shlex.quote(str(recording)) + (" --trust" if tally.target.subject.own_code else "")
        console.print(f"  migrc replay {name}")
        console.print(f"  migrc shrink {name}")


def _last_line(outcome: Outcome) -> str:
    runs, races, needless, violations, lost, interleavings = map(outcome.count, COUNTS)
    return (
        f"{runs:,} runs in {outcome.elapsed_s:.1f} s ({outcome.rate:.1f} a second), "
        f"{races:,} with races, {violations:,} with violations, "
        + (f"{needless:,} with needless interrupts, " if needless else "")
        + (f"{lost:,} lost to the host, " if lost else "")
        + f"{interleavings:,} distinct interleavings"
    )
