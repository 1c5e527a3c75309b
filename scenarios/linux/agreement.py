"""Recorded cases beside the emulator's: equal, or in what not; and what is known to differ, and why.

What is known is tested both ways: a difference that is not known is a failure, and so is a known one that has
gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

from emulator.memory.page_table import HugePageSplit
from scenarios.linux.cases import Case, Counted, Counts
from scenarios.linux.differences import KNOWN, Difference
from scenarios.linux.operation import Call, Found, find
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


def verdicts(cases: Sequence[Case], known: Mapping[str, Call], kernel: str, pcid: bool) -> Iterator[Verdict]:
    """Run every case on the profile of `kernel`, one after the other."""
    for case in cases:
        yield verdict(case, known, kernel, pcid)


def verdict(case: Case, known: Mapping[str, Call], kernel: str, pcid: bool) -> Verdict:
    """Run one case. `known` are the operations by name."""
    found = find(case.operation, known)
    missing = ""
    if found is None:
        missing = f"no program for {case.operation}"
    elif case.configuration not in CONFIGURATIONS:
        missing = f"no configuration {case.configuration}"
    if found is None or missing:
        return Verdict(case, None, (), Outcome.NOT_MODELLED, missing)
    try:
        tried = [
            Testbed(found, case.configuration, kernel, pcid, initiator).run()
            for initiator in initiators(found, case.configuration)
        ]
    except HugePageSplit as problem:
        return Verdict(case, None, (), Outcome.NOT_MODELLED, str(problem))
    ours = next((one for one in tried if not differing(one, case)), tried[0])
    differs = differing(ours, case)
    expected = known_difference(case, kernel, pcid, KNOWN)
    if differs and not case.steady:
        outcome, expected = Outcome.UNSTEADY, None
    elif differs:
        outcome = Outcome.KNOWN if expected else Outcome.DIFFERENT
    else:
        outcome = Outcome.GONE if expected else Outcome.EQUAL
    return Verdict(case, ours, differs, outcome, expected.reason if expected else "")


def initiators(found: Found, configuration: str) -> tuple[int, ...]:
    """The CPUs of which one makes the call; where several might, Linux' is equal if it is that of any."""
    where = CONFIGURATIONS[configuration]
    # Who sleeps is woken to end.
    return (0, *where.spins, *(where.sleeps if found.call.alone else ())) if found.call.by_any else (0,)


def differing(ours: Counted, case: Case) -> tuple[str, ...]:
    """The columns that are not equal."""
    where = case.configuration
    both = compared(ours, where), compared(case.counted, where)
    return tuple(
        column for column, mine, theirs in zip(Counted._fields, *both, strict=True) if mine != theirs
    )


def compared(counted: Counted, configuration: str) -> Counted:
    """What is compared of it.

    Of the flushes on a switch those count that a sleeper's waking makes. What else ran on a CPU meanwhile,
    kernel threads and children, is the scheduler's, and no number of it is twice the same. Where processes
    take turns on CPU 1, it is whether any switch flushed: how many there were is the scheduler's as well.
    """
    woken: Counts = {
        key: count for key, count in counted.switch.items() if key.startswith("wake") and key != "wake0"
    }
    if CONFIGURATIONS[configuration].turns and counted.switch.get("op1"):
        woken = {**woken, "op1": 1}
    # Not every recorder tells strides of 1 GiB.
    calls: Counts = {key.replace("/pud", ""): count for key, count in counted.calls.items()}
    return counted._replace(calls=calls, switch=woken)


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
