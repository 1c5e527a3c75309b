"""How a watched run is written down: what the memory actor writes and a replay reads, in one place.

The order of a run is a sequence of runs `kind + 4 * cpu, at, count`, flat: `count` times that transition. The
checksum goes over everything carried out with its answers, so that a replay knows where it went another way.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from actors import wire
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import CLASSES

KINDS: Final = 4
# An interrupt has nothing to say of itself; what CPU n drops here is noted as one of number n + 1.

# Operations by name: numbers change when one is added.
_NAMES: Final = tuple(zlib.crc32(kind.__name__.encode()) for kind in CLASSES)


class AnswerSum:
    """A CRC-32 over (CPU, CRC-32 of the operation's name, answer) of everything carried out so far."""

    __slots__ = ("_pack", "value")

    def __init__(self) -> None:
        self.value = 0
        self._pack = wire.make_packer()

    def add(self, cpu: int, number: int, answer: Any) -> None:
        """One operation has been carried out where all CPUs share something."""
        self.value = zlib.crc32(self._pack((cpu, _NAMES[number], answer)), self.value)


def note(events: list[int], kind: Kind, cpu: int, at: int, count: int) -> None:
    """Append `count` times one transition."""
    if kind is Kind.INVALIDATE:
        kind, at = Kind.INTERRUPT, at + 1
    who = kind + KINDS * cpu
    if events and events[-3] == who and events[-2] == at:
        events[-1] += count
    else:
        events += (who, at, count)


def runs(events: Sequence[int]) -> Iterator[tuple[Transition, int]]:
    """The transitions of a block, each with how many times it was taken."""
    for index in range(0, len(events), 3):
        who, at, count = events[index : index + 3]
        cpu, kind = divmod(who, KINDS)
        if kind == Kind.INTERRUPT and at:
            yield Transition(Kind.INVALIDATE, cpu, at - 1), count
        else:
            yield Transition(Kind(kind), cpu, at), count
