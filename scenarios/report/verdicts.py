"""What checks found, for people (as herd7 words it), for programs (JSON) and for test harnesses (KTAP).

KTAP version 1: https://docs.kernel.org/dev-tools/ktap.html
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from scenarios.files.witness import Witness
from scenarios.runs.verdict import Result


def observation(result: Result) -> str:
    """`Observation NAME Never 0 10000`: positive runs, then negative ones."""
    positive = int(result.witness is not None)
    counts = f"{positive} {max(result.schedules - positive, 0)}"
    return f"Observation {result.job.subject.name} {result.observation} {counts}"


def figures(result: Result) -> str:
    """The second line: under what, how, how much."""
    subject = result.job.subject
    rate = result.steps / result.elapsed_s if result.elapsed_s > 0 else 0.0
    parts = [
        f"{subject.policy} on {subject.arch}, {result.strategy}",
        "complete" if result.complete else "not complete",
        f"{result.schedules:,} schedules",
        f"{result.steps:,} steps",
        f"{rate:,.0f} steps/s",
        f"{result.elapsed_s:.1f} s",
    ]
    if result.states is not None:
        parts.insert(4, f"{result.states:,} states")
    if result.cut:
        parts.append(f"{result.cut:,} cut short")
    return ", ".join(parts)


def verdict(result: Result) -> str:
    """The third line: whether that was expected."""
    if not result.ok:
        return f"UNEXPECTED: {result.reason}"
    return f"expected {result.job.expected}" if result.job.expected else "the test expects nothing here"


def replay_command(result: Result) -> str:
    """What to type to see it again; empty if nothing broke."""
    return f"migrc replay {shlex.quote(str(result.file))}" if result.file is not None else ""


def in_words(result: Result, details: bool, width: int) -> Iterable[str]:
    """The lines about one result; with `details` the schedule and the columns too."""
    yield observation(result)
    yield f"  {figures(result)}"
    yield f"  {verdict(result)}"
    witness = result.witness
    if witness is None:
        return
    yield f"  breaks: {witness.rule}: {witness.text}"
    if details:
        yield f"  seed {witness.seed}, run {witness.run}, found by {witness.strategy}"
        yield f"  schedule: {witness.schedule}"
        yield f"  saved as {result.file}"
    yield f"  {replay_command(result)}"
    if details and result.drawing is not None:
        yield ""
        yield result.drawing.text(width)
        yield ""


def summary(results: Sequence[Result], planned: int) -> str:
    """The last line."""
    bad = sum(not result.ok for result in results)
    steps = sum(result.steps for result in results)
    seconds = sum(result.elapsed_s for result in results)
    text = f"{len(results)} results, {bad} unexpected; {steps:,} steps in {seconds:.1f} s"
    return text if len(results) == planned else f"{text}; interrupted, {planned - len(results)} not finished"


def ktap_head(planned: int) -> Iterable[str]:
    """The version line and the plan."""
    yield "KTAP version 1"
    yield f"1..{planned}"


def ktap(result: Result, number: int) -> Iterable[str]:
    """One test, numbered from 1; what a person wants to know about a failure comes before its line."""
    subject = result.job.subject
    yield f"# {observation(result)}"
    yield f"# {figures(result)}"
    if not result.ok:
        yield f"# {verdict(result)}"
        if result.witness is not None:
            yield f"# breaks: {result.witness.rule}: {' '.join(result.witness.text.split())}"
            yield f"# schedule: {result.witness.schedule}"
            yield f"# {replay_command(result)}"
    # A hash would begin a directive.
    name = f"{subject.name} {subject.policy} {subject.arch}".replace("#", "_")
    yield f"{'ok' if result.ok else 'not ok'} {number} {name}"


def as_json(result: Result) -> dict[str, Any]:
    """One result as plain values."""
    subject = result.job.subject
    witness: dict[str, Any] | None = None
    if result.witness is not None and result.drawing is not None:
        witness = witness_json(result.witness, len(result.drawing.steps))
        witness["columns"] = list(result.drawing.steps)
    return {
        "litmus": subject.name,
        "policy": subject.policy,
        "arch": subject.arch,
        "strategy": result.strategy,
        "expected": result.job.expected,
        "observation": result.observation,
        "complete": result.complete,
        "schedules": result.schedules,
        "steps": result.steps,
        "elapsed_s": round(result.elapsed_s, 6),
        "witness": witness,
        "ok": result.ok,
        "reason": result.reason,
        "cut": result.cut,
        "states": result.states,
        "saved": result.saved,
        "unreached": list(result.unreached),
        "file": None if result.file is None else str(result.file),
    }


def witness_json(witness: Witness, steps: int) -> dict[str, Any]:
    """A witness as plain values; `steps` is its length."""
    return {
        "rule": witness.rule,
        "schedule": witness.schedule,
        "steps": steps,
        "text": witness.text,
        "seed": witness.seed,
        "run": witness.run,
        "found_by": witness.strategy,
    }
