"""Page tables and memory areas, per mm, and the page walker that reads them.

One entry is one word to everybody who reads it without the page-table lock. Changing an entry also
moves the page from one folio's reverse map to another's, which the kernel does under that lock.

A PMD that maps a huge page is an entry with PSE at the first of its pages; an operation on any other page
of it acts on that one entry. PopulatePmd makes small entries of it, which name one folio together; only a
folio of huge migration entries is split (SplitHugePage).

Tables are there from the first entry in them until FreePgtables, however empty they get.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from emulator.hardware import operations as ops
from emulator.hardware.operations.places import pte
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    MIGRATION,
    PAGE_SHIFT,
    PMD_ORDER,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    ZERO_PFN,
    frame_of,
    is_migration_entry,
    make_migration_entry,
    pte_pages,
    ptl,
)
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import FREE_MAPPED, Folios
from emulator.memory.words import Words

# Flags of a memory area (include/linux/mm.h).
VM_READ = 1 << 0
VM_WRITE = 1 << 1
VM_EXEC = 1 << 2
VM_SHARED = 1 << 3
VM_PFNMAP = 1 << 10
VM_UFFD_WP = 1 << 12
VM_LOCKED = 1 << 13
VM_SOFT_TRACKED = 1 << 14  # VM_SOFTDIRTY the other way round: clear_refs has begun to track writes
VM_PKEY_BIT0 = 1 << 32  # protection key 1
VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC

# Above the tables of entries: PMDs, each maps 2**9 of those, and PUDs. Nothing frees what is above them.
_LEVELS = 3
_TABLE_ORDER = 9

_NAMES_A_FRAME = PRESENT | PROTNONE | MIGRATION  # a swap entry does not
ON_ENTRIES = [kind for kind, row in ops.TABLE.items() if pte in row.place.reads + row.place.writes]


class HugePageSplit(Exception):
    """Who names a part of a huge page has to split it first (split_huge_pmd), or it is left out."""


class Vma(NamedTuple):
    """One area of an address space: pages [start, end); `file` 0 means anonymous.

    A negative file is shmem's: tmpfs, or shared anonymous memory. `pgoff` is the page of the file that its
    first one is (vm_pgoff).
    """

    start: int
    end: int
    flags: int
    file: int
    pgoff: int = 0

    @property
    def accessible(self) -> bool:
        """vma_is_accessible: not PROT_NONE."""
        return self.flags & VM_ACCESS_FLAGS != 0

    def linear_page_index(self, vpn: int) -> int:
        """linear_page_index: which page of the file `vpn` is."""
        return vpn - self.start + self.pgoff

    def part(self, start: int, end: int) -> Vma:
        """What split_vma makes of it: the area of its pages [start, end)."""
        return self._replace(start=start, end=end, pgoff=self.linear_page_index(start) if self.file else 0)


class Mm:
    """One address space: its areas, sorted, its entries and tables (number << 2 | level, from 0 on)."""

    __slots__ = ("areas", "entries", "tables")

    def __init__(self) -> None:
        self.areas: list[Vma] = []
        self.entries: dict[int, int] = {}
        self.tables: set[int] = set()


class PageTables:
    """The page tables of every mm of the machine; a huge entry covers 2**hpage_order pages, 0 for none."""

    def __init__(self, folios: Folios, words: Words, hpage_order: int = 0) -> None:
        self.hpage_order = hpage_order
        self.table_order = hpage_order or PMD_ORDER
        self.folios = folios
        self.words = words
        self.mms: dict[int, Mm] = {}
        self.asks_areas = True
        """Whether what a fault installs goes by the area as it is then: where faults hold no lock of it."""
        self.entry_is: Callable[[int, int, int], None] | None = None
        """Is told of every entry that changes: mm, page, and the entry, or 0 if it names no folio."""

    def handlers(self) -> dict[type[Any], Callable[[int, Any], Any]]:
        """Operation class to what carries it out."""
        found = ops.handlers_of(self)
        if self.hpage_order:
            found |= {kind: self._at_head(found[kind]) for kind in ON_ENTRIES}
        return found

    def mm(self, number: int) -> Mm:
        """The address space with this number; made at first use."""
        found = self.mms.get(number)
        if found is None:
            found = self.mms[number] = Mm()
        return found

    def state(self) -> frozenset[tuple[Any, ...]]:
        """Areas, entries and tables of every mm, as a hashable value."""
        return frozenset(
            [
                (number, tuple(mm.areas), frozenset(mm.entries.items()), frozenset(mm.tables))
                for number, mm in self.mms.items()
                if mm.areas or mm.entries or mm.tables
            ]
        )

    def restore(self, state: frozenset[tuple[Any, ...]]) -> None:
        """Put back what `state` answered. Reverse maps are the folios'."""
        self.mms = {}
        for number, areas, entries, tables in state:
            mm = self.mm(number)
            mm.areas = list(areas)
            mm.entries = dict(entries)
            mm.tables = set(tables)

    def entry(self, mm: int, vpn: int) -> int:
        """The entry as it is now."""
        return self.mm(mm).entries.get(self._head(mm, vpn) if self.hpage_order else vpn, 0)

    def found_by(self, walk: Any) -> int:
        """What this walk would find, changing nothing."""
        return self.entry(walk.mm, walk.vpn)

    def held_in(self, pmd: int, vpn: int) -> list[tuple[int, int]]:
        """(page, entry) of all in the table that this upper entry names, as if it were that of page `vpn`."""
        return []

    def frame(self, mm: int, vpn: int) -> int:
        """The frame that the page's entry names now; 0 for an empty one."""
        return frame_of(self.entry(mm, vpn), vpn, self.hpage_order)

    # --- huge entries --------------------------------------------------------------------------

    def _head(self, mm: int, vpn: int) -> int:
        """Where the page's entry is: at the first page of the huge one that covers it, or at the page."""
        head = vpn & -1 << self.hpage_order
        return head if self.mm(mm).entries.get(head, 0) & PSE else vpn

    def _at_head(self, handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
        def at_head(cpu: int, operation: Any) -> Any:
            head = self._head(operation.mm, operation.vpn)
            return handler(cpu, operation if head == operation.vpn else operation._replace(vpn=head))

        return at_head

    def _obstacle(self, mm: int, vpn: int) -> int:
        """What keeps a huge entry from going in at `vpn`: an entry of its range, -1 for no area; else 0."""
        end = vpn + (1 << self.hpage_order)
        if vpn & (1 << self.hpage_order) - 1:
            raise ValueError(f"huge entry at page {vpn:#x}: must be a multiple of {1 << self.hpage_order}")
        area = self.find_vma(mm, vpn)
        if not area or Vma(*area).end < end:
            return -1
        entries = self.mm(mm).entries
        return next((entries[page] for page in range(vpn, end) if page in entries), 0)

    # --- tables --------------------------------------------------------------------------------

    def put(self, mm: int, vpn: int, entry: int) -> None:
        """An entry that is there from the start, with the tables above. Reverse maps are the folios'."""
        self.mm(mm).entries[vpn] = entry
        self._alloc_tables(mm, vpn, entry)

    def _alloc_tables(self, mm: int, vpn: int, entry: int) -> None:
        # __pud_alloc, __pmd_alloc, __pte_alloc
        tables = self.mm(mm).tables
        for level in range(1 if entry & PSE else 0, _LEVELS):
            tables.add(vpn >> self.table_order + level * _TABLE_ORDER << 2 | level)

    def _pmd_range(self, cpu: int, operation: ops.PmdRange) -> tuple[tuple[int, int], ...]:
        mm = self.mm(operation.mm)
        order = self.table_order
        found = []
        for number in range(operation.start >> order, (operation.end - 1 >> order) + 1):
            entry = mm.entries.get(number << order, 0)
            if entry & PSE:
                found.append((number << order, entry))
            elif number << 2 in mm.tables:
                found.append((number << order, 0))
        return tuple(found)

    def _free_pgtables(self, cpu: int, operation: ops.FreePgtables) -> tuple[tuple[int, int, int], ...]:
        mm = self.mm(operation.mm)
        floor = max((area.end for area in mm.areas if area.end <= operation.start), default=0)
        ceiling = min((area.start for area in mm.areas if area.start >= operation.end), default=None)
        freed = []
        for level in range(_LEVELS):
            order = self.table_order + level * _TABLE_ORDER
            inside = range(operation.start >> order, (operation.end - 1 >> order) + 1)
            for key in sorted(key for key in mm.tables if key & 3 == level and key >> 2 in inside):
                number = key >> 2
                start, end = number << order, number + 1 << order
                if start >= floor and (ceiling is None or end <= ceiling):
                    mm.tables.remove(key)
                    freed.append((start, order, 0 if level else self._unlink(operation.mm, number)))
        return tuple(freed)

    def _unlink(self, mm: int, number: int) -> int:
        """The table is no longer in its place; the upper entry that named it, if it is a thing of its own."""
        return 0

    def _populate_pmd(self, cpu: int, operation: ops.PopulatePmd) -> Any:
        mm, vpn, pmd = operation
        if self.locked_out(cpu, mm, vpn):
            return BLOCKED
        pages = 1 << self.hpage_order
        folio = self.folios.folio_of(pmd >> PAGE_SHIFT)
        if folio is not None:
            folio.refcount += pages - 1
        step = 0 if pmd >> PAGE_SHIFT == ZERO_PFN else 1
        for page in range(pages):
            self._replace(mm, vpn + page, (pmd & ~PSE) + (page * step << PAGE_SHIFT))
        return None

    def _collapse_pmd(self, cpu: int, operation: ops.CollapsePmd) -> Any:
        mm, vpn, pmd = operation
        if self.locked_out(cpu, mm, vpn):
            return BLOCKED
        for page in range(1 << self.hpage_order):
            self._replace(mm, vpn + page, 0)
        self.mm(mm).tables.discard(vpn >> self.table_order << 2)
        self._replace(mm, vpn, pmd)
        return None

    def _split_huge_page(self, cpu: int, operation: ops.SplitHugePage) -> bool:
        folio = self.folios.folios.get(operation.pfn)
        if folio is None or folio.refcount != operation.refs:
            return False
        mappings = tuple(folio.rmap.items())
        if not all(is_migration_entry(entry) and entry & PSE for _, entry in mappings):
            return False
        pages = 1 << folio.order
        self.folios.split(folio)
        for (mm, vpn), entry in mappings:
            for page in range(pages):
                self._replace(mm, vpn + page, (entry & ~PSE) + (page << PAGE_SHIFT))
        return True

    # --- entries -------------------------------------------------------------------------------

    def _replace(self, mm: int, vpn: int, entry: int) -> int:
        there = self.mm(mm)
        entries = there.entries
        old = entries.get(vpn, 0)
        if entry:
            entries[vpn] = entry
            if not old and vpn >> self.table_order << 2 not in there.tables:
                self._alloc_tables(mm, vpn, entry)
        elif old:
            del entries[vpn]
            if self.entry_is is not None:
                self.entry_is(mm, vpn, 0)
        folio_of = self.folios.folio_of
        other = old >> PAGE_SHIFT != entry >> PAGE_SHIFT or not entry & _NAMES_A_FRAME
        if old & _NAMES_A_FRAME and other and (folio := folio_of(old >> PAGE_SHIFT)) is not None:
            folio.rmap.pop((mm, vpn), None)
        if entry & _NAMES_A_FRAME:
            folio = folio_of(entry >> PAGE_SHIFT)
            if self.entry_is is not None:
                self.entry_is(mm, vpn, entry if folio is not None else 0)
            if folio is not None:
                folio.rmap[mm, vpn] = entry
            elif other and entry >> PAGE_SHIFT != ZERO_PFN:
                text = f"mm {mm} page {vpn:#x} maps frame {entry >> PAGE_SHIFT}, which is free"
                self.folios.fault(FREE_MAPPED, text)
        elif entry and self.entry_is is not None:
            self.entry_is(mm, vpn, 0)
        return old

    def _get(self, cpu: int, operation: ops.GetPte) -> int:
        return self.mm(operation.mm).entries.get(operation.vpn, 0)

    def _set(self, cpu: int, operation: ops.SetPte) -> None:
        self._replace(operation.mm, operation.vpn, operation.pte)

    def locked_out(self, cpu: int, mm: int, vpn: int) -> bool:
        return bool(self.words.holders) and self.words.held_by_other(cpu, ptl(mm, vpn))

    def _xchg(self, cpu: int, operation: ops.XchgPte) -> Any:
        if self.locked_out(cpu, operation.mm, operation.vpn):
            return BLOCKED
        return self._replace(operation.mm, operation.vpn, operation.pte)

    def _zap(self, cpu: int, operation: ops.ZapPte) -> Any:
        mm, vpn, delay_rmap = operation
        if self.locked_out(cpu, mm, vpn):
            return BLOCKED
        old = self._replace(mm, vpn, 0)
        if delay_rmap and old & DIRTY and old & (PRESENT | PROTNONE):
            self.folios.folios[old >> PAGE_SHIFT].rmap[mm, vpn] = 0
        return old

    def _remove_rmap(self, cpu: int, operation: ops.RemoveRmap) -> None:
        mm, vpn, pfn = operation
        self.folios.folios[pfn].rmap.pop((mm, vpn))

    def _cmpxchg(self, cpu: int, operation: ops.CmpxchgPte) -> Any:
        if self.locked_out(cpu, operation.mm, operation.vpn):
            return BLOCKED
        seen = self.entry(operation.mm, operation.vpn)
        if not seen and not operation.old and self.asks_areas and not self.find_vma(*operation[:2]):
            # A fault holds its area's lock until here, and munmap waits for it: no area, no mapping.
            return -1
        if operation.new & RW and not operation.old & (RW | MIGRATION) and self.asks_areas:
            # Nor does it give a right that mprotect has taken away meanwhile.
            area = self.find_vma(*operation[:2])
            if area and not Vma(*area).flags & VM_WRITE:
                return -1
        if not seen and not operation.old and operation.new & PSE:
            seen = self._obstacle(operation.mm, operation.vpn)
        if seen == operation.old:
            self._replace(operation.mm, operation.vpn, operation.new)
        return seen

    def _try_to_migrate(self, cpu: int, operation: ops.TryToMigratePte) -> Any:
        if self.locked_out(cpu, operation.mm, operation.vpn):
            return BLOCKED
        entry = self.entry(operation.mm, operation.vpn)
        if not entry & (PRESENT | PROTNONE) or entry >> PAGE_SHIFT != operation.pfn:
            return 0
        folio = self.folios.folio_of(operation.pfn) if entry & EXCLUSIVE else None
        if folio is not None and folio.pincount:
            return 0
        self._replace(operation.mm, operation.vpn, make_migration_entry(entry))
        return entry

    def _wait(self, cpu: int, operation: ops.WaitPte) -> Any:
        entry = self.entry(operation.mm, operation.vpn)
        return BLOCKED if entry == operation.pte else entry

    def _test_and_clear_young(self, cpu: int, operation: ops.TestAndClearYoung) -> Any:
        if self.locked_out(cpu, operation.mm, operation.vpn):
            return BLOCKED
        entry = self.entry(operation.mm, operation.vpn)
        if not entry & (PRESENT | PROTNONE) or not entry & ACCESSED:
            return False
        self._replace(operation.mm, operation.vpn, entry & ~ACCESSED)
        return True

    # --- areas ---------------------------------------------------------------------------------

    def _find_vma(self, cpu: int, operation: ops.FindVma) -> tuple[int, ...]:
        return self.find_vma(*operation)

    def find_vma(self, mm: int, vpn: int) -> tuple[int, ...]:
        """The area that holds the page, () for none."""
        areas = self.mm(mm).areas
        at = bisect_right(areas, vpn, key=lambda area: area.start) - 1
        if at < 0 or areas[at].end <= vpn:
            return ()
        return tuple(areas[at])

    def _vma_insert(self, cpu: int, operation: ops.VmaInsert) -> bool:
        areas = self.mm(operation.mm).areas
        if any(area.start < operation.end and operation.start < area.end for area in areas):
            return False
        areas.append(Vma(*operation[1:]))
        areas.sort()
        return True

    def _split(self, mm: int, start: int, end: int) -> tuple[list[Vma], list[Vma]]:
        """Areas cut at the borders of [start, end): those outside, those inside."""
        outside: list[Vma] = []
        inside: list[Vma] = []
        for area in self.mm(mm).areas:
            for low, high in (
                (area.start, min(area.end, start)),
                (max(area.start, start), min(area.end, end)),
                (max(area.start, end), area.end),
            ):
                if low < high:
                    part = area.part(low, high)
                    (inside if start <= low and high <= end else outside).append(part)
        return outside, inside

    def _vma_remove(self, cpu: int, operation: ops.VmaRemove) -> tuple[tuple[int, ...], ...]:
        outside, inside = self._split(operation.mm, operation.start, operation.end)
        self.mm(operation.mm).areas = sorted(outside)
        return tuple(tuple(area) for area in inside)

    def _vma_protect(self, cpu: int, operation: ops.VmaProtect) -> int:
        outside, inside = self._split(operation.mm, operation.start, operation.end)
        changed = [area._replace(flags=operation.flags) for area in inside]
        self.mm(operation.mm).areas = sorted(outside + changed)
        return sum(area.end - area.start for area in inside)

    def _mapped_range(self, cpu: int, operation: ops.MappedRange) -> tuple[tuple[int, int], ...]:
        entries = self.mm(operation.mm).entries
        if self.hpage_order:
            self._expect_whole(operation)
        if operation.end - operation.start > len(entries):
            return tuple(
                sorted(item for item in entries.items() if operation.start <= item[0] < operation.end)
            )
        return tuple((vpn, entries[vpn]) for vpn in range(operation.start, operation.end) if vpn in entries)

    def _expect_whole(self, asked: ops.MappedRange) -> None:
        for border in (asked.start, asked.end):
            head = self._head(asked.mm, border)
            size = pte_pages(self.entry(asked.mm, border), self.hpage_order)
            if head < border < head + size:
                raise HugePageSplit(
                    f"pages {asked.start:#x} to {asked.end - 1:#x} of mm {asked.mm} cut the huge "
                    f"page at {head:#x}: it has to be split, or all of its {size} pages taken"
                )

    # --- hardware ------------------------------------------------------------------------------

    def _walk(self, cpu: int, operation: ops.Walk) -> int:
        entry = self.mm(operation.mm).entries.get(operation.vpn, 0)
        if not entry & PRESENT or (operation.write and not entry & RW):
            return 0
        walked = entry | (ACCESSED | DIRTY if operation.write else ACCESSED)
        if walked != entry:
            self._replace(operation.mm, operation.vpn, walked)
        return walked

    def _read_frame(self, cpu: int, operation: ops.ReadFrame) -> int:
        return self.folios.content.get(operation.pfn, 0)

    def _write_frame(self, cpu: int, operation: ops.WriteFrame) -> None:
        self.folios.content[operation.pfn] = operation.value

    def migration_entries(self) -> list[tuple[int, int]]:
        """(mm, vpn) of every migration entry that exists now; none should when nothing migrates."""
        return [
            (number, vpn)
            for number, mm in self.mms.items()
            for vpn, entry in mm.entries.items()
            if is_migration_entry(entry)
        ]
