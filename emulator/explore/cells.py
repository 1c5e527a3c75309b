"""Containers that note who reads and changes what: they take the place of dicts, lists and sets of a part.

All that a part of the machine holds is kept as *cells*, each a number that stands for a value; 0 is nothing.
What an operation does follows from the cells that it has read, in the order in which it has read them, and
from nothing else, so it need not be carried out again where these are the same (`footprints`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from typing import Any, Final

NOTHING: Final = 0
"""The number of a cell that holds nothing: whatever has never been there."""

_GONE: Final = object()

Freeze = Callable[[Any], Any]
Thaw = Callable[[Any, Any], Any]
"""From a key and the frozen value."""


class Cells:
    """Of one part. `now`: the number in each. `read`: those read since `begin`, and what was there;
    `written`: what was put there."""

    def __init__(self) -> None:
        self.now: list[int] = []
        self.values: list[Any] = [None]
        self._numbers: dict[Any, int] = {(type(None), None): NOTHING}
        self.read: dict[int, int] = {}
        self.written: dict[int, int] = {}
        self.open: dict[int, Any] = {}  # values that can be changed, as long as somebody may do so
        self._freeze: dict[int, Freeze] = {}
        self.owners: list[Any] = []  # the container of each
        self.listed: set[Any] = set()  # containers whose every key was asked for
        self.grown: set[Any] = set()  # containers that have got a new key

    def new(self, owner: Any, freeze: Freeze | None = None) -> int:
        """Another cell, with nothing in it."""
        self.grown.add(owner)
        self.owners.append(owner)
        self.now.append(NOTHING)
        if freeze is not None:
            self._freeze[len(self.now) - 1] = freeze
        return len(self.now) - 1

    def number(self, value: Any) -> int:
        """What stands for this value."""
        key = (type(value), value)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
        return number

    def load(self, state: tuple[int, ...]) -> None:
        """This is what there is now; nothing has been read or written."""
        self.now[: len(state)] = state
        self.now[len(state) :] = [NOTHING] * (len(self.now) - len(state))
        self.begin()

    def state(self) -> tuple[int, ...]:
        """What there is now, without the end of it if that holds nothing."""
        last = max((at + 1 for at, number in enumerate(self.now) if number != NOTHING), default=0)
        return tuple(self.now[:last])

    def begin(self) -> None:
        """From here on what is read and written counts."""
        self.read.clear()
        self.written.clear()
        self.open.clear()
        self.listed.clear()
        self.grown.clear()

    def look(self, cell: int) -> int:
        """Read the number in a cell."""
        number = self.now[cell]
        if cell not in self.read and cell not in self.written:
            self.read[cell] = number
        return number

    def put(self, cell: int, value: Any) -> None:
        """Put a value that never changes there."""
        number = self.now[cell] = self.number(value)
        if number == self.read.get(cell):
            self.written.pop(cell, None)
        else:
            self.written[cell] = number

    def opened(self, cell: int, key: Any, thaw: Thaw) -> Any:
        """What is there, to be changed; None if nothing is."""
        live = self.open.get(cell)
        if live is None:
            number = self.look(cell)
            if number == NOTHING:
                return None
            live = self.open[cell] = thaw(key, self.values[number])
        return None if live is _GONE else live

    def put_open(self, cell: int, live: Any) -> None:
        """Put there what may be changed later; None for nothing."""
        self.open[cell] = _GONE if live is None else live

    def close(self) -> None:
        """Put what is open where it belongs."""
        for cell, live in self.open.items():
            self.put(cell, None if live is _GONE else self._freeze[cell](live))
        self.open.clear()


class Map(MutableMapping[Any, Any]):
    """A dict of values that never change; each key has its cell. `nothing`: a value that is as good as none.

    With `thaw` and `freeze` the values can be changed where they are. `full`: nobody asks whether it is empty
    but to save himself further questions.
    """

    def __init__(
        self,
        cells: Cells,
        content: Mapping[Any, Any],
        nothing: Any = None,
        thaw: Thaw | None = None,
        freeze: Freeze | None = None,
        full: bool = False,
    ) -> None:
        self._cells, self._nothing, self._thaw, self._freeze = cells, nothing, thaw, freeze
        self._full = full
        self.by_cpu = False  # its keys are, or begin with, numbers of CPUs
        self.index: dict[Any, int] = {}
        self.keys_in: dict[int, Any] = {}  # of each cell
        for key, value in content.items():
            self[key] = value

    def cell(self, key: Any) -> int:
        """Where this key's value is."""
        found = self.index.get(key)
        if found is None:
            found = self.index[key] = self._cells.new(self, self._freeze)
            self.keys_in[found] = key
        return found

    def changed(self) -> list[Any]:
        """The keys that have been written."""
        keys = self.keys_in
        return [keys[cell] for cell in self._cells.written if cell in keys]

    def get(self, key: Any, default: Any = None) -> Any:
        cells = self._cells
        cell = self.cell(key)
        if self._thaw is not None:
            live = cells.opened(cell, key, self._thaw)
            return default if live is None else live
        number = cells.look(cell)
        return default if number == NOTHING else cells.values[number]

    def __contains__(self, key: Any) -> bool:
        return self.get(key, _GONE) is not _GONE

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key, _GONE)
        if value is _GONE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        cell = self.cell(key)
        if self._thaw is not None:
            self._cells.put_open(cell, value)
        else:
            self._cells.put(cell, None if value == self._nothing else value)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        cell = self.cell(key)
        if self._thaw is not None:
            self._cells.put_open(cell, None)
        else:
            self._cells.put(cell, None)

    def __iter__(self) -> Iterator[Any]:
        return iter([key for key, _ in self.items()])

    def items(self) -> Any:
        """As of a dict, in the order of their cells."""
        cells = self._cells
        cells.listed.add(self)
        if self._thaw is not None:
            held = [(key, self.get(key)) for key in list(self.index)]
            return [pair for pair in held if pair[1] is not None]
        read, written, now, values = cells.read, cells.written, cells.now, cells.values
        found = []
        for key, cell in self.index.items():
            number = now[cell]
            if cell not in read and cell not in written:
                read[cell] = number
            if number != NOTHING:
                found.append((key, values[number]))
        return found

    def values(self) -> Any:
        """As of a dict, in the order of their cells."""
        return [value for _, value in self.items()]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return self._full or len(self) > 0

    __hash__ = object.__hash__


