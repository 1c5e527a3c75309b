"""Page-table pages as things: each has a number, an upper entry that names it, and a count of references.

Whoever has read an upper entry holds a pointer, and reads the table wherever that is by then: in another
place, in nobody's, or freed. Only the tables of entries are followed; what is said of a PMD here goes for the
upper levels as well. Numbers are not used again, so that a freed table stays told from those made later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from emulator.hardware import operations as ops
from emulator.hardware.pte import ACCESSED, DIRTY, PAGE_SHIFT, PRESENT, PSE, RW, mk_pte
from emulator.memory.folios import TABLE_FREED_TWICE, Folios
from emulator.memory.page_table import ON_ENTRIES, PageTables
from emulator.memory.words import Words

ANYTHING: Final = mk_pte(0, PRESENT | ACCESSED)
"""What a walker takes for an entry in a page that is no table any more."""

_Place = tuple[int, int]  # mm and number of the table among those of the mm


def table_of(pmd: int) -> int:
    """Number of the table that an upper entry names; 0 if it names none."""
    return 0 if pmd & PSE else pmd >> PAGE_SHIFT


def pmd_of(table: int) -> int:
    """The upper entry that names this table, or what would be one (pmd_populate)."""
    return mk_pte(table, PRESENT | RW)


class TablePages(PageTables):
    """Page tables whose pages are allocated, freed, moved and shared.

    A table is linked in one place or, shared between processes, in several; its entries are kept at the first
    of them, its home. One that is linked nowhere keeps them apart.
    """

    def __init__(self, folios: Folios, words: Words, hpage_order: int = 0) -> None:
        super().__init__(folios, words, hpage_order)
        self._links: dict[_Place, int] = {}
        self._homes: dict[int, _Place] = {}
        # Tables without a home: the place that they had, and their entries by number.
        self._apart: dict[int, tuple[_Place, dict[int, int]]] = {}
        self._counts: dict[int, int] = {}
        self._deposited: dict[_Place, int] = {}
        self._made = 0

    def handlers(self) -> dict[type[Any], Callable[[int, Any], Any]]:
        """As of `PageTables`; an operation on a page of a shared table is carried out at its home."""
        found = super().handlers()
        return found | {kind: self._at_home(found[kind]) for kind in ON_ENTRIES if "vpn" in kind._fields}

    def state(self) -> Any:
        """As of `PageTables`, and of the tables."""
        return (
            super().state(),
            frozenset(self._links.items()),
            frozenset(self._homes.items()),
            frozenset((table, at, tuple(sorted(held.items()))) for table, (at, held) in self._apart.items()),
            frozenset(self._counts.items()),
            frozenset(self._deposited.items()),
            self._made,
        )

    def restore(self, state: Any) -> None:
        """Put back what `state` answered."""
        entries, links, homes, apart, counts, deposited, self._made = state
        super().restore(entries)
        self._links = dict(links)
        self._homes = dict(homes)
        self._apart = {table: (at, dict(held)) for table, at, held in apart}
        self._counts = dict(counts)
        self._deposited = dict(deposited)

    def allocated(self, table: int) -> bool:
        """The page is a page table."""
        return table in self._counts

    def pmd(self, mm: int, vpn: int) -> int:
        """The upper entry of the page as it is now."""
        number = vpn >> self.table_order
        huge = self.mm(mm).entries.get(number << self.table_order, 0)
        if huge & PSE:
            return huge
        table = self._links.get((mm, number))
        return 0 if table is None else pmd_of(table)

    def make_table(self, mm: int, vpn: int) -> None:
        """At the start: there is a table for this page, and nothing in it."""
        self._alloc_tables(mm, vpn, 0)

    def share(self, mm: int, vpn: int, of_mm: int, of_vpn: int) -> None:
        """huge_pmd_share, at the start: page `vpn` of `mm` goes by the table of another process."""
        table = self._links[of_mm, of_vpn >> self.table_order]
        self._link((mm, vpn >> self.table_order), table)
        self._counts[table] += 1

    def entry(self, mm: int, vpn: int) -> int:
        """As of `PageTables`."""
        return super().entry(*self._home(mm, vpn))

    def found_by(self, walk: Any) -> int:
        """As of `PageTables`."""
        if type(walk) is ops.WalkPmd:
            pmd = self.pmd(walk.mm, walk.vpn)
            return 0 if pmd & PSE else pmd
        if type(walk) is ops.WalkPte:
            return self._read(table_of(walk.pmd), walk.vpn)
        return super().found_by(walk)

    def held_in(self, pmd: int, vpn: int) -> list[tuple[int, int]]:
        """As of `PageTables`."""
        table, first = table_of(pmd), vpn >> self.table_order << self.table_order
        if table in self._apart:
            return [(first + at, entry) for at, entry in self._apart[table][1].items()]
        if table not in self._homes:
            return []
        mm, number = self._homes[table]
        start = number << self.table_order
        entries = self.mm(mm).entries.items()
        return [(first + at - start, one) for at, one in entries if 0 <= at - start < 1 << self.table_order]

    def locked_out(self, cpu: int, mm: int, vpn: int) -> bool:
        """As of `PageTables`."""
        return super().locked_out(cpu, *self._home(mm, vpn))

    # --- where a table is ----------------------------------------------------------------------

    def _home(self, mm: int, vpn: int) -> tuple[int, int]:
        number = vpn >> self.table_order
        home = self._homes.get(self._links.get((mm, number), 0), (mm, number))
        return home[0], home[1] << self.table_order | vpn & (1 << self.table_order) - 1

    def _at_home(self, handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def at_home(cpu: int, operation: Any) -> Any:
            mm, vpn = self._home(operation.mm, operation.vpn)
            if (mm, vpn) != operation[:2]:
                operation = operation._replace(mm=mm, vpn=vpn)
            return handler(cpu, operation)

        return at_home

    def _link(self, place: _Place, table: int) -> None:
        """The upper entry at this place names the table, which lives there if it has no other home."""
        self._links[place] = table
        mm, number = place
        self.mm(mm).tables.add(number << 2)
        if table not in self._counts or table in self._homes:
            return
        self._homes[table] = place
        old, held = self._apart.pop(table, (place, {}))
        for at, entry in held.items():
            self._name(entry, (old[0], self._page(old, at)), None)
            self._replace(mm, self._page(place, at), entry)

    def _unlink(self, mm: int, number: int) -> int:
        place = (mm, number)
        table = self._links.pop(place, None)
        if table is None:
            return 0
        self.mm(mm).tables.discard(number << 2)
        if self._homes.get(table) != place:
            return pmd_of(table)
        del self._homes[table]
        entries = self.mm(mm).entries
        first, last = self._page(place, 0), self._page((mm, number + 1), 0)
        held = {vpn - first: entries.pop(vpn) for vpn in sorted(entries) if first <= vpn < last}
        # Who walks a folio's mappings finds the place where it was, and nothing there.
        self._apart[table] = (place, held)
        heirs = [other for other, linked in self._links.items() if linked == table]
        if heirs:
            self._link(min(heirs), table)
        return pmd_of(table)

    def _page(self, place: _Place, at: int) -> int:
        return (place[1] << self.table_order) + at

    def _name(self, entry: int, old: tuple[int, int], new: tuple[int, int] | None) -> None:
        """The folio that an entry names is mapped there, and not here any more."""
        folio = self.folios.folio_of(entry >> PAGE_SHIFT)
        if folio is not None:
            folio.rmap.pop(old, None)
            if new is not None:
                folio.rmap[new] = entry

    def _alloc_tables(self, mm: int, vpn: int, entry: int) -> None:
        super()._alloc_tables(mm, vpn, entry)
        place = (mm, vpn >> self.table_order)
        if entry & PSE or place in self._links:
            return
        table = self._deposited.pop(place, 0)
        if not table:
            self._made += 1
            table = self._made
            self._counts[table] = 1
        self._link(place, table)

    # --- by pointer ----------------------------------------------------------------------------

    def _read(self, table: int, vpn: int) -> int:
        """The entry of this page in this table, or what is taken for one."""
        if table not in self._counts:
            return ANYTHING
        at = vpn & (1 << self.table_order) - 1
        if table in self._homes:
            mm, number = self._homes[table]
            return self.mm(mm).entries.get(number << self.table_order | at, 0)
        return self._apart[table][1].get(at, 0) if table in self._apart else 0

    def _write(self, table: int, vpn: int, entry: int) -> None:
        at = vpn & (1 << self.table_order) - 1
        if table in self._homes:
            mm, number = self._homes[table]
            self._replace(mm, number << self.table_order | at, entry)
        elif table in self._apart:
            place, held = self._apart[table]
            where = (place[0], self._page(place, at))
            if old := held.pop(at, 0):
                self._name(old, where, None)
            if entry:
                held[at] = entry
                self._name(entry, where, where)

    def _get_pmd(self, cpu: int, operation: ops.GetPmd) -> int:
        return self.pmd(operation.mm, operation.vpn)

    def _xchg_pmd(self, cpu: int, operation: ops.XchgPmd) -> int:
        mm, vpn, new = operation
        number = vpn >> self.table_order
        old = self.pmd(mm, vpn)
        if old & PSE:
            self._replace(mm, number << self.table_order, 0)
        elif (mm, number) in self._links:
            self._unlink(mm, number)
        if new & PSE:
            self._replace(mm, number << self.table_order, new)
        elif new:
            self._link((mm, number), table_of(new))
        return old

    def _get_pte_in(self, cpu: int, operation: ops.GetPteIn) -> int:
        return self._read(table_of(operation.pmd), operation.vpn)

    def _xchg_pte_in(self, cpu: int, operation: ops.XchgPteIn) -> int:
        table = table_of(operation.pmd)
        old = self._read(table, operation.vpn)
        self._write(table, operation.vpn, operation.pte)
        return old

    def _table_count(self, cpu: int, operation: ops.TableCount) -> int:
        return self._counts.get(table_of(operation.pmd), 0)

    def _put_table(self, cpu: int, operation: ops.PutTable) -> None:
        table = table_of(operation.pmd)
        if table not in self._counts:
            self.folios.fault(TABLE_FREED_TWICE, f"page table {table} has been freed before")
            return
        self._counts[table] -= 1
        if not self._counts[table]:
            del self._counts[table]
            self._apart.pop(table, None)

    def _deposit(self, cpu: int, operation: ops.PgtableDeposit) -> None:
        mm, vpn, pmd = operation
        table = table_of(pmd)
        place, held = self._apart[table]
        for at, entry in held.items():
            self._name(entry, (place[0], self._page(place, at)), None)
        self._apart[table] = (place, {})
        self._deposited[mm, vpn >> self.table_order] = table

    def _withdraw(self, cpu: int, operation: ops.PgtableWithdraw) -> int:
        table = self._deposited.pop((operation.mm, operation.vpn >> self.table_order), 0)
        return pmd_of(table) if table else 0

    def _walk_pmd(self, cpu: int, operation: ops.WalkPmd) -> int:
        return self.found_by(operation)

    def _walk_pte(self, cpu: int, operation: ops.WalkPte) -> int:
        table = table_of(operation.pmd)
        entry = self._read(table, operation.vpn)
        if not entry & PRESENT or (operation.write and not entry & RW):
            return 0
        walked = entry | (ACCESSED | DIRTY if operation.write else ACCESSED)
        if walked != entry:
            self._write(table, operation.vpn, walked)
        return walked
