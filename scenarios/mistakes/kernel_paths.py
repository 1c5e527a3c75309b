"""Mistakes in mainline's own flushes around unmapping and write-protecting: too late, or never."""

from __future__ import annotations

from emulator.hardware.operations import FolioRefcount, FolioRmap, FolioTestFlag, Load, Unlock
from emulator.hardware.pte import ACCESSED
from emulator.kernel.instead import instead_of
from emulator.kernel.mmap_lock import vma_start_write
from emulator.kernel.pageout import may_discard
from emulator.kernel.percpu import PF_KSWAPD, PerCpu, Task, TlbUbc, i_size_word
from emulator.kernel.tlb import flush_tlb_mm_range, flush_tlb_range
from emulator.kernel.truncate import (
    Mappings,
    i_size_write,
    truncate_inode_pages,
    truncate_pagecache,
    truncate_setsize,
    unmap_mapping_range,
)
from emulator.memory.folios import PG_DIRTY
from emulator.policies.immediate import Immediate


class ForkWithoutFlush(Immediate):
    """kernel/fork.c, dup_mmap: `flush_tlb_mm(oldmm)` at its end, here left out.

    Other threads of the parent go on writing, without a fault, to pages that the child maps by now.
    """

    name = "mistake:fork-without-flush"

    async def after_fork(self, cpu: PerCpu, mm: int) -> None:
        """Relies on the entries alone."""


class ForksOneFlush(Immediate):
    """The same, but at a task's first fork. It may have written since, so entries grant more again."""

    name = "mistake:forks-one-flush"

    async def after_fork(self, cpu: PerCpu, mm: int) -> None:
        """Has done so."""
        if not cpu.current.policy_state:
            cpu.current.policy_state = True
            await super().after_fork(cpu, mm)


