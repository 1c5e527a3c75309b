"""What `migrc conformance` has found: a row for each architecture, what disagrees, herd's lines, JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TextIO

from scenarios.conformance.herd_text import printed
from scenarios.conformance.judgement import KINDS, NOT_TRANSLATABLE, TOO_STRONG, TOO_WEAK, Judged
from scenarios.report.console import plain_console, plain_table

_MOST_NAMED: Final = 20


def faults(found: Sequence[Judged]) -> list[Judged]:
    """What must not be: too weak, or not as the architecture's own verdict says."""
    return [one for one in found if one.kind == TOO_WEAK or (one.kind == TOO_STRONG and one.exact)]


def print_conformance(found: Sequence[Judged], title: str, verbose: bool, file: TextIO) -> None:
    """The table, then the tests that disagree by name, then why others are not translatable."""
    console = plain_console(file)
    console.print(title)
    table = plain_table(("architecture", "tests", *KINDS), left=("architecture",))
    for arch in dict.fromkeys(one.arch for one in found):
        kinds = Counter(one.kind for one in found if one.arch == arch)
        table.add_row(arch, str(kinds.total()), *[str(kinds[kind]) for kind in KINDS])
    console.print(table)
    for kind in (TOO_WEAK, TOO_STRONG):
        named = [one for one in found if one.kind == kind]
        for one in named if verbose else named[:_MOST_NAMED]:
            seen = one.outcome.observation if one.outcome else ""
            why = f", {one.reason}" if one.reason else ""
            console.print(f"{kind}: {one.entry.name} on {one.arch}: {seen}{why} ({one.entry.path})")
        if not verbose and len(named) > _MOST_NAMED:
            console.print(f"{kind}: and {len(named) - _MOST_NAMED} more; -v names them all")
    reasons = Counter(one.reason for one in found if one.kind == NOT_TRANSLATABLE)
    for reason, times in reasons.most_common():
        console.print(f"not translatable: {times} for {reason}")


def herd_lines(one: Judged) -> str:
    """A test's outcome as herd prints it, so that mcompare reads it; empty if there is none."""
    outcome = one.outcome
    if outcome is None:
        return ""
    test, condition = outcome.test, outcome.test.condition
    positive, negative = outcome.positive, len(outcome.states) - outcome.positive
    validated = outcome.happens == (condition.quantifier == "exists")
    word = {"exists": "Allowed", "~exists": "Forbidden", "forall": "Required"}[condition.quantifier]
    lines = [
        f"Test {test.name} {word}",
        f"States {len(outcome.states)}",
        *[printed(test.places, state, test.addresses) for state in outcome.states],
        "Ok" if validated else "No",
        "Witnesses",
        f"Positive: {positive} Negative: {negative}",
        f"Condition {condition.text}",
        f"Observation {test.name} {outcome.observation} {positive} {negative}",
        "",
    ]
    return "\n".join(lines)


def as_document(found: Sequence[Judged], suite: str, source: str, interrupted: bool) -> dict[str, Any]:
    """The JSON document: counts by architecture and kind, then every test."""
    archs = dict.fromkeys(one.arch for one in found)
    return {
        "suite": suite,
        "source": source,
        "interrupted": interrupted,
        "counts": {
            arch: {kind: sum(one.kind == kind for one in found if one.arch == arch) for kind in KINDS}
            for arch in archs
        },
        "tests": [_test(one) for one in found],
    }


def _test(one: Judged) -> dict[str, Any]:
    outcome = one.outcome
    return {
        "test": one.entry.name,
        "path": one.entry.path,
        "arch": one.arch,
        "kind": one.kind,
        "exact": one.exact,
        "reason": one.reason or None,
        "allowed": one.entry.allowed.get(one.arch, one.entry.allowed.get("")),
        "observation": outcome.observation if outcome else None,
        "states": [printed(outcome.test.places, state, outcome.test.addresses) for state in outcome.states]
        if outcome
        else [],
    }
