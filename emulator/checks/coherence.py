"""Coherence: what an access through a translation finds is what the page's mapping would find.

Every access that reaches memory names the frame that its translation led to. If the page table
names another frame by now, the access went through a stale translation: legal only while what the
old frame holds is what was copied, once or on and on, into the new one, and never for a write. A frame
may have been copied to several others (a migration and a child's copy-on-write, two children), so the
question is always put from the destination, which has one source.
"""

from __future__ import annotations

from typing import Any

from emulator.checks.onlooker import APART, Check, Meeting, Observer
from emulator.checks.violation import MAX_KEPT, Violation, not_kept
from emulator.hardware import operations as ops
from emulator.hardware.operations import Operation, handlers_of
from emulator.hardware.operations.places import ANY, Key
from emulator.hardware.pte import (
    ZERO_PFN,
    frame_of,
    is_migration_entry,
    pte_dirty,
    pte_pages,
    pte_pfn,
    pte_present,
)
from emulator.memory.folios import PG_DIRTY
from emulator.memory.memory import Memory

OVERWRITTEN = "read of an overwritten version"
FOREIGN = "read of a frame that is not the page's"
FREE = "access to a free frame"
LOST_WRITE = "write into a retired source frame"
FILL = "translation filled from a free frame"
CONTENT = "mapped without the page's content"
CACHE = "read of a version that the file page does not have"
SPLIT = "page cache left behind by a migration"
DROPPED = "a write is dropped with its page"

# What it keeps, as keys of `meets`: which frame got what it holds from where, as one whole; files' versions.
_ORIGINS: Key = ("origins",)
_VERSIONS: Key = ("file versions",)


