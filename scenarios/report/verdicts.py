"""What checks found, for people (as herd7 words it), for programs (JSON) and for test harnesses (KTAP).

KTAP version 1: https://docs.kernel.org/dev-tools/ktap.html
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final

from emulator.explore.schedule import format_schedule
from emulator.kernel.versions import DEFAULT
from emulator.policies.catalogue import POLICIES
from scenarios.history.bug import Bug
from scenarios.mistakes import MISTAKES
from scenarios.runs.harm import Harm
from scenarios.runs.verdict import Result
from scenarios.subjects.subject import Subject

SHIPPED: Final = frozenset((*POLICIES, *MISTAKES))
_FIGURES: Final = (
    *("strategy", "observation", "complete", "schedules", "steps"),
    *("ok", "reason", "cut", "states", "saved"),
)


def bug_title(bug: Bug) -> Iterable[str]:
    """The line above the results of a bug."""
    yield f"{bug.name} ({bug.reference}): {bug.title}"


def observation(result: Result) -> str:
    """`Observation NAME Never 0 10000`: positive runs, then negative ones."""
    positive = int(result.witness is not None)
    counts = f"{positive} {max(result.schedules - positive, 0)}"
    return f"Observation {result.job.subject.name} {result.observation} {counts}"


def under(subject: Subject) -> str:
    """Policy, architecture, and the version of Linux if it is not the default one."""
    kernel = f", kernel {subject.test.kernel}" if subject.test.kernel else ""
    return f"{subject.policy} on {subject.how}{kernel}"


def figures(result: Result) -> str:
    """The second line: under what, how, how much."""
    subject = result.job.subject
    rate = result.steps / result.elapsed_s if result.elapsed_s > 0 else 0.0
    parts = (
        f"{under(subject)}, {result.strategy}",
        proof(result),
        f"{result.schedules:,} schedules",
        f"{result.steps:,} steps",
        "" if result.states is None else f"{result.states:,} states",
        f"reduced by {_reduced_by(result.reductions)}" if result.complete and result.reductions else "",
        f"{rate:,.0f} steps/s",
        f"{result.elapsed_s:.1f} s",
        f"{result.cut:,} cut short" if result.cut else "",
    )
    return ", ".join(filter(None, parts))


def _reduced_by(reductions: Sequence[str]) -> str:
    """In words: `ample` and `persistent` are kinds of sets."""
    sets = [name for name in reductions if name != "symmetry"]
    rest = [name for name in reductions if name == "symmetry"]
    return " and ".join([*sets[:-1], *[f"{name} sets" for name in sets[-1:]], *rest])


def proof(result: Result) -> str:
    """Whether every interleaving was searched, or else how much of it."""
    if result.complete:
        return "complete"
    why = f"not complete: {result.stopped}" if result.stopped else "not complete"
    kept = f", kept in {result.kept}" if result.kept is not None else ""
    return f"{why} ({result.seen:,} states seen{kept})" if result.seen else why


def unproved(results: Sequence[Result]) -> Iterable[str]:
    """A line for each *Never* that is not proved."""
    for result in results:
        if result.unproved:
            subject = result.job.subject
            where = f"{subject.name} {subject.policy} {subject.how}"
            yield f"not proved: {where}, {proof(result)}"


def verdict(result: Result) -> str:
    """The third line: whether that was expected, and of which rules not."""
    words = _verdict(result)
    blind = str(result.job.subject.looked)
    return f"{words}; {blind}" if blind else words


def _verdict(result: Result) -> str:
    job = result.job
    if not result.ok:
        return f"UNEXPECTED: {result.reason}"
    if job.expected is None:
        nowhere = f"; no run counted {', '.join(result.unreached)}" if result.unreached else ""
        return f"the test expects nothing here{nowhere}"
    if job.expected != result.observation and job.narrowed:
        return f"expected {job.expected} where all rules count"
    if job.expected != result.observation and not job.like:
        return f"better than with {job.instead_of}, of which {job.expected} is expected"
    if job.expected != result.observation:
        return f"better than {job.like}, of which {job.expected} is expected"
    of = f", as of {job.like}" if job.like else ""
    return f"expected {job.expected}{of}{f', as with {job.instead_of}' if job.instead_of else ''}"


def replay_command(result: Result) -> str:
    """What to type to see it again."""
    trust = " --trust" if result.job.subject.own_code else ""
    return f"migrc replay {shlex.quote(str(result.file))}{trust}"


def in_words(result: Result, details: bool, width: int) -> Iterable[str]:
    """The lines about one result; with `details` the schedule and the columns too."""
    subject = result.job.subject
    if result.job.left_out or result.error:
        yield f"{'Error' if result.error else 'Left out'} {subject.name}"
        yield f"  {under(subject)}"
        yield f"  {result.error or result.job.left_out}"
        return
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
        yield f"  saved as {result.file}" if result.file else f"  not saved: {result.unsaved}"
    if result.file:
        yield f"  {replay_command(result)}"
    if details and result.drawing is not None:
        yield ""
        yield result.drawing.text(width)
        yield ""
    if result.harm is not None:
        yield from harm_in_words(result.harm, width if details else 0)


def harm_in_words(harm: Harm, width: int) -> Iterable[str]:
    """The lines about what a race leads to, with columns if there is a width for them."""
    yield f"  {harm}"
    # Of the very way that was gone on from, what comes then is enough.
    if harm.drawing is not None and width:
        yield f"  schedule: {format_schedule(harm.schedule)}"
        yield ""
        yield harm.drawing.since(harm.steps).text(width)
        yield ""


def summary(results: Sequence[Result], planned: int) -> str:
    """The last line."""
    bad = sum(bool(result.reason) for result in results)
    steps = sum(result.steps for result in results)
    seconds = sum(result.elapsed_s for result in results)
    text = f"{len(results)} results, {bad} unexpected"
    for number, what in (
        (sum(bool(result.error) for result in results), "errors"),
        (sum(bool(result.job.left_out) for result in results), "left out"),
        (sum(result.says_nothing for result in results), "of which nothing is expected"),
        (
            sum(bool(result.job.subject.looked.not_at) for result in results),
            "with rules that were not looked at",
        ),
    ):
        text += f", {number} {what}" if number else ""
    text += f"; {steps:,} steps in {seconds:.1f} s"
    return text if len(results) == planned else f"{text}; interrupted, {planned - len(results)} not finished"


def without_expectations(results: Sequence[Result]) -> Iterable[str]:
    """A line for each policy of a user's own that does not say what to expect: what that is worth."""
    own = [one for one in results if not one.job.like and one.job.subject.policy not in SHIPPED]
    silent = [one for one in own if one.says_nothing]
    for policy in dict.fromkeys(one.job.subject.policy for one in silent):
        mine = [one for one in silent if one.job.subject.policy == policy]
        missed = {name for one in mine for name in one.unreached}
        missed -= {name for one in mine for name in one.job.reached if name not in one.unreached}
        never = f"; no run of any test counted {', '.join(sorted(missed))}" if missed else ""
        alone = "neither `like` a shipped policy nor derived from one"
        yield f"nothing is expected of {policy}, which is {alone}{never}"