class Set(MutableSet[Any]):
    """A set; each member has its cell."""

    def __init__(self, cells: Cells, content: Iterable[Any]) -> None:
        self._members = Map(cells, dict.fromkeys(content, 1))

    def __contains__(self, member: Any) -> bool:
        return member in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, value: Any) -> None:
        self._members[value] = 1

    def discard(self, value: Any) -> None:
        self._members.pop(value, None)


class Row:
    """A list of fixed length; each place has its cell."""

    def __init__(
        self, cells: Cells, content: Iterable[Any], thaw: Thaw | None = None, freeze: Freeze | None = None
    ) -> None:
        self.places = Map(cells, dict(enumerate(content)), None, thaw, freeze)
        self._length = len(self.places.index)

    def cell(self, at: int) -> int:
        """Where this place's value is."""
        return self.places.cell(at)

    def __getitem__(self, at: int) -> Any:
        if not 0 <= at < self._length:
            raise IndexError(at)
        return self.places[at]

    def __setitem__(self, at: int, value: Any) -> None:
        self.places[at] = value

    def __iter__(self) -> Iterator[Any]:
        return iter([self.places[at] for at in range(self._length)])

    def __len__(self) -> int:
        return self._length

    def changed(self) -> list[int]:
        """The places that have been written."""
        return self.places.changed()


class List(MutableSequence[Any]):
    """A list that is one cell as a whole."""

    def __init__(self, cells: Cells, content: Iterable[Any]) -> None:
        self._cell = One(cells, list(content), lambda key, kept: list(kept), tuple)

    def __getitem__(self, at: Any) -> Any:
        return self._cell.get()[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self._cell.get()[at] = value

    def __delitem__(self, at: Any) -> None:
        del self._cell.get()[at]

    def __len__(self) -> int:
        return len(self._cell.get())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cell.get())

    def insert(self, index: int, value: Any) -> None:
        self._cell.get().insert(index, value)


class One:
    """A value that can be changed where it is, in one cell; `empty` makes what stands for nothing."""

    def __init__(
        self, cells: Cells, content: Any, thaw: Thaw, freeze: Freeze, empty: Callable[[], Any] = list
    ) -> None:
        self._map = Map(cells, {None: content}, None, thaw, freeze)
        self._empty = empty

    def get(self) -> Any:
        """What is there, to be changed."""
        found = self._map.get(None)
        if found is None:
            found = self._empty()
            self._map[None] = found
        return found

    def set(self, value: Any) -> None:
        """Put something else there."""
        self._map[None] = value
