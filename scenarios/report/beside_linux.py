"""Recorded cases beside the emulator's, for people and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final, TextIO

from scenarios.linux.agreement import Outcome, Verdict, compared
from scenarios.linux.cases import Counted, cell
from scenarios.report.console import plain_console, plain_table

SIGNS: Final = {
    Outcome.EQUAL: "=",
    Outcome.KNOWN: "known",
    Outcome.DIFFERENT: "DIFFERENT",
    Outcome.GONE: "GONE",
    Outcome.UNSTEADY: "unsteady",
    Outcome.NOT_MODELLED: "-",
}


def print_agreement(verdicts: Sequence[Verdict], heading: str, verbose: bool, file: TextIO) -> None:
    """A line an operation, a column a configuration; below it what differs, and the sums."""
    console = plain_console(file)
    console.print(heading)
    console.print()
    configurations = list(dict.fromkeys(verdict.case.configuration for verdict in verdicts))
    table = plain_table(["operation", *configurations], left=["operation", *configurations])
    for operation, found in groupby(verdicts, key=lambda verdict: verdict.case.operation):
        signs = {verdict.case.configuration: SIGNS[verdict.outcome] for verdict in found}
        table.add_row(operation, *(signs.get(name, "") for name in configurations))
    console.print(table)
    for verdict in verdicts:
        if verbose or not verdict.expected:
            for line in in_words(verdict):
                console.print(line)
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.outcome is Outcome.KNOWN)
    missing = Counter(verdict.reason for verdict in verdicts if verdict.outcome is Outcome.NOT_MODELLED)
    for title, listed in (("known differences", reasons), ("not modelled", missing)):
        if listed:
            console.print(f"\n{title}:")
            for reason, count in listed.items():
                console.print(f"  {count:4} {reason}")
    console.print()
    console.print(summary(verdicts))


def in_words(verdict: Verdict) -> list[str]:
    """One case: what was counted here and there, in as many lines as there are columns to tell."""
    case, ours = verdict.case, verdict.ours
    agreed = (
        "" if case.agreed[0] == case.agreed[1] else f" (Linux: {case.agreed[0]} of {case.agreed[1]} runs)"
    )
    why = f": {verdict.reason}" if verdict.reason else ""
    lines = [f"\n{case.operation} {case.configuration}: {verdict.outcome.value}{agreed}{why}"]
    for column in Counted._fields:
        linux = cell(getattr(compared(case.counted, case.configuration), column))
        if ours is None:
            lines.append(f"  {column:7} Linux {linux}")
            continue
        mine = cell(getattr(compared(ours, case.configuration), column))
        if mine != linux:
            lines.append(f"  {column:7} {mine}   Linux {linux}")
        elif mine != "-":
            lines.append(f"  {column:7} {mine}")
    return lines


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many of each outcome."""
    count = Counter(verdict.outcome for verdict in verdicts)
    unexpected = count[Outcome.DIFFERENT] + count[Outcome.GONE]
    unsteady = f"{count[Outcome.UNSTEADY]} unsteady, " if count[Outcome.UNSTEADY] else ""
    return (
        f"{len(verdicts)} cases: {count[Outcome.EQUAL] + count[Outcome.GONE]} equal, "
        f"{count[Outcome.DIFFERENT] + count[Outcome.KNOWN]} different, "
        f"{unsteady}{count[Outcome.NOT_MODELLED]} not modelled; {unexpected} not as expected"
    )


def document(verdicts: Sequence[Verdict], about: Mapping[str, Any]) -> dict[str, Any]:
    """All of it as plain values."""
    count = Counter(verdict.outcome for verdict in verdicts)
    return {
        **about,
        "summary": {outcome.value: count[outcome] for outcome in Outcome},
        "cases": [
            {
                "operation": verdict.case.operation,
                "configuration": verdict.case.configuration,
                "outcome": verdict.outcome.value,
                "differs": list(verdict.differs),
                "reason": verdict.reason,
                "ours": None if verdict.ours is None else verdict.ours._asdict(),
                "linux": verdict.case.counted._asdict(),
                "agreed": list(verdict.case.agreed),
            }
            for verdict in verdicts
        ],
    }
