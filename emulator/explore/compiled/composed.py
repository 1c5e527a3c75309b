"""Graphs of one machine whose shared states the compiled side puts together itself (`collapse.c`).

What an action comes to is handed over as a way through a tree (`footprints`), once, and not for every state:
states are numbered where they are met.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from emulator.checks.violation import Violation
from emulator.explore.compiled.graphs import (
    CELL_IMAGE,
    DROP,
    IMAGE,
    LACKS_CLOCK,
    LACKS_MANY,
    LACKS_SHARED,
    LACKS_TOUCHED,
    LOOK,
    NO_NUMBER,
    OF_CLOCKS,
    OF_SHARED,
    PATH,
    RANK,
    SWAPS,
    VALUE_IMAGE,
    Graphs,
    TooLarge,
)
from emulator.explore.footprints import Footprints, State
from emulator.explore.learned import LearnedMachine
from emulator.explore.persistent import PersistentSets
from emulator.explore.symmetry import Symmetry

_HEAD: Final = 3  # words of every report, before what lacks and what is told besides
_ASKED_EVERY: Final = 32  # times that something lacked
_MOST_CELLS: Final = 512  # of one part


class Composed(Graphs):
    """As `Graphs`, and raises as they do."""

    def __init__(self, machine: LearnedMachine) -> None:
        super().__init__(machine)
        self._report_at = self._call("report_at")
        self._questions_at = self._call("questions_at")
        self._known: tuple[Any, ...] = ()  # which graphs, how much of them, and for which reductions
        self._symmetry: Symmetry | None = None

    def _teach(self) -> None:
        """Hand over what is new, to be learnt with the next call."""
        count = self._hand_over(self._new)
        self._words(self._report_at, 1)[0] = count

    def _go_on(self, name: str, stop: Callable[[], bool] = lambda: False) -> tuple[int, Any]:
        """Until the compiled side stops, or wants to be looked at: why, and where the rest of its report is.

        What it lacks is learnt. `stop` is asked now and then.
        """
        go_on = self._calls[name]
        for turn in itertools.count(1):
            go_on(self._store)
            _, code, lacks = self._words(self._report_at, _HEAD)
            if not LACKS_SHARED <= code <= LACKS_TOUCHED and code != LACKS_MANY:
                return code, self._report_at + 4 * _HEAD
            self._new = array("I")
            if code == LACKS_MANY:
                self._answer_questions()
            else:
                pairs = self._words(self._report_at + 4 * _HEAD, 2 * lacks)[:]
                for first, second in zip(pairs[::2], pairs[1::2], strict=True):
                    self._learn(code, first, second)
            if self._symmetry is not None:
                self._tell_swaps(self._symmetry)
            self._known = (self._machine.sharing, self._machine.edges_learnt(), self._sets)
            self._teach()
            if turn % _ASKED_EVERY == 0 and stop():
                return LOOK, self._report_at + 4 * (_HEAD + 2 * lacks)
        raise AssertionError("numbers do not end")

    def _answer_questions(self) -> None:
        """Learn what is lacking in many states (`learning.c`)."""
        *_, count = self._words(self._report_at + 4 * _HEAD, 4)
        at = self._questions_at
        for _ in range(count):
            kind, first, second, cells = self._words(at, 4)
            at += 16
            if kind in (LACKS_SHARED, LACKS_CLOCK):
                part = OF_CLOCKS if kind == LACKS_CLOCK else OF_SHARED
                self._footprints(part).leaf(tuple(self._words(at, cells)), second)
            else:
                self._learn(kind, first, second)
            at += 4 * cells
        if self._symmetry is None:
            self._tell_paths()

    def _load(self) -> None:
        """Hand over what has been learnt elsewhere since the last time."""
        machine = self._machine
        known = (machine.sharing, machine.edges_learnt(), self._sets)
        if known == self._known:
            return
        self._call("forget", machine.cpus)
        self._room = self._in = 0
        self._number_all()
        self._teach()
        self._call("go_on")
        nodes, shared, clocks = machine.start
        numbers = self._number_of(OF_SHARED, shared.state), self._number_of(OF_CLOCKS, clocks.state)
        self._hand_over(array("I", [self._nodes[node][0] for node in nodes]))
        self._call("start_at", *numbers)
        self._new = array("I")
        self._known = known

    def _rely_on(self, sets: PersistentSets) -> None:
        super()._rely_on(sets)
        self._teach()

    # --- parts ---------------------------------------------------------------------------------

    def states_met(self) -> tuple[int, int]:
        """How many states of what is shared and of the watchers the compiled side knows."""
        # Of each it knows the one that holds nothing at all.
        return self._call("met", OF_SHARED) - 1, self._call("met", OF_CLOCKS) - 1

    def _number_of(self, part: int, state: State) -> int:
        return self._call("state_of_part", part, self._hand_over(array("I", state)))

    def _state(self, part: int, number: int) -> State:
        """The state of a part that the compiled side has given this number."""
        count = len(self._footprints(part).cells.now)
        return tuple(self._words(self._call("cells_at", part, number), count)[:])

    def _footprints(self, part: int) -> Footprints:
        machine = self._machine
        return machine.watching.footprints if part == OF_CLOCKS else machine.sharing.footprints

    def _number_parts(self) -> None:
        self._told = [0, 0]  # paths of each part
        self._swaps_told: dict[Any, int] = {}  # of each list, how much
        self._tell_paths()
        if self._symmetry is not None:
            swaps = self._symmetry.swaps
            self._new.extend((SWAPS, len(swaps)))
            for swap in swaps:
                self._new.extend((swap.one, swap.other))
            self._tell_swaps(self._symmetry)

    def _tell_paths(self) -> None:
        """Hand over what has been learnt of parts since it was told last."""
        new = self._new
        for part in (OF_SHARED, OF_CLOCKS):
            footprints = self._footprints(part)
            if len(footprints.cells.now) > _MOST_CELLS:
                raise TooLarge
            for action, read, leaf, _ in footprints.paths[self._told[part] :]:
                if leaf is None:
                    new.extend((DROP, part, action))
                    continue
                new.extend((PATH, part, action, len(read)))
                for pair in read:
                    new.extend(pair)
                outcome, changes = leaf
                if outcome is None:
                    new.extend((NO_NUMBER, 0, 0))
                    continue
                answer = self._answer(action, outcome[0]) if part == OF_SHARED else 0
                new.extend((answer, self._rule(outcome[-1]), len(changes)))
                for pair in changes:
                    new.extend(pair)
            self._told[part] = len(footprints.paths)

    def _learn(self, code: int, first: int, second: int) -> None:
        if code not in (LACKS_SHARED, LACKS_CLOCK):
            super()._learn(code, first, second)
            return
        part = OF_CLOCKS if code == LACKS_CLOCK else OF_SHARED
        self._footprints(part).leaf(self._state(part, first), second)
        if self._symmetry is None:
            self._tell_paths()

    def _tell_swaps(self, symmetry: Symmetry) -> None:
        """Hand over what swaps make of what has been learnt, and that, which is as much as is true of both.

        Raises NotAlike.
        """
        symmetry.close()
        self._tell_paths()
        new, told = self._new, self._swaps_told

        def fresh(name: tuple[int, ...], found: Sequence[Any]) -> Sequence[Any]:
            before = told.get(name, 0)
            told[name] = len(found)
            return found[before:]

        for at, swap in enumerate(symmetry.swaps):
            for one, other in fresh((at,), swap.nodes.told):
                symmetry.rank(one)
                numbers = self._node(one), self._node(other)
                for pair in {numbers, numbers[::-1]}:
                    new.extend((IMAGE, at, *pair))
            for part, image in enumerate(swap.images):
                for cell in fresh((at, part, 0), range(len(image.cells))):
                    new.extend((CELL_IMAGE, part, at, cell, image.cells[cell]))
                for one, other in fresh((at, part, 1), image.values.told):
                    new.extend((VALUE_IMAGE, part, at, *one, other[1]))
                    new.extend((VALUE_IMAGE, part, at, *other, one[1]))
        for node, rank in fresh((), symmetry.ranked):
            new.extend((RANK, self._node(node), rank))

    def _judge(self, part: int, number: int) -> Violation | None:
        machine = self._machine
        if self._symmetry is not None:
            self._symmetry.judge_part(part, self._state(part, number))
        if part == OF_SHARED:
            return machine.sharing.audited(self._state(part, number))
        return machine.watching.audited(self._state(part, number)) if machine.machine.drains else None
