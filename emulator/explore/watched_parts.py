"""The parts of a machine, with cells in the place of their containers (`cells`).

What of them decides anything is named here, attribute by attribute; one that is not named is an error. A part
of another class than is known here, such as a check of somebody's own, is one cell as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from emulator.checks.coherence import Coherence
from emulator.checks.grace_period import GracePeriod
from emulator.checks.happens_before import HappensBefore
from emulator.checks.luf_debug import LufDebug
from emulator.checks.onlooker import Check, Watcher
from emulator.checks.retirements import Retirements
from emulator.explore.cells import Cells, List, Map, One, Row, Set
from emulator.machine.call_book import CallBook
from emulator.machine.shared import Shared
from emulator.memory.folios import Folio, Folios
from emulator.memory.llist import LockLessList
from emulator.memory.memory import Memory
from emulator.memory.page_table import Mm, PageTables
from emulator.memory.words import Words
from emulator.memory.zone import Zone

# What else they hold: what never changes, or is counted only.
_CONSTANT: Final[dict[type[Any], tuple[str, ...]]] = {
    Memory: ("words", "folios", "page_tables", "_handlers", "vma_locks"),
    Words: (),
    Folios: ("hpage_order", "_ends"),
    PageTables: ("hpage_order", "table_order", "folios", "words", "entry_is", "asks_areas"),
    CallBook: (),
    Coherence: ("violations", "memory", "_hpage_order", "_free_copies", "found", "checked", "_handlers"),
    GracePeriod: (
        *("violations", "_hpage_order", "before", "facts", "_cpus", "_masks", "sides", "_handlers"),
        "_devices",
        "_strict",
    ),
    Retirements: (
        "_hpage_order",
        "before",
        "_cpus",
        "_width",
        "replaced",  # begins anew with each transition
        "_lazy_words",
        "_loaded_words",
        "_by_loading",
        "_preempted_words",
        "_flushing_words",
    ),
    LufDebug: ("violations", "memory", "_done"),
    HappensBefore: ("exact", "nid", "plain_orders"),
}


class Unwatched(Exception):
    """A part keeps something that is named nowhere here: a search would not see that it differs."""


def _replace(owner: Any, **containers: Any) -> None:
    kind = type(owner)
    kept = set(vars(owner)) if hasattr(owner, "__dict__") else set(kind.__slots__)
    if unknown := kept ^ {*_CONSTANT[kind], *containers}:
        raise Unwatched(f"{kind.__name__}.{min(unknown)} is not known to {__name__}")
    for name, container in containers.items():
        setattr(owner, name, container)


class _Whole:
    """Something that is one cell as a whole."""

    def __init__(self, cells: Cells, of: Any) -> None:
        self._cell = One(cells, of, self._restored, lambda live: live.state())
        self._of = of

    def _restored(self, key: Any, state: Any) -> Any:
        self._of.restore(state)
        return self._of

    def touch(self) -> None:
        """It will be asked, and may change."""
        self._cell.get()


# --- memory and calls ------------------------------------------------------------------------------------


class _PageLists:
    """A CPU's page lists hold on to their zone: both are in the zone's cell."""

    def __init__(self, zones: Row, lists: Sequence[Any]) -> None:
        self._zones = zones
        self._lists = lists

    def __getitem__(self, node: int) -> Any:
        zone: Zone = self._zones[node]
        return self._lists[zone.node]

    def __len__(self) -> int:
        return len(self._lists)


class _Mm:
    """Stands for an `Mm`."""

    def __init__(self, cells: Cells, mm: Mm) -> None:
        self._areas = One(cells, mm.areas, lambda key, areas: list(areas), lambda areas: tuple(areas) or None)
        self.entries = Map(cells, mm.entries)
        self.tables = Set(cells, mm.tables)

    @property
    def areas(self) -> Any:
        return self._areas.get()

    @areas.setter
    def areas(self, areas: Any) -> None:
        self._areas.set(areas)


class _Mms:
    """Stands for the dict of all `Mm`: one that holds nothing is as good as none."""

    def __init__(self, cells: Cells, mms: dict[int, Mm]) -> None:
        self._cells = cells
        self._views = {number: _Mm(cells, mm) for number, mm in mms.items()}

    def get(self, number: int) -> _Mm:
        found = self._views.get(number)
        if found is None:
            self._cells.grown.add(self)
            found = self._views[number] = _Mm(self._cells, Mm())
        return found

    def items(self) -> list[tuple[int, _Mm]]:
        self._cells.listed.add(self)
        return list(self._views.items())


def watch_shared(shared: Shared) -> tuple[Cells, Callable[[], None]]:
    """Put cells into memory, calls and checks. The second is to be called before each operation."""
    cells = Cells()
    if type(shared.memory) is not Memory or type(shared.memory.page_tables) is not PageTables:
        whole = _Whole(cells, shared)
        cells.close()
        return cells, whole.touch
    memory = shared.memory
    words, folios, tables, calls = memory.words, memory.folios, memory.page_tables, shared.calls
    _replace(memory)
    _replace(
        words,
        values=Map(cells, words.values, 0),
        lists=Map(cells, words.lists, None, lambda key, nodes: LockLessList(nodes), _nodes),
        # Whether anybody holds any is only asked to save a look at the one.
        holders=Map(cells, words.holders, full=True),
    )
    lists = tuple(folios.page_lists)

    def thawed(node: int, state: tuple[Any, ...]) -> Zone:
        zones[node].restore(state[0])
        for one, kept in zip(lists[node : node + 1], state[1:], strict=True):
            one.restore(kept)
        return zones[node]

    def frozen(zone: Zone) -> tuple[Any, ...]:
        return (zone.state(), *[one.state() for one in lists[zone.node : zone.node + 1]])

    zones = list(folios.zones)
    row = Row(cells, zones, thawed, frozen)
    _replace(
        folios,
        zones=row,
        page_lists=_PageLists(row, lists) if lists else (),
        folios=Map(cells, folios.folios, None, lambda pfn, state: Folio.restored(state), Folio.state),
        content=Map(cells, folios.content, 0),
        lru=Map(cells, folios.lru, None, lambda key, pfns: dict.fromkeys(pfns), tuple),
        _lru_tails=Map(cells, folios._lru_tails),
        page_cache=Map(cells, folios.page_cache),
        files=Map(cells, folios.files),
        faults=List(cells, folios.faults),
    )
    _replace(tables, mms=_Mms(cells, tables.mms))
    _replace(
        calls,
        queues=Row(cells, calls.queues),
        _numbers=Row(cells, calls._numbers),
        _missing=Map(cells, calls._missing),
    )
    _by_cpu(calls.queues, calls._numbers, calls._missing)
    others = []
    for check in shared.checks:
        if type(check) is Coherence:
            _watch_coherence(cells, check)
        elif type(check) is LufDebug:
            _replace(check, owed=Map(cells, check.owed), done=Map(cells, check.done))
        elif type(check).state is not Check.state:
            others.append(_Whole(cells, check))
    cells.close()

    def begin() -> None:
        for other in others:
            other.touch()

    return cells, begin


def _by_cpu(*containers: Any) -> None:
    """Their keys are, or begin with, numbers of CPUs."""
    for one in containers:
        (one.places if isinstance(one, Row) else one).by_cpu = True


def _nodes(nodes: LockLessList[Any]) -> Any:
    return nodes.state() or None


def _watch_coherence(cells: Cells, check: Coherence) -> None:
    _replace(
        check,
        _origins=Map(cells, check._origins),
        # The reverse of the one above: a set with nothing in it says nothing.
        _copies=Map(
            cells,
            check._copies,
            None,
            lambda key, frames: set(frames),
            lambda frames: frozenset(frames) or None,
        ),
        _movers=Map(cells, check._movers),
        _moved=Map(cells, check._moved),
        _written=Set(cells, check._written),
        _file_versions=Map(cells, check._file_versions),
        _evicted=Map(cells, check._evicted),
        _unwritten=Set(cells, check._unwritten),
        _cleared=Map(cells, check._cleared),
    )


# --- watchers --------------------------------------------------------------------------------------------


def watch_watchers(watchers: Sequence[Watcher]) -> tuple[Cells, Callable[[], None], Callable[[], None]]:
    """Put cells into watchers. The others are to be called before and after each transition."""
    cells = Cells()
    others = []
    known = []
    for watcher in watchers:
        if type(watcher) is GracePeriod and type(watcher.facts) is Retirements:
            known.append(_watch_grace_period(cells, watcher))
        elif type(watcher).state is not Watcher.state:
            others.append(_Whole(cells, watcher))
    cells.close()

    def begin() -> None:
        for other in others:
            other.touch()

    def end() -> None:
        for settle in known:
            settle()

    end()
    cells.close()
    return cells, begin, end


def _watch_grace_period(cells: Cells, check: GracePeriod) -> Callable[[], None]:
    before, facts = check.before, check.facts
    _replace(
        check,
        _entries=Map(cells, check._entries),
        _copies=Map(cells, check._copies),
        _emptied=Map(cells, check._emptied),
        _calls=Map(cells, check._calls),
    )
    _replace(
        facts,
        retired=List(cells, facts.retired),
        _users=Map(cells, facts._users, 0),
        _loaded=Row(cells, facts._loaded),
        _pcids=Row(cells, facts._pcids),
        _found=Row(cells, facts._found),
        _joining=Row(cells, facts._joining),
        _under_way=Map(cells, facts._under_way, ()),
        _decided=Row(cells, facts._decided),
    )
    _replace(
        before,
        now=Row(cells, before.now),
        released=Row(cells, before.released),
        seen=Row(cells, before.seen),
        clean=Row(cells, before.clean),
        clocks=Map(cells, before.clocks, 0),
        pending=Row(cells, before.pending),
    )
    _by_cpu(check._calls, facts._loaded, facts._pcids, facts._joining, facts._decided)
    _by_cpu(before.now, before.released, before.seen, before.clean, before.pending)
    settled = Row(cells, [before.known_to_all()])
    now: Any = before.now

    class Watched(HappensBefore):
        """Looks at all that CPUs know only where that has changed."""

        __slots__ = ()

        def known_to_all(self) -> int:
            known: int = super().known_to_all() if now.changed() else settled[0]
            return known

    before.__class__ = Watched
    return lambda: _settle(check, settled)


def _settle(check: GracePeriod, settled: Row) -> None:
    """Leave out what cannot matter any more, as `state` does it: it would keep equal states apart.

    `settled`: the events that all knew when that was done last.
    """
    before, decided = check.before, check.facts._decided
    rows: Any = (before.now, before.released, before.seen, before.clean, before.pending, decided)
    moved, released, seen, clean, pending, told = [row.changed() for row in rows]
    clocks: Any = before.clocks
    carriers = clocks.changed()
    if moved or released or pending or carriers:
        common = before.known_to_all()
        if moved and common != settled[0]:
            settled[0] = common
            carriers, released, pending = list(clocks), range(len(rows[0])), range(len(rows[0]))
        for carrier in carriers:
            bits = clocks.get(carrier, 0)
            exact = before.exact and carrier[0] == "word" and carrier[1].startswith(before.exact)
            if bits & common and not exact:
                clocks[carrier] = bits & ~common
        keep = ~common
        for cpu in pending:
            stores = before.pending[cpu]
            before.pending[cpu] = tuple([(kind, store, bits & keep) for kind, store, bits in stores])
        for cpu in () if before.plain_orders else released:
            before.released[cpu] &= keep
    for cpu in {*moved, *told}:
        decided[cpu] &= ~before.now[cpu]
    if before.plain_orders:  # these are never read
        for cpu in {*released, *seen, *clean}:
            before.released[cpu], before.seen[cpu], before.clean[cpu] = 0, 0, True
    else:
        for cpu in {*moved, *seen}:
            before.seen[cpu] &= ~before.now[cpu]