class MremapFlushLate(Immediate):
    """mm/mremap.c, move_ptes: `flush_tlb_range` before the page-table locks are dropped, since eb66ae030829
    (v4.19; CVE-2018-18281). Here after, as it was.

    In between others find the page at its new address, and flush for that one only.
    """

    name = "mistake:mremap-flush-late"

    async def flush_moved(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Leaves it for later."""

    async def move_unlocked(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Is late."""
        await flush_tlb_range(cpu, mm, start, end)


class MremapFlushesOnePage(Immediate):
    """mm/mremap.c, move_ptes: `flush_tlb_range(vma, old_end - len, old_end)`. Here of its first page."""

    name = "mistake:mremap-flushes-one-page"

    async def flush_moved(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Takes a range for a page."""
        await flush_tlb_range(cpu, mm, start, start + 1)


class MunmapFlushesAllButOne(Immediate):
    """asm/tlb.h, tlb_flush: `flush_tlb_mm_range(tlb->mm, start, end, ...)`. Here without the last page."""

    name = "mistake:munmap-flushes-all-but-one"

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Takes the end for the last page."""
        await flush_tlb_mm_range(cpu, mm, start, max(end - 1, start + 1), freed_tables, stride)


class MprotectFlushesAllButOne(Immediate):
    """The same in tlb_end_vma, where entries grant less and their pages stay. Here without its last page."""

    name = "mistake:mprotect-flushes-all-but-one"

    async def flush_changed(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Takes the end for the last page."""
        await flush_tlb_mm_range(cpu, mm, start, max(end - 1, start + 1), freed_tables, stride)


class PageoutWithoutFlush(Immediate):
    """mm/vmscan.c, shrink_folio_list: `try_to_unmap_flush_dirty()` before `pageout`, here left out.

    The flush of the whole batch comes, but after the page has been written out: what a CPU wrote in between,
    through what it had cached, is lost.
    """

    name = "mistake:pageout-without-flush"

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """Leaves it to the batch."""


class KswapdWritesUnflushed(Immediate):
    """mm/vmscan.c, shrink_folio_list: try_to_unmap_flush_dirty before pageout, whoever reclaims.

    Here kswapd, which runs no user code, leaves it out.
    """

    name = "mistake:kswapd-writes-unflushed"

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """Relies on its own CPU having nothing cached."""
        if not cpu.current.flags & PF_KSWAPD:
            await super().flush_before_io(cpu)


class AsksForDirtFirst(Immediate):
    """mm/rmap.c, try_to_unmap_one: of a page of MADV_FREE the reference count, smp_rmb, the dirty flag.

    Here the other way round: who gives a reference back has made the page dirty, after the look at the flag.
    """

    name = "mistake:lazyfree-flag-first"

    @instead_of(may_discard)
    async def may_discard(self, pfn: int) -> bool:
        """Dirty, then alone."""
        dirty = await FolioTestFlag(pfn, PG_DIRTY)
        return await FolioRefcount(pfn) == len(await FolioRmap(pfn)) + 2 and not dirty


class NotYoungNotCached(Immediate):
    """mm/rmap.c, should_defer_flush and pte_accessible: an entry that is present may be cached.

    Here one whose accessed bit is clear is taken for one that nobody has cached. Clearing the bit flushes
    nothing.
    """

    name = "mistake:not-young-not-cached"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """Owes nothing for what has not been used."""
        return super().batch_for(task, pte) if pte & ACCESSED else TlbUbc()


class ProtectWithoutFlush(Immediate):
    """mm/pgtable-generic.c, ptep_clear_flush: `flush_tlb_page` where an entry loses rights or names another
    page, its page going on to be used. It is left out here, as are those of soft-dirty tracking and mremap.

    Pages are written out, compared or tracked while CPUs write to them without a fault.
    """

    name = "mistake:protect-without-flush"

    async def flush_changed(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Takes what entries grant for what CPUs do."""


class ZapWithoutFlush(Immediate):
    """mm/mmu_gather.c, tlb_flush_mmu: `tlb_flush_mmu_tlbonly`, then free the pages. Here they are just freed.

    Their frames, their range and their place in the file are used again while CPUs go on reading them.
    """

    name = "mistake:zap-without-flush"

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Takes cleared entries for unused ones."""


class RmapBeforeFlush(Immediate):
    """mm/memory.c, zap_pte_range before 5df397dec7c4: a dirty page of a file left the reverse map as
    soon as its entry was cleared, and was flushed for later.

    Whoever writes it out meanwhile finds that it is mapped nowhere, and a CPU that has the entry cached goes
    on writing after that.
    """

    name = "mistake:rmap-before-flush"
    delays_rmap = False


class CollectsAndFlushesOnePage(Immediate):
    """mm/migrate_device.c, migrate_vma_collect_pmd: flush_tlb_range from `start` to `end`. Here of a page."""

    name = "mistake:migrate-vma-flushes-one-page"

    async def flush_collected(self, cpu: PerCpu, mm: int, start: int, end: int, lock: str) -> None:
        """Takes a range for a page."""
        await super().flush_collected(cpu, mm, start, start + 1, lock)


class CollectsWithoutFlush(Immediate):
    """mm/migrate_device.c, migrate_vma_collect_pmd before 60bae7370896: it dropped the page-table
    lock, then flushed.

    Who comes between finds a migration entry, which asks for no flush, and believes that the page is gone.
    """

    name = "mistake:migrate-vma-flush-after-unlock"

    async def flush_collected(self, cpu: PerCpu, mm: int, start: int, end: int, lock: str) -> None:
        """The other way round."""
        await Unlock(lock)
        await flush_tlb_mm_range(cpu, mm, start, end)


class ZapFlushesTheLoadedMm(Immediate):
    """mm/mmu_gather.c, tlb_flush_mmu: `flush_tlb_mm_range(tlb->mm, ...)`. Here what the CPU itself runs."""

    name = "mistake:zap-flushes-the-loaded-mm"

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Takes the pages for its own."""
        await super().flush_zapped(cpu, cpu.tlbstate.loaded_mm, start, end, stride, freed_tables)


class AreasUnlocked(Immediate):
    """include/linux/mm.h, vma_start_write (v6.4): here nobody calls it.

    mmap_lock alone does not keep out faults that hold their area's lock only. (Before v6.4 nothing is wrong.)
    """

    name = "mistake:areas-unlocked"

    @instead_of(vma_start_write)
    async def leave_unlocked(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Relies on mmap_lock."""


class SizeAfterPages(Immediate):
    """mm/truncate.c, truncate_setsize: i_size_write, then truncate_pagecache. Here the other way round.

    A fault in between reads the page in again, and nobody takes it away.
    """

    name = "mistake:size-after-pages"

    @instead_of(truncate_setsize)
    async def shortens(self, cpu: PerCpu, file: int, i_mmap: Mappings, size: int, cut: bool = False) -> int:
        """Takes the pages away first."""
        before = await Load(i_size_word(file))
        gone = await truncate_pagecache(cpu, file, i_mmap, size, before, cut) if size < before else 0
        await i_size_write(file, size)
        return gone


class TruncateUnmapsOnce(Immediate):
    """mm/truncate.c, truncate_pagecache: unmap_mapping_range before and after. Here before only.

    A private copy that a fault makes meanwhile is in no page cache, so nothing else takes it away.
    """

    name = "mistake:truncate-unmaps-once"

    @instead_of(truncate_pagecache)
    async def unmaps(
        self, cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int, cut: bool = False
    ) -> int:
        """Once."""
        await unmap_mapping_range(cpu, file, i_mmap, start, end, True)
        return await truncate_inode_pages(cpu, file, i_mmap, start, end, cut)
