"""What an action on a part of the machine does, by the values at its footprint alone.

Whatever an action reads is noted when it is carried out for the first time (`cells`), so nobody has to
declare it: its next read depends on what it has read so far, and so do its answer and what it changes. That
is a tree for each action, whose forks are cells and whose ways are the values there. Where a way leads to the
end, answer and changes are the same in all states that it fits. Memoization by traced reads: Acar, Blelloch
and Harper, "Selective memoization" (POPL 2003); states kept as numbers of shared values are SPIN's collapse
compression (Holzmann 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from emulator.explore.cells import NOTHING, Cells

State = tuple[int, ...]
"""The number in each cell, without those at the end that hold nothing."""


class Leaf(NamedTuple):
    """What an action comes to: `outcome`, None if it is not possible, and what is in which cells after it,
    sorted."""

    outcome: Any
    changes: tuple[tuple[int, int], ...]


Fork = tuple[int, dict[int, Any]]
"""It depends on what is in a cell: where each number there leads, to another fork or a leaf."""


class Path(NamedTuple):
    """Something learnt: an action, the cells that it has read and what was there, and what it came to.

    `leaf` is None where all that was known of the action counts no more.
    """

    action: int
    read: tuple[tuple[int, int], ...]
    leaf: Leaf | None


class Footprints:
    """All that is known of one part's actions. `act` carries one out on the part that the cells are in."""

    def __init__(self, cells: Cells, act: Callable[[int], Any]) -> None:
        self.cells = cells
        self._act = act
        self._trees: dict[int, Fork | Leaf] = {}
        self._listing: dict[Any, set[int]] = {}  # container -> actions that have gone through all its keys
        self.learnt = 0
        self.paths: list[Path] = []

    def forget(self) -> None:
        """Give back what is known."""
        self._trees.clear()
        self.paths.clear()
        self._listing.clear()

    def leaf(self, state: State, action: int) -> Leaf:
        """What an action comes to in a state; carried out if that is not known."""
        at: Any = self._trees.get(action)
        length = len(state)
        while type(at) is tuple:
            cell, ways = at
            at = ways.get(state[cell] if cell < length else NOTHING)
        return at if at is not None else self._learn(state, action)

    def _learn(self, state: State, action: int) -> Leaf:
        self.learnt += 1
        cells = self.cells
        while True:
            cells.load(state)
            outcome = self._act(action)
            cells.close()
            listed = set(cells.listed)
            self._outdate(set(cells.grown))
            # Who has gone through all keys, and made a new one, has not seen that one.
            if not listed & cells.grown:
                break
        for container in listed:
            self._listing.setdefault(container, set()).add(action)
        leaf = Leaf(outcome, tuple(sorted(cells.written.items())) if outcome is not None else ())
        self._add(Path(action, tuple(cells.read.items()), leaf))
        return leaf

    def _outdate(self, grown: set[Any]) -> None:
        """Containers have keys that did not exist when somebody went through all of them."""
        for container in grown:
            for action in self._listing.pop(container, ()):
                if self._trees.pop(action, None) is not None:
                    self.paths.append(Path(action, (), None))

    def _add(self, path: Path) -> None:
        self.paths.append(path)
        action, read, leaf = path
        trees: dict[int, Any] = self._trees
        at = action
        for cell, number in read:
            fork = trees.get(at)
            if fork is None:
                fork = trees[at] = (cell, {})
            assert type(fork) is tuple and fork[0] == cell, "what is read next follows from what was read"
            trees, at = fork[1], number
        assert at not in trees
        trees[at] = leaf


def after(state: State, changes: tuple[tuple[int, int], ...]) -> State:
    """The state with these changes."""
    if not changes:
        return state
    now = list(state)
    for cell, number in changes:
        if cell >= len(now):
            now.extend([NOTHING] * (cell + 1 - len(now)))
        now[cell] = number
    while now and now[-1] == NOTHING:
        now.pop()
    return tuple(now)
