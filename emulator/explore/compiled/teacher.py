"""The one process that learns, of those that share a search: what shares lack is learnt, and told to all.

So numbers of nodes, options, answers, shared states and clocks mean the same everywhere: a state is compared
as numbers, in full, and nothing of a program goes to the shares. The teacher does the same each time that it
is asked the same in the same order. What was asked is therefore all that a search has to keep of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from emulator.checks.violation import Violation
from emulator.explore.compiled.graphs import CYCLE, LACKS_ANSWERED, LACKS_OWN, Graphs
from emulator.explore.cycles import on_cycles
from emulator.explore.exhaustive import PERSISTENT
from emulator.explore.learned import LearnedMachine
from emulator.explore.parts import CpuNode
from emulator.explore.persistent import PersistentSets
from emulator.hardware.cpu import Transition

_ASKED: Final = struct.Struct("<IIII")
_ASKED_EVERY: Final = 256
_LOOKED: Final = 0  # among what was asked: what CPUs can reach was found out anew


class Forgetful(Exception):
    """What was asked before is not answered as it was then."""


class Teacher(Graphs):
    """Teaches the graphs of one machine, for a search by these reductions. Raises as `Graphs` does.

    `lessons` are words to be learnt in this order, from the first on.
    """

    def __init__(self, machine: LearnedMachine, names: tuple[str, ...]) -> None:
        super().__init__(machine)
        machine.reset()
        self._sets = PersistentSets(machine) if PERSISTENT in names else None
        self._cycles: dict[CpuNode, int] = {}
        self.lessons: list[bytes] = []
        self.asked = bytearray()
        self._known_answers: set[int] = set()
        self._course = blake2b(digest_size=16)
        self._number_all()
        self._teach()
        self.look()

    @property
    def start(self) -> tuple[int, ...]:
        """The numbers of the first state: nodes, what is shared, the clocks."""
        nodes, shared, clocks = self._machine.start
        return (*[self._nodes[node][0] for node in nodes], shared.number, clocks.number)

    def teach(self, wanted: bytes) -> None:
        """Learn what shares lack: kind, two numbers and the clocks, four words each."""
        self._new = array("I")
        for kind, first, second, clocks in _ASKED.iter_unpack(wanted):
            key = (kind << 32 | first) << 32 | second
            if key not in self._known_answers:
                self._known_answers.add(key)
                self._answer_to(kind, first, second, clocks)
        self._teach()

    def _teach(self) -> None:
        if self._new:
            self.lessons.append(self._new.tobytes())
            self._new = array("I")

    def _answer_to(self, kind: int, first: int, second: int, clocks: int) -> None:
        self.asked += _ASKED.pack(kind, first, second, clocks)
        self._learn(kind, first, second)
        if kind in (LACKS_OWN, LACKS_ANSWERED):
            # The watchers' edge is what will be asked for next.
            answer = self._answer_list[second >> 1] if kind == LACKS_ANSWERED else None
            edge = self._machine.edge_of(self._options[first], answer)
            clock = self._clocks[clocks]
            if edge.event >= 0 and edge.event not in clock.edges:
                self._edge_of_clock(clock, edge.event)
        known = (self._nodes, self._options, self._answers, self._shared, self._clocks, self._masks)
        self._course.update(struct.pack("<6I", *map(len, known)))

    def look(self) -> bool:
        """Find out anew what CPUs can reach and where they have cycles, and teach that; whether all that was
        relied on holds."""
        self.asked += _ASKED.pack(_LOOKED, 0, 0, 0)
        self._machine.settle()
        cycles: dict[CpuNode, int] = {}
        for cpu in range(self._machine.cpus):
            found = on_cycles(self._machine.nodes_of(cpu))
            before = max(cycles.values(), default=0)
            cycles |= {node: before + number for node, number in found.items()}
        # They only grow together.
        holds = cycles.keys() == self._cycles.keys() and len({*cycles.values()}) == len(
            {*self._cycles.values()}
        )
        self._cycles = cycles
        if self._sets is not None:
            holds = self._sets.look() and holds
            self._rely_on(self._sets)
        for node, number in cycles.items():
            self._new.extend((CYCLE, self._nodes[node][0], number))
        self._teach()
        return holds

    @property
    def has_cycles(self) -> bool:
        """Some CPU may come back to where it was, so that there may be runs that do not end."""
        return bool(self._cycles)

    @property
    def course(self) -> str:
        """A digest of how learning went."""
        return self._course.hexdigest()

    def walk(self, way: Sequence[int]) -> tuple[Violation | None, tuple[Transition, ...]]:
        """Take these options from the start: what breaks, and the schedule."""
        machine = self._machine
        machine.restart()
        for number in way:
            machine.take(self._options[number])
        if machine.violation is None and not machine.options():
            machine.finish()
        return machine.violation, tuple(machine.path)

    def repeat(self, asked: bytes, course: str, stop: Callable[[], str]) -> str:
        """Learn again what another teacher of the same programs was asked, or say why it had to stop.

        Forgetful if it goes otherwise.
        """
        self._known_answers.clear()
        self.asked.clear()
        try:
            for number, one in enumerate(_ASKED.iter_unpack(asked)):
                if number % _ASKED_EVERY == 0 and (why := stop()):
                    return why
                if one[0] == _LOOKED:
                    self.look()
                else:
                    self.teach(_ASKED.pack(*one))
        except (LookupError, struct.error):
            raise Forgetful from None
        if self.course != course:
            raise Forgetful
        self.lessons = [b"".join(self.lessons)]
        return ""