class Coherence(Check):
    """Watches the operations of all CPUs in the order in which memory performs them.

    `free_copies`: the policy frees a source before the flush and flushes before the frame is used again
    (`Policy.frees_before_flush`). Then a read copy stays one until something is put into its frame, and what
    reclaim has taken from a file is one of the file's page.
    """

    def __init__(self, memory: Memory, free_copies: bool = False) -> None:
        super().__init__()
        self.memory = memory
        self._hpage_order = memory.page_tables.hpage_order
        self._free_copies = free_copies
        self.found = 0
        self.checked = 0
        self._origins: dict[int, frozenset[int]] = {}  # frame -> the frames that still hold what it got
        self._copies: dict[int, set[int]] = {}  # the reverse: frame -> the frames that got what it holds
        self._movers: dict[int, int] = {}  # frame that a migration unmaps -> the CPU that does
        self._moved: dict[int, int] = {}  # the same, once copied -> its destination
        self._written: set[int] = set()  # frames written since something was copied into them
        # (file, pgoff) -> version last written, or found at the start
        cached = {slot: memory.folios.content.get(pfn, 0) for slot, pfn in memory.folios.page_cache.items()}
        found = memory.folios.files | cached
        self._file_versions = {slot: version for slot, version in found.items() if version}
        # Slots whose page was written since it was written out, whoever may know of it.
        self._unwritten = {
            folio.mapping
            for folio in memory.folios.folios.values()
            if folio.mapping and (folio.flags & PG_DIRTY or any(map(pte_dirty, folio.rmap.values())))
        }
        self._evicted: dict[int, tuple[int, int]] = {}  # frame reclaimed from the cache -> where it was
        self._cleared: dict[tuple[int, int], int] = {}  # (mm, vpn) -> frame named before it was cleared
        self._handlers = handlers_of(self)

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """Judge one performed operation."""
        handler = self._handlers.get(type(operation))
        if handler is not None:
            handler(cpu, operation, answer)

    def observer(self, kind: type[Any]) -> Observer | None:
        """It has a method for each class that it looks at."""
        return self._handlers.get(kind)

    def walked(self, times: int) -> None:
        """There is nothing to report of them."""
        self.checked += times

    def meets(self, cpu: int, operation: Any, answer: Any) -> Meeting:
        """An access looks at the mapping of its page, at the frames' contents and where these came from."""
        kind = type(operation)
        if kind not in self._handlers:
            return APART
        if kind is ops.Walk or kind is ops.WalkPte or kind is ops.WalkSpte:
            frame = frame_of(answer, operation.vpn, self._hpage_order) if answer else 0
            return Meeting((("free", frame),)) if answer else APART
        if kind is ops.ReadFrame or kind is ops.WriteFrame:
            pfn, where = operation.pfn, ("mapping", operation.mm, operation.vpn)
            looks = (where, _ORIGINS, *((of, pfn) for of in ("free", "moved", "cached")))
            if kind is ops.ReadFrame:
                return Meeting((*looks, ("frame", ANY), _VERSIONS))
            return Meeting(looks, (("frame", pfn), _VERSIONS))
        if kind is ops.AllocPages:
            if answer < 0:
                return APART
            frames = range(answer, answer + (1 << operation.order))
            return Meeting((), (_ORIGINS, *((of, pfn) for pfn in frames for of in ("moved", "cached"))))
        if kind is ops.FolioZero:
            return Meeting((("free", operation.pfn),), (_ORIGINS, ("moved", operation.pfn)))
        if kind is ops.FolioCopy:
            return Meeting((), (_ORIGINS, ("moved", operation.src), ("moved", operation.dst)))
        if kind is ops.TryToMigratePte:
            return Meeting((), (("moved", operation.pfn),)) if answer else APART
        if kind is ops.XchgPmd:
            return Meeting((_ORIGINS,))
        if kind in (ops.XchgPte, ops.ZapPte, ops.SetPte, ops.CmpxchgPte, ops.XchgPteIn):
            new = operation.new if kind is ops.CmpxchgPte else operation.pte
            looks = (_ORIGINS,)
            if kind is ops.CmpxchgPte and is_migration_entry(operation.old):
                looks += tuple([(of, pte_pfn(operation.old)) for of in ("frame", "free", "cached")])
                looks += (("frame", pte_pfn(new)),)
            return Meeting(looks, (("moved", pte_pfn(new)),) if pte_present(new) else ())
        if kind is ops.WritePage:
            return Meeting((), (_VERSIONS,))
        if kind is ops.RemoveBlock:
            return Meeting((), (_VERSIONS,))
        if kind is ops.FilemapAdd or kind is ops.FilemapRemove:
            return Meeting((("cached", ANY),), (_ORIGINS, _VERSIONS))
        raise NotImplementedError(f"what {kind.__name__} meets in Coherence")

    def results(self) -> dict[str, Any]:
        """Figures for the report."""
        return {"checked_operations": self.checked}

    def state(self) -> tuple[Any, ...]:
        """All that later judgements depend on, as a hashable value."""
        return (
            frozenset(self._origins.items()),
            frozenset(self._movers.items()),
            frozenset(self._moved.items()),
            frozenset(self._written),
            frozenset(self._file_versions.items()),
            frozenset(self._cleared.items()),
            frozenset(self._evicted.items()),
            frozenset(self._unwritten),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        origins, movers, moved, written, file_versions, cleared, evicted, unwritten = state
        self._origins, self._copies = {}, {}
        for dst, sources in origins:
            self._derive(dst, sources)
        self._movers = dict(movers)
        self._moved = dict(moved)
        self._written = set(written)
        self._file_versions = dict(file_versions)
        self._cleared = dict(cleared)
        self._evicted = dict(evicted)
        self._unwritten = set(unwritten)

    def finish(self) -> None:
        """Say how many violations are not listed; nothing else is left to judge at the end."""
        self.violations += not_kept(len(self.violations), self.found)

    def _report(self, rule: str, cpu: int, text: str) -> None:
        self.found += 1
        if len(self.violations) < MAX_KEPT:
            self.violations.append(Violation(rule=rule, cpu=cpu, text=text))

    def _allocated_frame(self, pfn: int) -> bool:
        return not self.memory.folios.is_free(pfn)

    def _walk(self, cpu: int, operation: ops.Walk | ops.WalkPte | ops.WalkSpte, answer: int) -> None:
        if answer:
            self.checked += 1
            pfn = frame_of(answer, operation.vpn, self._hpage_order)
            if not self._allocated_frame(pfn):
                where = f"page {operation.vpn:#x} of mm {operation.mm}"
                self._report(FILL, cpu, f"{where} names frame {pfn}, which is free")

    def _read(self, cpu: int, operation: ops.ReadFrame, answer: int) -> None:
        self.checked += 1
        stale = self._stale(cpu, operation, "read")
        if stale is None:
            self._expect_file_version(cpu, operation, answer)
            return
        named, text = stale
        current = self.memory.folios.content.get(named, 0)
        if not self._is_copy(operation.pfn, named):
            self._report(FOREIGN, cpu, text)
        elif answer != current:
            self._report(OVERWRITTEN, cpu, f"{text}: version {answer}, by now {current}")

    def _write(self, cpu: int, operation: ops.WriteFrame, answer: None) -> None:
        self.checked += 1
        self._written.add(operation.pfn)
        stale = self._stale(cpu, operation, "write")
        if stale is not None:
            self._report(LOST_WRITE, cpu, stale[1])
            return
        folio = self.memory.folios.folios.get(operation.pfn)
        # A write to what has just left the cache is one to the file: whoever reads the page anew misses it.
        slot = folio.mapping if folio is not None else None
        slot = slot or self._evicted.get(operation.pfn)
        if slot is not None:
            self._file_versions[slot] = operation.value
            self._unwritten.add(slot)

    def _expect_file_version(self, cpu: int, access: ops.ReadFrame, answer: int) -> None:
        folio = self.memory.folios.folios.get(access.pfn)
        slot = folio.mapping if folio is not None else None
        if folio is None and self._free_copies:
            # What reclaim has taken is a read copy of what the file has, until somebody writes to that.
            slot = self._evicted.get(access.pfn)
        if slot is None:
            return
        should = self._file_versions.get(slot, 0)
        if answer != should:
            file, pgoff = slot
            text = f"page {pgoff} of file {file} in frame {access.pfn} has version {answer}, not {should}"
            self._report(CACHE, cpu, text)

    def _stale(self, cpu: int, access: ops.ReadFrame | ops.WriteFrame, what: str) -> tuple[int, str] | None:
        """The frame that the page table names instead, and the words for it; None if all is well."""
        pfn = access.pfn
        where = (access.mm, access.vpn)
        text = f"{what} of page {access.vpn:#x} of mm {access.mm} reached frame {pfn}"
        entry = self.memory.page_tables.entry(*where)
        in_use = pte_present(entry) or is_migration_entry(entry)
        # Cleared, and its flush may still be under way: what was named last is still the page's.
        named = frame_of(entry, access.vpn, self._hpage_order) if in_use else self._cleared.get(where, pfn)
        if not self._allocated_frame(pfn):
            # Freed before its flush: a read copy, also of a page whose migration entry has been zapped since.
            left = pfn in self._moved or pfn in self._evicted
            copied = left if named == pfn else self._is_copy(pfn, named)
            if not (self._free_copies and what == "read" and copied):
                self._report(FREE, cpu, f"{text}, which is free")
                return None
        if named != pfn:
            names = f"names frame {named}" if in_use else f"now empty, last named frame {named}"
            return named, f"{text}, but its entry{'' if in_use else ','} {names}"
        if is_migration_entry(entry) and pfn in self._moved and what == "write":
            return pfn, f"{text}, whose content has already been copied to frame {self._moved[pfn]}"
        return None

    def _is_copy(self, src: int, named: int) -> bool:
        """Whether what `named` got was in `src` and, unless `named` was written since, still is."""
        seen = {named}
        ahead = [named]
        while ahead:
            found = self._origins.get(ahead.pop(), frozenset()) - seen
            if src in found:
                return True
            seen |= found
            ahead += found
        return False

    # --- what changes the picture --------------------------------------------------------------------

    def _pages(self, pfn: int) -> int:
        folio = self.memory.folios.folios.get(pfn)
        return 1 << folio.order if folio is not None else 1

    def _derive(self, dst: int, sources: frozenset[int]) -> None:
        """What `dst` got is held by these frames."""
        self._origins[dst] = sources
        for source in sources:
            self._copies.setdefault(source, set()).add(dst)

    def _renewed(self, pfn: int, still_there: bool = False) -> None:
        """The frame gets something else. What was copied on from it is still what its own sources hold."""
        sources = self._origins.pop(pfn, frozenset())
        for source in sources:
            self._copies[source].discard(pfn)
        for dst in self._copies.get(pfn, ()) if still_there else self._copies.pop(pfn, ()):
            origins = self._origins[dst]
            self._derive(dst, (origins if still_there else origins - {pfn}) | sources)
        self._movers.pop(pfn, None)
        self._moved.pop(pfn, None)

    def _zeroed(self, cpu: int, operation: ops.FolioZero, answer: None) -> None:
        for page in range(self._pages(operation.pfn)):
            self._renewed(operation.pfn + page)
            self._evicted.pop(operation.pfn + page, None)

    def _copied(self, cpu: int, operation: ops.FolioCopy, answer: None) -> None:
        for page in range(min(self._pages(operation.src), self._pages(operation.dst))):
            src, dst = operation.src + page, operation.dst + page
            self._renewed(dst)
            self._evicted.pop(dst, None)
            self._derive(dst, frozenset((src,)))
            self._written.discard(dst)
            # Anybody may copy for a write meanwhile. That takes nothing over.
            if self._movers.get(src) == cpu:
                self._moved[src] = dst

    def _allocated(self, cpu: int, operation: ops.AllocPages, answer: int) -> None:
        if answer < 0:
            return
        for page in range(1 << operation.order):
            self._renewed(answer + page, self._free_copies)
            if not self._free_copies:
                self._evicted.pop(answer + page, None)

    def _uncached(self, cpu: int, operation: ops.FilemapRemove, answer: bool) -> None:
        slot = (operation.file, operation.pgoff)
        if answer and operation.refs > 0:
            if slot in self._unwritten:
                where = f"page {operation.pgoff} of file {operation.file} leaves frame {operation.pfn}"
                version = self._file_versions.get(slot, 0)
                self._report(DROPPED, cpu, f"{where} with version {version}, which was not written out")
            self._evicted[operation.pfn] = slot
        elif answer and operation.refs:
            # What was not written out is lost by intent; what is stored stays for now.
            self._keep_version(slot, self.memory.folios.files.get(slot, 0))
        elif answer:
            self._file_versions.pop(slot, None)
        if answer:
            self._unwritten.discard(slot)

    def _keep_version(self, slot: tuple[int, int], version: int) -> None:
        if version:
            self._file_versions[slot] = version
        else:
            self._file_versions.pop(slot, None)

    def _block_removed(self, cpu: int, operation: ops.RemoveBlock, answer: None) -> None:
        self._file_versions.pop((operation.file, operation.pgoff), None)

    def _written_out(self, cpu: int, operation: ops.WritePage, answer: None) -> None:
        self._unwritten.discard((operation.file, operation.pgoff))

    def _cached(self, cpu: int, operation: ops.FilemapAdd, answer: int) -> None:
        # What was reclaimed from the slot has the same content, until somebody writes to the new page.
        for old, slot in self._evicted.items():
            if answer < 0 and slot == (operation.file, operation.pgoff):
                self._derive(operation.pfn, self._origins.get(operation.pfn, frozenset()) | {old})

    def _unmapped(self, cpu: int, operation: ops.TryToMigratePte, answer: int) -> None:
        if answer:
            for page in range(pte_pages(answer, self._hpage_order)):
                self._movers[operation.pfn + page] = cpu
                self._moved.pop(operation.pfn + page, None)

    def _exchanged(self, cpu: int, operation: ops.XchgPte | ops.ZapPte | ops.XchgPteIn, answer: int) -> None:
        if not operation.pte and answer:
            self._gone(operation, answer)
        elif pte_present(operation.pte):
            self._back(operation, operation.pte)

    def _table_gone(self, cpu: int, operation: ops.XchgPmd, answer: int) -> None:
        """Its pages are no longer mapped there: as if every entry had been cleared."""
        for vpn, entry in self.memory.page_tables.held_in(answer, operation.vpn):
            if pte_present(entry):
                self._cleared[operation.mm, vpn] = pte_pfn(entry)

    def _gone(self, change: Any, entry: int) -> None:
        for page in range(pte_pages(entry, self._hpage_order)):
            self._cleared[change.mm, change.vpn + page] = frame_of(entry, page, self._hpage_order)

    def _back(self, change: Any, entry: int) -> None:
        """Something is mapped there again: what was cleared before is the past."""
        for page in range(pte_pages(entry, self._hpage_order)):
            self._cleared.pop((change.mm, change.vpn + page), None)

    def _set(self, cpu: int, operation: ops.SetPte, answer: None) -> None:
        # wp_page_copy: a copy takes the place of the entry that was cleared.
        last = self._cleared.get((operation.mm, operation.vpn))
        if last is not None and pte_present(operation.pte):
            self._expect_copy(cpu, operation.mm, operation.vpn, last, pte_pfn(operation.pte))
            self._back(operation, operation.pte)
        self._mapped(operation.pte)

    def _compared(self, cpu: int, operation: ops.CmpxchgPte, answer: int) -> None:
        if answer == operation.old:
            if is_migration_entry(answer) and pte_present(operation.new):
                for page in range(pte_pages(answer, self._hpage_order)):
                    self._remapped(cpu, operation, pte_pfn(answer) + page, pte_pfn(operation.new) + page)
            if answer and not operation.new:
                self._gone(operation, answer)
            elif not answer and pte_present(operation.new):
                self._back(operation, operation.new)
            self._mapped(operation.new)

    def _remapped(self, cpu: int, change: ops.CmpxchgPte, src: int, dst: int) -> None:
        """A migration entry is resolved: at the destination everything must have arrived."""
        if src == dst:
            return
        # Another mapping of the folio may be back already, and have been written through.
        # Or the page goes back to where it was copied from, whatever was written there before that.
        back = dst in self._origins.get(src, ())
        if back or (self._expect_copy(cpu, change.mm, change.vpn, src, dst) and dst not in self._written):
            content = self.memory.folios.content
            has, should = content.get(dst, 0), content.get(src, 0)
            if has != should:
                where = f"page {change.vpn:#x} of mm {change.mm} moved from frame {src} to {dst}"
                self._report(CONTENT, cpu, f"{where}, which has version {has}, not {should}")
        folio = self.memory.folios.folios.get(src)
        if folio is not None and folio.mapping is not None:
            file, pgoff = folio.mapping
            self._report(
                SPLIT, cpu, f"page {pgoff} of file {file} moved to frame {dst}, its cache still names {src}"
            )

    def _expect_copy(self, cpu: int, mm: int, vpn: int, src: int, dst: int) -> bool:
        # What was the zero page has been cleared, not copied; what becomes it has to be all zeroes.
        if src in (dst, ZERO_PFN) or src in self._origins.get(dst, ()):
            return True
        if dst == ZERO_PFN and not self.memory.folios.content.get(src, 0):
            return True
        text = f"page {vpn:#x} of mm {mm} moved from frame {src} to {dst}, but nothing was copied"
        self._report(CONTENT, cpu, text)
        return False

    def _mapped(self, entry: int) -> None:
        # A migration that failed after the copy maps its source again: nothing has been taken over from it.
        if pte_present(entry) and pte_pfn(entry) != ZERO_PFN:
            for page in range(pte_pages(entry, self._hpage_order)):
                self._movers.pop(pte_pfn(entry) + page, None)
                self._moved.pop(pte_pfn(entry) + page, None)
