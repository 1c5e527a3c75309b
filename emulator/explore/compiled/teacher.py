"""The one process that learns, of those that share a search: what shares lack is learnt, and told to all.

So numbers of nodes, options, answers and of what is in cells mean the same everywhere, and nothing of a
program goes to the shares. The teacher does the same each time that it is asked the same in the same order.
What was asked is therefore all that a search has to keep of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

from emulator.checks.violation import Violation
from emulator.explore.compiled.composed import Composed
from emulator.explore.compiled.graphs import (
    CYCLE,
    LACKS_VERDICT,
    OF_CLOCKS,
    OF_SHARED,
    VERDICT_OF,
)
from emulator.explore.cycles import cycles_of
from emulator.explore.exhaustive import PERSISTENT
from emulator.explore.footprints import State
from emulator.explore.learned import LearnedMachine
from emulator.explore.parts import CpuNode
from emulator.explore.persistent import PersistentSets
from emulator.hardware.cpu import Transition

_QUESTION: Final = struct.Struct("<IIII")  # kind, two numbers, how many cells; then these
_ASKED_EVERY: Final = 256
_LOOKED: Final = 0  # in place of a kind: what CPUs can reach was found out anew


class Forgetful(Exception):
    """What was asked before is not answered as it was then."""


def questions(asked: bytes, most: int = 1) -> Iterator[bytes]:
    """What was asked, so many questions at a time. ValueError if it ends within one."""
    first = at = count = 0
    while at < len(asked):
        at += _QUESTION.size + 4 * _QUESTION.unpack_from(asked, at)[3]
        count += 1
        if count == most or at >= len(asked):
            yield asked[first:at]
            first, count = at, 0
    if at > len(asked):
        raise ValueError


class Teacher(Composed):
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
        self._known_answers: set[tuple[int, int, int]] = set()
        self._course = blake2b(digest_size=16)
        self._cells: State = ()  # of the state that is asked about
        self._number_all()
        self._teach()
        self.look()

    @property
    def start(self) -> tuple[tuple[int, ...], State, State]:
        """The first state: numbers of nodes, cells of what is shared and of the watchers."""
        nodes, shared, clocks = self._machine.start
        return tuple([self._nodes[node][0] for node in nodes]), shared.state, clocks.state

    def teach(self, wanted: bytes) -> None:
        """Learn what shares lack."""
        self._new = array("I")
        for one in questions(wanted):
            self._answer_to(one)
        self._teach()

    def _teach(self) -> None:
        if self._new:
            self.lessons.append(self._new.tobytes())
            self._new = array("I")

    def _answer_to(self, question: bytes) -> None:
        kind, first, second, count = _QUESTION.unpack_from(question)
        if not count:
            if (kind, first, second) in self._known_answers:
                return
            self._known_answers.add((kind, first, second))
        self._cells = struct.unpack_from(f"<{count}I", question, _QUESTION.size)
        known = len(self._new)
        if kind == LACKS_VERDICT and second in (OF_SHARED, OF_CLOCKS):
            self._new.extend((VERDICT_OF, second, count, *self._cells, self._verdict(first, second)))
        else:
            self._learn(kind, first, second)
        if len(self._new) > known:
            # Else another share had asked it before.
            self.asked += question
            self._course.update(struct.pack("<9Q", *self._sizes()))

    def _sizes(self) -> list[int]:
        known = [self._nodes, self._options, self._answers, self._masks, self._rules]
        parts = [self._footprints(part) for part in (OF_SHARED, OF_CLOCKS)]
        return [
            *map(len, known),
            *[len(one.paths) for one in parts],
            *[len(one.cells.values) for one in parts],
        ]

    def _state(self, part: int, number: int) -> State:
        return self._cells

    def look(self) -> bool:
        """Find out anew what CPUs can reach and where they have cycles, and teach that; whether all that was
        relied on holds."""
        self.asked += _QUESTION.pack(_LOOKED, 0, 0, 0)
        self._machine.settle()
        graphs = [self._machine.nodes_of(cpu) for cpu in range(self._machine.cpus)]
        cycles = cycles_of(graphs, self._footprints(OF_SHARED).paths)
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
            for number, one in enumerate(questions(asked)):
                if number % _ASKED_EVERY == 0 and (why := stop()):
                    return why
                if _QUESTION.unpack_from(one)[0] == _LOOKED:
                    self.look()
                else:
                    self.teach(one)
        except Exception as problem:
            # Nothing of this raised then.
            raise Forgetful from problem
        if self.course != course:
            raise Forgetful
        self.lessons = [b"".join(self.lessons)]
        return ""
