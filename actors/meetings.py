"""Where CPUs have met in a run: the places that several of them accessed and one of them wrote.

A stressed CPU may stand still where it is about to access such a place: only there can anybody tell who came
first. An access is told as text, which can travel: `r` or `w`, and the place.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware.cpu import TakeCalls
from emulator.hardware.operations import TABLE
from emulator.hardware.operations.places import Key, Place, calls, writes

MOST_PLACES: Final = 256
"""Of a run that has more, a workload's, it is not said which."""

_PLACES: Final[dict[type[Any], Place]] = {
    **{kind: row.place for kind, row in TABLE.items()},
    TakeCalls: writes(calls),
}


def _accesses(operation: Any) -> list[Key]:
    place = _PLACES[type(operation)]
    found: list[Key] = [("r", *key) for find in place.reads if (key := find(operation))]
    found += [("w", *key) for find in place.writes if (key := find(operation))]
    return found


def accesses_of(operation: Any) -> list[str]:
    """Its accesses to places where CPUs meet, as texts."""
    return [_text(access) for access in _accesses(operation)]


def _text(access: Key) -> str:
    return " ".join(map(str, access))


class Meetings:
    """Who accessed which place in one run, and how often."""

    def __init__(self) -> None:
        self._counts: dict[Key, dict[int, int]] = {}
        self._over = False

    def add(self, cpu: int, operation: Any) -> None:
        """CPU `cpu` has carried this out."""
        if self._over:
            return
        for access in _accesses(operation):
            cpus = self._counts.setdefault(access, {})
            cpus[cpu] = cpus.get(cpu, 0) + 1
        self._over = len(self._counts) > MOST_PLACES

    def contested(self) -> list[tuple[int, str, int]]:
        """(CPU, access, how often) for every place that several CPUs accessed and one of them wrote."""
        if self._over:
            return []
        places: dict[Key, set[int]] = {}
        for access, cpus in self._counts.items():
            places.setdefault(access[1:], set()).update(cpus)
        return sorted(
            (cpu, _text(access), count)
            for access, cpus in self._counts.items()
            if len(places[access[1:]]) > 1 and ("w", *access[1:]) in self._counts
            for cpu, count in cpus.items()
        )
