"""A schedule as text that a person can read, paste and replay.

Tokens with spaces between them: `0` CPU 0 steps, `i1` CPU 1 takes its queued calls, `p2.0` entry 0 of
CPU 2's window is performed, `w1.0x10` CPU 1's walker fetches page 0x10, `v1.0` CPU 1's TLB drops what CPU 0's
instruction has named; `0*5` is `0` five times. The text
and the machine's start are all that a run depends on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from emulator.checks.violation import Violation
from emulator.explore.explorer import Explorer
from emulator.hardware.cpu import Kind, Transition

FORMS = "0, i0, p0.1, w0.0x10, v1.0, each also with *COUNT"
MAX_TRANSITIONS = 1_000_000

_TOKEN = re.compile(
    r"(?:(?P<step>[0-9]{1,6})"
    r"|i(?P<interrupt>[0-9]{1,6})"
    r"|p(?P<perform>[0-9]{1,6})\.(?P<entry>[0-9]{1,6})"
    r"|v(?P<invalidate>[0-9]{1,6})\.(?P<sender>[0-9]{1,6})"
    r"|w(?P<walk>[0-9]{1,6})\.0x(?P<page>[0-9a-fA-F]{1,16}))"
    r"(?:\*(?P<count>[0-9]{1,7}))?"
)


class ScheduleProblem(ValueError):
    """The text is no schedule, or the machine cannot follow it; one line, saying where and what would do."""


def format_transition(transition: Transition) -> str:
    """One transition as a token."""
    kind, cpu, at = transition
    if kind is Kind.STEP:
        return f"{cpu}"
    if kind is Kind.INTERRUPT:
        return f"i{cpu}"
    if kind is Kind.PERFORM:
        return f"p{cpu}.{at}"
    if kind is Kind.INVALIDATE:
        return f"v{cpu}.{at}"
    return f"w{cpu}.{at:#x}"


def format_schedule(schedule: Sequence[Transition]) -> str:
    """The schedule as tokens, repetitions counted; empty for an empty one."""
    tokens = []
    for transition, run in groupby(schedule):
        count = sum(1 for _ in run)
        tokens.append(format_transition(transition) + (f"*{count}" if count > 1 else ""))
    return " ".join(tokens)


def parse_schedule(text: str) -> tuple[Transition, ...]:
    """The transitions of a schedule's text; any white space separates tokens. Raises ScheduleProblem."""
    found: list[Transition] = []
    for position, token in enumerate(text.split(), start=1):
        match = _TOKEN.fullmatch(token)
        if match is None:
            shown = token if len(token) <= 40 else f"{token[:40]}..."
            raise ScheduleProblem(f"token {position} of the schedule ({shown!r}) is none of {FORMS}")
        count = int(match["count"] or 1)
        if not 0 < count <= MAX_TRANSITIONS - len(found):
            raise ScheduleProblem(
                f"token {position} of the schedule ({token!r}): the count has to be at least 1, "
                f"and a schedule at most {MAX_TRANSITIONS} transitions long"
            )
        found += [_transition(match)] * count
    return tuple(found)


def _transition(match: re.Match[str]) -> Transition:
    if match["step"] is not None:
        return Transition(Kind.STEP, int(match["step"]))
    if match["interrupt"] is not None:
        return Transition(Kind.INTERRUPT, int(match["interrupt"]))
    if match["perform"] is not None:
        return Transition(Kind.PERFORM, int(match["perform"]), int(match["entry"]))
    if match["invalidate"] is not None:
        return Transition(Kind.INVALIDATE, int(match["invalidate"]), int(match["sender"]))
    return Transition(Kind.WALK, int(match["walk"]), int(match["page"], 16))


def replay(explorer: Explorer, schedule: Sequence[Transition]) -> Violation | None:
    """Run from the start and take exactly these transitions; the first rule that this breaks.

    Stops at the first broken rule, whatever the schedule says after it. An end of the run is judged as such.
    Raises ScheduleProblem for a transition that is not possible where it stands.
    """
    follow(explorer, schedule)
    if explorer.violation is None and not explorer.options():
        explorer.finish()
    return explorer.violation


def follow(explorer: Explorer, schedule: Sequence[Transition]) -> None:
    """As `replay`, without judging the end of the run."""
    explorer.reset()
    for number, transition in enumerate(schedule, start=1):
        if explorer.attempt(transition) != transition:
            follow(explorer, schedule[: number - 1])
            possible = ", ".join(format_transition(option.transition) for option in explorer.options())
            raise ScheduleProblem(
                f"transition {number} ({format_transition(transition)}) is not possible there; "
                + (f"possible are {possible}" if possible else "the run has ended")
            )
        if explorer.violation is not None:
            return
