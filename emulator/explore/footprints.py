"""What an action on a part of the machine does, by the values at its footprint alone.

Whatever an action reads is noted when it is carried out for the first time (`cells`), so nobody has to
declare it: its next read depends on what it has read so far, and so do its answer and what it changes. That
is a tree for each action, whose forks are cells and whose ways are the values there. Where a way leads to the
end, answer and changes are the same in all states that it fits. Memoization by traced reads: Acar, Blelloch
and Harper, "Selective memoization" (POPL 2003); states kept as numbers of shared values are SPIN's collapse
compression (Holzmann 1997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""It depends on what is in a cell: where each number there leads, to another fork or the end of a path."""


class Path(NamedTuple):
    """Something learnt: an action, the cells that it has read and what was there, and what it came to.

    `leaf` is None where all that was known of the action counts no more. `state`: where it was carried out.
    """

    action: int
    read: tuple[tuple[int, int], ...]
    leaf: Leaf | None
    state: State = ()


class Footprints:
    """All that is known of one part's actions. `act` carries one out on the part that the cells are in."""

    def __init__(self, cells: Cells, act: Callable[[int], Any]) -> None:
        self.cells = cells
        self._act = act
        self._trees: dict[int, Fork | Path] = {}
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
        leaf = self.path(state, action).leaf
        assert leaf is not None
        return leaf

    def path(self, state: State, action: int) -> Path:
        """The same, and what that follows from."""
        at: Any = self._trees.get(action)
        length = len(state)
        while type(at) is tuple:
            cell, ways = at
            at = ways.get(state[cell] if cell < length else NOTHING)
        return at if at is not None else self._learn(state, action)

    def narrow(self, path: Path, cells: Sequence[int]) -> None:
        """From here on look at these cells as well before that is taken for the answer."""
        state = path.state
        more = [(cell, state[cell] if cell < len(state) else NOTHING) for cell in cells]
        self._add(path._replace(read=(*path.read, *more)))

    def outdate(self) -> None:
        """Somebody else has asked for keys that did not exist."""
        self._outdate(set(self.cells.grown))

    def _learn(self, state: State, action: int) -> Path:
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
        return self._add(Path(action, tuple(cells.read.items()), leaf, state))

    def _outdate(self, grown: set[Any]) -> None:
        """Containers have keys that did not exist when somebody went through all of them."""
        for container in grown:
            for action in self._listing.pop(container, ()):
                if self._trees.pop(action, None) is not None:
                    self.paths.append(Path(action, (), None))

    def _add(self, path: Path) -> Path:
        state = path.state
        trees: dict[int, Any] = self._trees
        at = path.action
        for cell, number in path.read:
            fork = trees.get(at)
            if type(fork) is not tuple:
                fork = trees[at] = (cell, {})
            assert fork[0] == cell, "what is read next follows from what was read"
            trees, at = fork[1], number
        # Where another state led here, something more may be looked at (`narrow`).
        more = []
        while type(fork := trees.get(at)) is tuple:
            number = state[fork[0]] if fork[0] < len(state) else NOTHING
            more.append((fork[0], number))
            trees, at = fork[1], number
        assert at not in trees
        if more:
            path = path._replace(read=(*path.read, *more))
        trees[at] = path
        self.paths.append(path)
        return path


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