def ktap_head(planned: int) -> Iterable[str]:
    """The version line and the plan."""
    yield "KTAP version 1"
    yield f"1..{planned}"


def ktap(result: Result, number: int) -> Iterable[str]:
    """One test, numbered from 1; what a person wants to know about a failure comes before its line."""
    subject = result.job.subject
    skip = f" # SKIP {result.job.left_out}" if result.job.left_out else ""
    if result.error:
        yield f"# error: {' '.join(result.error.split())}"
    elif not skip:
        yield f"# {observation(result)}"
        yield f"# {figures(result)}"
    if result.says_nothing or result.reason or (result.job.subject.heed and not skip):
        yield f"# {verdict(result)}"
    if result.reason and result.witness is not None:
        yield f"# breaks: {result.witness.rule}: {' '.join(result.witness.text.split())}"
        yield f"# schedule: {result.witness.schedule}"
        yield f"# {replay_command(result)}"
    # A hash would begin a directive.
    name = f"{subject.name} {subject.policy} {subject.how}".replace("#", "_")
    yield f"{'ok' if result.ok else 'not ok'} {number} {name}{skip}"


def as_json(result: Result) -> dict[str, Any]:
    """One result as plain values."""
    job, subject, found = result.job, result.job.subject, result.witness
    witness: dict[str, Any] | None = None
    if found is not None and result.drawing is not None:
        columns = list(result.drawing.steps)
        witness = found.model_dump(include={"rule", "schedule", "text", "seed", "run"})
        witness |= {"steps": len(columns), "found_by": found.strategy, "columns": columns}
    return {
        "litmus": subject.name,
        **({"bug": job.bug} if job.bug else {}),
        "policy": subject.policy,
        "arch": subject.arch,
        "mmu": subject.mmu,
        "kernel": subject.test.kernel or DEFAULT,
        "expected": job.expected,
        **{name: getattr(result, name) for name in _FIGURES},
        "proof": {
            "proved": result.complete and result.observation == "Never",
            "states": result.seen,
            "reductions": list(result.reductions),
            "collision_odds": 0.0,
            "stopped": result.stopped or None,
            "kept": None if result.kept is None else str(result.kept),
        },
        "elapsed_s": round(result.elapsed_s, 6),
        "witness": witness,
        **({"harm": result.harm.as_json()} if result.harm is not None else {}),
        "unreached": list(result.unreached),
        "file": None if result.file is None else str(result.file),
        "unsaved": result.unsaved or None,
        "rules": list(subject.heed.rules),
        "ignored": list(subject.heed.ignored),
        "not_looked_at": list(subject.looked.not_at),
        "like": job.like or None,
        "left_out": job.left_out or None,
        "error": result.error or None,
    }
