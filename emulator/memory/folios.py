"""Folios and everything that counts or lists them: tiers, reference counts, LRU lists, page cache.

A folio's frames carry a *content version*: a number that a write replaces and a copy carries along. Reverse
mappings are an index over entries, kept by page_table.py. What the kernel would call a bug (freeing a free
folio) is noted in `faults` instead of stopping the machine, so that a check reports it with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from emulator.hardware import operations as ops
from emulator.hardware.pte import ZERO_PFN, is_migration_entry
from emulator.memory.per_cpu_pages import PageLists
from emulator.memory.zone import TAG_BITS, Watermarks, Zone

# Folio flags (include/linux/page-flags.h, the ones that something reads).
PG_PRIVATE_1 = 1 << 0  # these three are the policy's, which makes a PageFlag of what it uses
PG_PRIVATE_2 = 1 << 1
PG_PRIVATE_3 = 1 << 2
PG_DIRTY = 1 << 3
PG_REFERENCED = 1 << 4
PG_KSM = 1 << 6  # folio_test_ksm: its mapping is a node of the stable tree
PG_LAZYFREE = 1 << 5  # an anonymous folio without PG_swapbacked: MADV_FREE

USED_FREE: Final = "use of a free folio"
FREED_MAPPED: Final = "freed while mapped"
FREED_CACHED: Final = "freed while in the page cache"
FREE_MAPPED: Final = "free frame mapped"
TABLE_FREED_TWICE: Final = "page table freed twice"
UNPINNED: Final = "unpinned without a pin"
FAULTS: Final = (USED_FREE, FREED_MAPPED, FREED_CACHED, FREE_MAPPED, TABLE_FREED_TWICE, UNPINNED)
"""What `Folios.fault` notes, by rule."""


class PageFlag(int):
    """A flag of a policy's own: one of PG_PRIVATE_1 to 3, and the name that a drawing shows."""

    name: str

    def __new__(cls, bit: int, name: str = "") -> PageFlag:
        """The bit itself, so that it can be stored and sent like any other."""
        flag = super().__new__(cls, bit)
        flag.name = name
        return flag


class Tier(NamedTuple):
    """One memory node: `pages` frames and the watermarks, in pages."""

    pages: int
    watermarks: Watermarks


@dataclass(slots=True, eq=False)
class Folio:
    """One allocated folio (struct folio): counts, flags, where it is mapped and listed."""

    pfn: int
    order: int
    node: int
    refcount: int = 1
    flags: int = 0
    mapping: tuple[int, int] | None = None  # (file, page offset) while in the page cache
    lru: bool | None = None  # None: not on a list; else whether that list is the active one
    rmap: dict[tuple[int, int], int] = field(default_factory=dict)  # (mm, vpn) -> entry naming this folio
    access_time: int = 0  # when the NUMA scanner was there, or the fault after it
    pincount: int = 0  # of the references, those of get_user_pages with FOLL_PIN (_pincount)
    lru_file: bool = False  # whether its list is one of files' pages; while it is on none, of no meaning
    tag: int = 0  # page->private: what is owed for its frames when it is freed, or was when it was taken

    def is_file_lru(self) -> bool:
        """folio_is_file_lru: to which lists it goes; what MADV_FREE gave up goes to those of files, too.

        And what is shmem's or on its way to swap does not (folio_test_swapbacked).
        """
        cached = self.mapping is not None and self.mapping[0] > 0
        return cached or self.flags & PG_LAZYFREE != 0

    def mapcount(self) -> int:
        """folio_mapcount: the entries that map it; those of a migration under way do not."""
        return sum(1 for entry in self.rmap.values() if not is_migration_entry(entry))

    def state(self) -> tuple[Any, ...]:
        """All fields as a hashable value."""
        rmap = tuple(self.rmap.items())
        state = (
            self.pfn,
            self.order,
            self.node,
            self.refcount,
            self.flags,
            self.mapping,
            self.lru,
            rmap,
            self.access_time,
            self.pincount,
            self.lru_file,
        )
        return (*state, self.tag) if self.tag else state

    @classmethod
    def restored(cls, state: tuple[Any, ...]) -> Folio:
        """The folio whose `state` this was."""
        folio = cls(*state)
        folio.rmap = dict(folio.rmap)
        return folio


