"""How a check ends: which verdicts were not expected, how bad that is, and what an earlier check said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from emulator.checks import accounting, frugality
from emulator.machine import progress
from scenarios.files.results import CheckResults, load_page_result
from scenarios.report.verdicts import under
from scenarios.runs.verdict import Result
from scenarios.usage import UsageProblem

_COST: Final = (frugality.NEEDLESS,)
_PROGRESS: Final = (
    *(accounting.LEAK, accounting.UNFINISHED, progress.DEADLOCK, progress.LIVELOCK, progress.NO_END),
    *(progress.SILENCE, progress.ALLOCATION_FAILED, progress.WAITS_WITH_INTERRUPTS_OFF),
)


def severity(rule: str) -> str:
    """`cost`: an interrupt too many; `progress`: something never comes to its end; else `safety`: somebody
    reads or writes memory that is not his, or a note says what is not so."""
    return "cost" if rule in _COST else "progress" if rule in _PROGRESS else "safety"


class Known(NamedTuple):
    """What an earlier check said of one test."""

    ok: bool
    observation: str
    proved: bool


Baseline = dict[tuple[str, str, str, str, str], Known]
"""By test, policy, architecture, mmu and kernel."""


def load_baseline(path: Path) -> Baseline:
    """From what `migrc check --json` printed. UsageProblem if it is none."""
    found = load_page_result(path)
    if not isinstance(found, CheckResults):
        raise UsageProblem(f"--baseline {path}: no results of checks; what migrc check --json printed")
    return {
        (one.litmus, one.policy, one.arch, one.mmu, one.kernel): Known(
            one.ok and not one.error, one.observation, one.proof.proved
        )
        for one in found.results
        if not one.left_out
    }


def unexpected(results: Sequence[Result], kernel: str, before: Baseline | None) -> Iterable[str]:
    """A line for each verdict that was not expected, the worst first, and what has changed since `before`.

    `kernel`: the version of Linux of those that name none.
    """
    bad = [one for one in results if not one.ok]
    order = ("safety", "progress", "cost", "")
    if bad:
        new = sum(_was(one, kernel, before) in (None, True) for one in bad) if before is not None else 0
        yield f"unexpected: {len(bad)}{f', {new} of them new' if before is not None else ''}"
    for one in sorted(bad, key=lambda one: order.index(_severity(one))):
        mark = ""
        if before is not None:
            mark = "" if _was(one, kernel, before) is False else "NEW "
        how = f" [{_severity(one)}]" if _severity(one) else ""
        yield f"  {mark}{one.job.subject.name} {under(one.job.subject)}{how}: {one.reason or one.error}"
    if before is not None:
        yield from _changes(results, kernel, before)


def _severity(result: Result) -> str:
    return severity(result.witness.rule) if result.witness is not None else ""


def _was(result: Result, kernel: str, before: Baseline) -> bool | None:
    """Whether it was expected then; None if nobody looked."""
    known = before.get(_key(result, kernel))
    return None if known is None else known.ok


def _key(result: Result, kernel: str) -> tuple[str, str, str, str, str]:
    subject = result.job.subject
    return subject.name, subject.policy, subject.arch, subject.mmu, subject.test.kernel or kernel


def _changes(results: Sequence[Result], kernel: str, before: Baseline) -> Iterable[str]:
    """What is as expected now and was not, what is no longer proved, and verdicts that are others now."""
    looked = [one for one in results if not one.job.left_out and not one.error]
    for one in looked:
        known = before.get(_key(one, kernel))
        if known is None:
            continue
        where = f"{one.job.subject.name} {under(one.job.subject)}"
        if one.ok and not known.ok:
            yield f"  mended: {where}"
        if one.observation != known.observation:
            yield f"  was {known.observation}, is {one.observation}: {where}"
        elif known.proved and not one.complete:
            yield f"  no longer proved: {where}"
    missing = len(before.keys() - {_key(one, kernel) for one in results})
    fresh = sum(_key(one, kernel) not in before for one in looked)
    compared = len(looked) - fresh
    yield f"against the baseline: {compared} compared, {fresh} not in it, {missing} of it not looked at"
