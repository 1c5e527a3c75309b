"""One share of the states of a search that several processes do together, in compiled code (`share.c`).

A share knows nothing of programs: states are numbers, and what leads from one to the next is told to it by
the one process that learns.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from emulator.explore.compiled.instance import Instance

MOST_SHARES: Final = 64
MOST_MIB: Final = 3900  # of the 4 GiB that WebAssembly has; the rest is for what is still to be learnt
SEARCH, LINK, RETURN = range(3)
NOWHERE: Final = 0xFFFFFFFF
_FULL: Final = 9  # as graph.c has it
_BY_OPTION: Final = 26
_REPORT: Final = struct.Struct("<IIQQIIIIIIII")
_HEAD: Final = struct.Struct("<II")
TABLES: Final = 4
TABLE_PIECE: Final = 1 << 18  # words that are handed over at once
PIECE: Final = 1 << 14  # states that are handed over at once


class Begin(NamedTuple):
    """A search from the start: nodes, cells of what is shared and of the watchers; by which reductions."""

    number: int
    of: int
    by: int
    nodes: tuple[int, ...]
    shared: tuple[int, ...]
    clocks: tuple[int, ...]


class Order(NamedTuple):
    """What a share is to do next: learn `words`, begin if it has to, follow `budget` states.

    `errand`: search; afterwards find out who leads to whom, then from where runs end. `mib` is all the memory
    that it may have; `again`: those that wait are tried.
    """

    budget: int
    words: tuple[bytes, ...] = ()
    begin: Begin | None = None
    errand: int = SEARCH
    mib: int = MOST_MIB
    again: bool = False


class Report(NamedTuple):
    """How far a share is: states, and what has been done of them since it began.

    `ahead` are still to be followed, `waiting` lack something: `wanted` says what (kind, two numbers, how
    many cells, what is in them). `broken`: a rule's number, state and option. `ending`: states from which a
    run ends. `refused` parcels, the last ones, found no room. `memory`: bytes of the process; `taken`: those
    of them that a limit concerns. `sent`: bytes for each share.
    """

    full: bool
    states: int
    transitions: int
    ends: int
    ahead: int
    waiting: int
    broken: tuple[int, int, int]
    ending: int
    wanted: bytes
    refused: int
    memory: int
    taken: int
    sent: tuple[int, ...]


class Kept(NamedTuple):
    """Where a share is, besides its states: how many, from which on they are to be followed, figures, and how
    many words the tables have that say what numbers of theirs mean."""

    states: int
    ahead_from: int
    transitions: int
    ends: int
    tables: tuple[int, ...] = ()


class Share(Instance):
    """A share of a machine of this many CPUs. ImportError where there is no `wasmtime`."""

    def __init__(self, cpus: int) -> None:
        super().__init__(
            *("forget", "room", "start_at", "state_of_part", "begin_share", "learn_words", "limit_memory"),
            *("fits", "arrived", "share_on", "emptied", "look_back", "first_endless", "state_at"),
            *("waiting_at", "table_size", "table_at", "table_back", "go_on_from"),
        )
        self._cpus = cpus
        self._record = cpus + 4
        self._shares = 1
        self._number = 0
        self._mib = MOST_MIB
        self._errand = SEARCH
        self._last = Kept(0, 0, 0, 0)
        self._waiting = 0
        self._call("forget", cpus)

    def work(self, order: Order, parcels: Sequence[bytes]) -> tuple[Report, list[bytes]]:
        """Carry out an order, with what other shares have sent; what there is for each of them."""
        if order.mib != self._mib:
            self._mib = order.mib
            self._call("limit_memory", order.mib)
        for words in order.words:
            self._call("learn_words", self._hand_over(array("I", words)))
        if order.begin is not None:
            self._begin(order.begin)
        full = False
        if order.errand != self._errand:
            full = not self._call("look_back", order.errand == RETURN)
            self._errand = order.errand
        taken = 0
        for parcel in parcels:
            # Half a parcel is none: what found no room comes again, or is kept.
            if full or not self._call("fits", len(parcel) // (4 * self._record)):
                full = True
                break
            self._arrived(parcel)
            taken += 1
        at = self._call("share_on", 0 if full else order.budget, order.again and not full)
        return self._told(at, full, len(parcels) - taken)

    def _told(self, at: int, full: bool, refused: int) -> tuple[Report, list[bytes]]:
        words = self._words(at, _REPORT.size // 4 + 2 * self._shares)
        code, states, steps, ends, ahead, waiting, wanted, *broken, ending, taken = _REPORT.unpack_from(words)
        counts = list(words[_REPORT.size // 4 :])
        if self._errand == SEARCH:
            self._last, self._waiting = Kept(states, states - ahead, steps, ends), waiting
        boxes = [self._parcel(2 * at, *counts[2 * at : 2 * at + 2]) for at in range(self._shares)]
        report = Report(
            full or code == _FULL,
            *(states, steps, ends, ahead, waiting, tuple(broken), ending),
            self._emptied(2 * MOST_SHARES, wanted),
            refused,
            taken,
            taken,
            tuple([len(box) for box in boxes]),
        )
        return report, boxes

    def _begin(self, begin: Begin) -> None:
        parts = begin.shared, begin.clocks
        numbers = [
            self._call("state_of_part", at, self._hand_over(array("I", one))) for at, one in enumerate(parts)
        ]
        self._hand_over(array("I", begin.nodes))
        self._call("start_at", *numbers)
        self._number = begin.number
        self._call("begin_share", begin.number, begin.of, begin.by)
        self._shares = begin.of
        self._errand = SEARCH

    def _parcel(self, box: int, meanings: int, states: int) -> bytes:
        """What there is for a share: from whom, how many words say what numbers mean, these, states."""
        if not states:
            return b""
        head = _HEAD.pack(self._number, meanings)
        return head + self._emptied(box, meanings) + self._emptied(box + 1, states)

    def _arrived(self, parcel: bytes) -> None:
        self._call("arrived", self._hand_over(array("I", parcel)))

    def _emptied(self, number: int, count: int) -> bytes:
        return bytes(self._words(self._call("emptied", number), count)) if count else b""

    # --- the way to a state ----------------------------------------------------------------------

    def came_from(self, state: int) -> tuple[int, int, int]:
        """Whose state leads to this one, its number there, and the option; NOWHERE at the start."""
        words = self._words(self._call("state_at", state), self._state_words)
        parent, by = words[self._state_words - 2 :]
        return by >> _BY_OPTION, parent, by & (1 << _BY_OPTION) - 1

    def first_endless(self) -> int:
        """The first state from which no run ends."""
        return self._call("first_endless")

    # --- to be kept ------------------------------------------------------------------------------

    @property
    def _state_words(self) -> int:
        return self._cpus + 4 + (self._cpus & 1)

    def kept(self) -> tuple[Kept, bytes]:
        """Where it is in its search, and the states that lack something."""
        waiting = self._words(self._call("waiting_at"), self._waiting)
        tables = tuple([self._call("table_size", table) for table in range(TABLES)])
        return self._last._replace(tables=tables), bytes(waiting)

    def kept_table(self, table: int, first: int) -> bytes:
        """A piece of a table from this word on."""
        count = min(TABLE_PIECE, self._call("table_size", table) - first)
        return bytes(self._words(self._call("table_at", table) + 4 * first, count))

    def kept_states(self, first: int) -> bytes:
        """States from number `first` on, a piece of them."""
        last = min(self._last.states, first + PIECE)
        return b"".join(self._records(first, last))

    def _records(self, first: int, last: int) -> Iterator[bytes]:
        middle = 4 * (self._cpus + 2)
        for number in range(first, last):
            words = bytes(self._words(self._call("state_at", number), self._state_words))
            yield words[:middle]
            yield words[-8:]

    def table_comes_back(self, table: int, words: bytes) -> None:
        """A piece of a table, in the order of pieces."""
        self._call("table_back", table, self._hand_over(array("I", words)))

    def comes_back(self, states: bytes) -> None:
        """States that it had, a piece of them, in their order; after all tables."""
        self._arrived(_HEAD.pack(NOWHERE, 0) + states)

    def goes_on_from(self, kept: Kept, waiting: bytes) -> Report:
        """It has all its states again."""
        words = self._hand_over(array("I", waiting))
        self._call("go_on_from", words, kept.ahead_from, float(kept.transitions), float(kept.ends))
        return self._told(self._call("share_on", 0, False), False, 0)[0]