class Folios:
    """All frames of the machine, by node, from `start` on.

    Frame 0 is the shared zero page: no folio, on no list, and nobody counts references to it. So many `cpus`
    keep page lists, as large as those of tiers of `memory_scale` times the size; 0: none does.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        start: int = 1,
        cpus: int = 0,
        memory_scale: int = 1,
        hpage_order: int = 0,
    ) -> None:
        self.hpage_order = hpage_order
        self.zones: list[Zone] = []
        for node, tier in enumerate(tiers):
            self.zones.append(Zone(node, start, tier.pages, tier.watermarks))
            start += tier.pages
        self.page_lists = tuple(
            PageLists(zone, cpus, zone.pages * memory_scale) for zone in self.zones if cpus
        )
        self._ends = [zone.start_pfn + zone.pages for zone in self.zones]
        self.folios: dict[int, Folio] = {}
        self.content: dict[int, int] = {}
        # By node, whether it is the active one, and whether it is for pages of files.
        self.lru: dict[tuple[int, bool, bool], dict[int, None]] = {
            (node, active, file): {}
            for node in range(len(tiers))
            for active in (False, True)
            for file in (False, True)
        }
        # Pages of each list beyond one for each folio.
        self._lru_tails = dict.fromkeys(self.lru, 0)
        self.page_cache: dict[tuple[int, int], int] = {}
        self.files: dict[tuple[int, int], int] = {}  # (file, pgoff) -> version written out
        self.faults: list[tuple[str, str]] = []

    def node_of(self, pfn: int) -> int:
        """Node that the frame belongs to (page_to_nid)."""
        for node, end in enumerate(self._ends):
            if pfn < end:
                return node
        raise ValueError(f"frame {pfn} does not exist; the last one is {self._ends[-1] - 1}")

    def is_free(self, pfn: int) -> bool:
        """Whether nobody has the frame: it is in its zone, or on a CPU's list."""
        if pfn in self.folios:  # nearly always, and much faster than looking through lists
            return False
        node = self.node_of(pfn)
        return self.zones[node].is_free(pfn) or (bool(self.page_lists) and self.page_lists[node].holds(pfn))

    def nr_free(self, node: int) -> int:
        """Pages of the node that nobody has, those on CPUs' lists included."""
        return self.zones[node].nr_free + (self.page_lists[node].pages if self.page_lists else 0)

    def fault(self, rule: str, text: str) -> None:
        """Note what the kernel would have warned about."""
        self.faults.append((rule, text))

    def state(self) -> tuple[Any, ...]:
        """All that decides what comes next, as a hashable value; orders that a caller can see are kept."""
        return (
            tuple([zone.state() for zone in self.zones]),
            tuple([lists.state() for lists in self.page_lists]),
            frozenset([item for item in self.content.items() if item[1]]),
            frozenset([folio.state() for folio in self.folios.values()]),
            tuple([tuple(listed) for listed in self.lru.values()]),
            frozenset(self.page_cache.items()),
            frozenset(self.files.items()),
            tuple(self.faults),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        zones, page_lists, content, folios, lru, page_cache, files, faults = state
        for zone, kept in zip(self.zones, zones, strict=True):
            zone.restore(kept)
        for lists, kept in zip(self.page_lists, page_lists, strict=True):
            lists.restore(kept)
        self.content = dict(content)
        self.folios = {kept[0]: Folio.restored(kept) for kept in folios}
        for which, listed in zip(self.lru, lru, strict=True):
            self.lru[which] = dict.fromkeys(listed)
            self._lru_tails[which] = sum((1 << self.folios[pfn].order) - 1 for pfn in listed)
        self.page_cache = dict(page_cache)
        self.files = dict(files)
        self.faults = list(faults)

    def folio_of(self, pfn: int) -> Folio | None:
        """page_folio: the folio that the frame is in, also inside a huge page; None for a free frame."""
        folio = self.folios.get(pfn)
        if folio is None and self.hpage_order:
            folio = self.folios.get(pfn & -1 << self.hpage_order)
            if folio is not None and folio.order != self.hpage_order:
                return None
        return folio

    def _folio(self, pfn: int, what: str) -> Folio | None:
        folio = self.folio_of(pfn)
        if folio is None:
            self.fault(USED_FREE, f"{what} of frame {pfn}, which is free")
        return folio

    # --- allocation ----------------------------------------------------------------------------

    def _alloc(self, cpu: int, operation: ops.AllocPages) -> int:
        zone = self.zones[operation.node]
        if not zone.zone_watermark_ok(operation.order, operation.mark, operation.extra_free):
            return -1
        if self.page_lists:
            pfn = self.page_lists[operation.node].rmqueue(cpu, operation.order)
        else:
            pfn = zone.rmqueue(operation.order)
        if pfn is None:
            return -1
        folio = self.folios[pfn] = Folio(pfn, operation.order, operation.node)
        folio.tag = zone.tag_of_taken
        return pfn

    def _zone_paid(self, cpu: int, operation: ops.ZonePaid) -> None:
        self.zones[operation.node].paid = operation.tag

    def _set_tag(self, cpu: int, operation: ops.FolioSetTag) -> None:
        folio = self._folio(operation.pfn, "set_page_private")
        if folio is not None:
            folio.tag = operation.tag

    def _take_tag(self, cpu: int, operation: ops.FolioTakeTag) -> int:
        folio = self._folio(operation.pfn, "page_private")
        if folio is None:
            return 0
        tag, folio.tag = folio.tag, 0
        return tag

    def _drain_pages(self, cpu: int, operation: ops.DrainPages) -> None:
        if self.page_lists:
            self.page_lists[operation.node].drain()

    def _nr_free(self, cpu: int, operation: ops.NrFree) -> int:
        return self.zones[operation.node].nr_free

    def _get(self, cpu: int, operation: ops.FolioGet) -> None:
        if operation.pfn == ZERO_PFN:
            return
        folio = self._folio(operation.pfn, "folio_get")
        if folio is not None:
            folio.refcount += 1

    def _try_get(self, cpu: int, operation: ops.FolioTryGet) -> bool:
        folio = self.folio_of(operation.pfn)
        if folio is None:
            return operation.pfn == ZERO_PFN
        folio.refcount += 1
        return True

    def _try_pin(self, cpu: int, operation: ops.FolioTryPin) -> bool:
        folio = self.folio_of(operation.pfn)
        if folio is None:
            return operation.pfn == ZERO_PFN
        folio.refcount += 1
        folio.pincount += 1
        return True

    def _unpin(self, cpu: int, operation: ops.FolioUnpin) -> bool:
        if operation.pfn == ZERO_PFN:
            return False
        folio = self._folio(operation.pfn, "unpin_user_page")
        if folio is None:
            return False
        if not folio.pincount:
            self.fault(UNPINNED, f"frame {operation.pfn} is unpinned more often than it was pinned")
            return False
        folio.pincount -= 1
        return self._drop(cpu, folio)

    def _maybe_dma_pinned(self, cpu: int, operation: ops.FolioMaybeDmaPinned) -> bool:
        folio = self.folio_of(operation.pfn)
        return folio is not None and folio.pincount > 0

    def _put(self, cpu: int, operation: ops.FolioPut | ops.FolioPutTestzero) -> bool:
        folio = None if operation.pfn == ZERO_PFN else self._folio(operation.pfn, "folio_put")
        return folio is not None and self._drop(cpu, folio)

    def _drop(self, cpu: int, folio: Folio) -> bool:
        """Drop a reference; whether it was the last and the folio has gone back to the allocator."""
        folio.refcount -= 1
        if folio.refcount:
            return False
        if folio.rmap:
            mm, vpn = next(iter(folio.rmap))
            self.fault(FREED_MAPPED, f"frame {folio.pfn} freed, but mm {mm} page {vpn:#x} maps it")
        if folio.mapping is not None:
            self.fault(FREED_CACHED, f"frame {folio.pfn} freed, but still {folio.mapping}")
        if folio.lru is not None:
            self.lruvec_del_folio(folio)
        del self.folios[folio.pfn]
        if self.page_lists:
            self.page_lists[folio.node].free_one_page(cpu, folio.pfn, folio.order, folio.tag)
        else:
            self.zones[folio.node].free_one_page(folio.pfn, folio.order, folio.tag & -1 << TAG_BITS)
        return True

    def _refcount(self, cpu: int, operation: ops.FolioRefcount) -> int:
        folio = self.folio_of(operation.pfn)
        return folio.refcount if folio is not None else 0

    # --- flags, reverse map, content --------------------------------------------------------------

    def _test_flag(self, cpu: int, operation: ops.FolioTestFlag) -> bool:
        folio = self.folio_of(operation.pfn)
        return folio is not None and folio.flags & operation.flag != 0

    def _set_flag(self, cpu: int, operation: ops.FolioSetFlag) -> None:
        folio = self._folio(operation.pfn, "set_bit")
        if folio is not None:
            folio.flags |= operation.flag

    def _clear_flag(self, cpu: int, operation: ops.FolioClearFlag) -> None:
        folio = self._folio(operation.pfn, "clear_bit")
        if folio is not None:
            folio.flags &= ~operation.flag

    def _xchg_access_time(self, cpu: int, operation: ops.FolioXchgAccessTime) -> int:
        before = 0
        for pfn in reversed(operation.pfns):
            folio = self.folios.get(pfn)
            if folio is not None:
                before, folio.access_time = folio.access_time, operation.time
        return before

    def _order(self, cpu: int, operation: ops.FolioOrder) -> int:
        folio = self.folio_of(operation.pfn)
        return folio.order if folio is not None else 0

    def _rmap(self, cpu: int, operation: ops.FolioRmap) -> tuple[tuple[int, int], ...]:
        folio = self.folio_of(operation.pfn)
        return tuple(folio.rmap) if folio is not None else ()

    def _copy(self, cpu: int, operation: ops.FolioCopy) -> None:
        folios = self._folio(operation.src, "folio_copy"), self._folio(operation.dst, "folio_copy")
        pages = 1 << min(folio.order if folio is not None else 0 for folio in folios)
        for page in range(pages):
            self.content[operation.dst + page] = self.content.get(operation.src + page, 0)

    def _identical(self, cpu: int, operation: ops.PagesIdentical) -> bool:
        return self.content.get(operation.src, 0) == self.content.get(operation.dst, 0)

    def _zero(self, cpu: int, operation: ops.FolioZero) -> None:
        folio = self._folio(operation.pfn, "clear_highpage")
        for page in range(1 << folio.order if folio is not None else 1):
            self.content[operation.pfn + page] = 0

    # --- page cache ---------------------------------------------------------------------------------

    def _filemap_get(self, cpu: int, operation: ops.FilemapGet) -> int:
        pfn = self.page_cache.get((operation.file, operation.pgoff), -1)
        if pfn >= 0:
            self.folios[pfn].refcount += 1
        return pfn

    def _filemap_add(self, cpu: int, operation: ops.FilemapAdd) -> int:
        slot = (operation.file, operation.pgoff)
        present = self.page_cache.get(slot, -1)
        if present >= 0:
            self.folios[present].refcount += 1
            return present
        folio = self._folio(operation.pfn, "filemap_add_folio")
        if folio is not None:
            folio.mapping = slot
            folio.refcount += 1
            self.page_cache[slot] = operation.pfn
            if slot in self.files:
                self.content[operation.pfn] = self.files[slot]
        return -1

    def _filemap_remove(self, cpu: int, operation: ops.FilemapRemove) -> bool:
        slot = (operation.file, operation.pgoff)
        folio = self.folio_of(operation.pfn)
        if folio is None or folio.mapping != slot:
            return False
        if operation.refs > 0 and (folio.refcount != operation.refs or folio.flags & PG_DIRTY):
            return False
        folio.mapping = None
        del self.page_cache[slot]
        if operation.refs <= 0:
            folio.flags &= ~PG_DIRTY
        if operation.refs == 0:
            self.files.pop(slot, None)
        self._drop(cpu, folio)
        return True

    def _remove_block(self, cpu: int, operation: ops.RemoveBlock) -> None:
        self.files.pop((operation.file, operation.pgoff), None)

    def _mapping(self, cpu: int, operation: ops.FolioMapping) -> tuple[int, ...]:
        folio = self.folio_of(operation.pfn)
        return folio.mapping or () if folio is not None else ()

    def _write_page(self, cpu: int, operation: ops.WritePage) -> None:
        self.files[operation.file, operation.pgoff] = self.content.get(operation.pfn, 0)

    def _migrate_mapping(self, cpu: int, operation: ops.FolioMigrateMapping) -> bool:
        src = self._folio(operation.src, "folio_migrate_mapping")
        dst = self._folio(operation.dst, "folio_migrate_mapping")
        if src is None or dst is None:
            return False
        if src.refcount != 1 + (src.mapping is not None) + operation.extra or src.mapcount():
            return False
        dst.flags |= src.flags & (PG_DIRTY | PG_REFERENCED | PG_LAZYFREE | PG_KSM)
        if src.mapping is not None:
            self.page_cache[src.mapping] = dst.pfn
            dst.mapping, src.mapping = src.mapping, None
            dst.refcount += 1
            src.refcount -= 1
        return True

    def split(self, folio: Folio) -> None:
        """Make folios of order 0 of its pages, each with its references and on no list, as it has to be."""
        for pfn in range(folio.pfn + 1, folio.pfn + (1 << folio.order)):
            tail = self.folios[pfn] = Folio(pfn, 0, folio.node)
            tail.refcount = folio.refcount
            tail.flags = folio.flags & (PG_DIRTY | PG_REFERENCED | PG_LAZYFREE)
        folio.order = 0

    # --- LRU lists: the oldest page first ------------------------------------------------------------

    def lruvec_add_folio(self, folio: Folio, active: bool) -> None:
        """Put it at the young end of its node's list."""
        folio.lru = active
        folio.lru_file = folio.is_file_lru()
        listed = folio.node, active, folio.lru_file
        self.lru[listed][folio.pfn] = None
        if folio.order:
            self._lru_tails[listed] += (1 << folio.order) - 1

    def lruvec_del_folio(self, folio: Folio) -> None:
        """Take it off the list that it is on."""
        listed = folio.node, folio.lru is True, folio.lru_file
        folio.lru, folio.lru_file = None, False
        del self.lru[listed][folio.pfn]
        if folio.order:
            self._lru_tails[listed] -= (1 << folio.order) - 1

    def _lru_add(self, cpu: int, operation: ops.LruAdd) -> None:
        folio = self._folio(operation.pfn, "folio_add_lru")
        if folio is not None and folio.lru is None:
            self.lruvec_add_folio(folio, operation.active)

    def _isolate_lru(self, cpu: int, operation: ops.IsolateLru) -> tuple[int, ...]:
        listed = self.lru[operation.node, operation.active, operation.file]
        taken: list[int] = []
        pages = 0
        for pfn in listed:
            if pages >= operation.nr:
                break
            taken.append(pfn)
            pages += 1 << self.folios[pfn].order
        for pfn in taken:
            folio = self.folios[pfn]
            self.lruvec_del_folio(folio)
            folio.refcount += 1
        return tuple(taken)

    def _folio_isolate_lru(self, cpu: int, operation: ops.FolioIsolateLru) -> bool:
        folio = self.folio_of(operation.pfn)
        if folio is None or folio.lru is None:
            return False
        self.lruvec_del_folio(folio)
        folio.refcount += 1
        return True

    def _putback_lru(self, cpu: int, operation: ops.FolioPutbackLru) -> bool:
        folio = self._folio(operation.pfn, "folio_putback_lru")
        if folio is None:
            return False
        if folio.lru is None:
            self.lruvec_add_folio(folio, operation.active)
        return self._drop(cpu, folio)

    def _nr_lru(self, cpu: int, operation: ops.NrLru) -> tuple[int, int]:
        lists = (operation.node, True, operation.file), (operation.node, False, operation.file)
        active, inactive = (len(self.lru[one]) + self._lru_tails[one] for one in lists)
        return active, inactive
