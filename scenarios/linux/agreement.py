"""Recorded cases beside the emulator's: equal, or in what not; and what is known to differ, and why.

What is known is tested both ways: a difference that is not known is a failure, and so is a known one that has
gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

from emulator.memory.page_table import HugePageSplit
from scenarios.linux.cases import Case, Counted, Counts
from scenarios.linux.differences import KNOWN, Difference, reason_not_modelled
from scenarios.linux.operation import Operation, find
from scenarios.linux.testbed import CONFIGURATIONS, Testbed


class Outcome(StrEnum):
    """What came out of one case."""

    EQUAL = "equal"
    KNOWN = "known difference"
    DIFFERENT = "different"
    GONE = "no longer different"
    UNSTEADY = "runs of Linux disagree"
    NOT_MODELLED = "not modelled"


class Verdict(NamedTuple):
    """One case and what the emulator counted, None if it has no way to; `differs` are the columns that do.

    `reason`: why a difference is known, or what is not modelled.
    """

    case: Case
    ours: Counted | None
    differs: tuple[str, ...]
    outcome: Outcome
    reason: str

    @property
    def expected(self) -> bool:
        """Nothing that has to be looked at."""
        return self.outcome not in (Outcome.DIFFERENT, Outcome.GONE)


def verdicts(
    cases: Sequence[Case], known: dict[str, Operation], kernel: str, pcid: bool
) -> Iterator[Verdict]:
    """Run every case on the profile of `kernel`, one after the other."""
    for case in cases:
        yield verdict(case, known, kernel, pcid)


def verdict(case: Case, known: dict[str, Operation], kernel: str, pcid: bool) -> Verdict:
    """Run one case. `known` are the operations by name."""
    found = find(case.operation, known)
    missing = ""
    if found is None:
        missing = reason_not_modelled(case.operation) or f"no program for {case.operation}"
    elif case.configuration not in CONFIGURATIONS:
        missing = f"no configuration {case.configuration}"
    if found is None or missing:
        return Verdict(case, None, (), Outcome.NOT_MODELLED, missing)
    try:
        ours = Testbed(found, case.configuration, kernel, pcid).run()
    except HugePageSplit as problem:
        return Verdict(case, None, (), Outcome.NOT_MODELLED, str(problem))
    differs = differing(ours, case.counted)
    expected = known_difference(case, kernel, pcid, KNOWN)
    if differs and not case.steady:
        outcome, expected = Outcome.UNSTEADY, None
    elif differs:
        outcome = Outcome.KNOWN if expected else Outcome.DIFFERENT
    else:
        outcome = Outcome.GONE if expected else Outcome.EQUAL
    return Verdict(case, ours, differs, outcome, expected.reason if expected else "")


def differing(ours: Counted, linux: Counted) -> tuple[str, ...]:
    """The columns that are not equal.

    Of the flushes on a switch those count that a sleeper's waking makes. What else ran on a CPU meanwhile,
    kernel threads and children, is the scheduler's, and no number of it is twice the same.
    """
    return tuple(
        column
        for column, mine, theirs in zip(Counted._fields, compared(ours), compared(linux), strict=True)
        if mine != theirs
    )


def compared(counted: Counted) -> Counted:
    """What is compared of it."""
    woken: Counts = {
        key: count for key, count in counted.switch.items() if key.startswith("wake") and key != "wake0"
    }
    return counted._replace(switch=woken)


def known_difference(
    case: Case, kernel: str, pcid: bool, differences: Sequence[Difference]
) -> Difference | None:
    """The entry of the list that names this case, if one does."""
    for one in differences:
        if (
            kernel in one.kernels
            and one.pcid in (None, pcid)
            and any(fnmatchcase(case.operation, name) for name in one.operations)
            and case.configuration in one.configurations
        ):
            return one
    return None
