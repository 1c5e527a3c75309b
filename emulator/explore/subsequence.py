"""Following a schedule from which something was left out: what is not possible there is passed over.

A position in a window means another entry as soon as an earlier one is performed sooner or later than it
was. So schedules that are to be taken apart name the entries of a window by the order in which they were
issued, which leaving something out does not change: in the *named* form `at` of a PERFORM is that number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Final

from emulator.explore.explorer import Explorer
from emulator.hardware.cpu import Kind, Transition

_LOOK_EVERY: Final = 1_000  # transitions


class Entries:
    """Which entries of every CPU's window have been performed, by number of issue."""

    def __init__(self, cpus: int) -> None:
        self._gone: list[list[int]] = [[] for _ in range(cpus)]

    def number(self, cpu: int, position: int) -> int:
        """The number of the entry that stands at a position now."""
        number = position
        for gone in self._gone[cpu]:
            if gone > number:
                break
            number += 1
        return number

    def position(self, cpu: int, number: int) -> int:
        """Where the entry with a number stands now."""
        return number - bisect_left(self._gone[cpu], number)

    def performed(self, cpu: int, position: int) -> int:
        """The entry at a position leaves the window; its number."""
        number = self.number(cpu, position)
        insort(self._gone[cpu], number)
        return number


def named(schedule: Sequence[Transition], cpus: int) -> tuple[Transition, ...]:
    """The named form of a schedule as it was taken from the start."""
    entries = Entries(cpus)
    return tuple(
        [
            one._replace(at=entries.performed(one.cpu, one.at)) if one.kind is Kind.PERFORM else one
            for one in schedule
        ]
    )


def follow_possible(
    explorer: Explorer, schedule: Sequence[Transition], most: int, look: Callable[[], None]
) -> None:
    """From the start, take what is possible of a schedule in named form, to the first broken rule.

    Ends after `most` transitions. What was taken is in `explorer.path`. `look` is called now and then.
    """
    explorer.reset()
    entries = Entries(explorer.cpus)
    attempt = explorer.attempt
    for number, transition in enumerate(schedule, 1):
        if not number % _LOOK_EVERY:
            look()
        kind, cpu, at = transition
        if kind is Kind.PERFORM:
            done = attempt(Transition(kind, cpu, entries.position(cpu, at)))
            if done is not None:
                entries.performed(cpu, done.at)
        else:
            done = attempt(transition)
        if done is not None and (explorer.violation is not None or len(explorer.path) == most):
            return
