"""Taking pages away from a file (mm/truncate.c, v6.6): unmap wherever they are mapped, then out of the cache.

The slot may be filled again as soon as it is empty, so by then nobody may read the old page any more. Most is
unmapped by range, with one flush for each mapping; what faults have mapped again since goes folio by folio.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicXchg,
    FilemapGet,
    FilemapRemove,
    FolioPut,
    FolioSetFlag,
    GetPte,
    Lock,
    RemoveBlock,
    Series,
    Unlock,
    WaitPte,
    WriteFrame,
)
from emulator.hardware.pte import is_migration_entry, pte_pfn, ptl
from emulator.kernel.filemap import filemap_get_folio, filemap_put_folio
from emulator.kernel.mmu_gather import (
    ZapDetails,
    tlb_finish_mmu,
    tlb_gather_mmu,
    zap_page_range_single,
    zap_present_ptes,
)
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.percpu import INIT_MM, PerCpu, folio_lock, i_size_word, inode_lock, invalidate_lock
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.memory.folios import PG_DIRTY
from emulator.memory.page_table import VM_SHARED, Vma

# address_space->i_mmap: where files are mapped, as (mm, page that the file's first page is or would be at).
Mappings = tuple[tuple[int, int], ...]

# For FilemapRemove: what is stored goes later.
_KEEP_BLOCK = -1


async def truncate_pagecache(
    cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int, cut: bool = False
) -> int:
    """truncate_pagecache: the file ends at page `start`, where it had `end`; how many pages the cache had.

    Private copies go as well, and those made meanwhile, too: hence twice. The size is the caller's matter.
    A last page that is `cut` stays mapped.
    """
    await unmap_mapping_range(cpu, file, i_mmap, start, end, True)
    gone = await truncate_inode_pages(cpu, file, i_mmap, start, end, cut)
    await unmap_mapping_range(cpu, file, i_mmap, start, end, True)
    return gone


async def do_truncate(cpu: PerCpu, file: int, i_mmap: Mappings, size: int, cut: bool = False) -> int:
    """do_truncate (fs/open.c): ftruncate, with the inode's lock held; how many pages the cache had.

    The file has `size` pages from now on. `cut`: it ends inside the last of them, and a content version
    stands for what is behind its end.
    """
    await Lock(inode_lock(file))
    shorten = ext4_setattr if file > 0 else truncate_setsize
    gone = await shorten(cpu, file, i_mmap, size, cut)
    await Unlock(inode_lock(file))
    return gone


async def truncate_setsize(cpu: PerCpu, file: int, i_mmap: Mappings, size: int, cut: bool = False) -> int:
    """truncate_setsize: the file has `size` pages from now on; how many of those behind it the cache had.

    The size comes first: a fault that finds a page from then on looks at it again, with the folio locked, and
    truncation, which locks the folio as well, comes before that or finds the mapping.
    """
    before = await i_size_write(file, size)
    if size > before or (size == before and not cut):
        return 0
    gone = await truncate_pagecache(cpu, file, i_mmap, size, before, cut)
    await ext4_ext_remove_space(file, size, before)
    return gone


async def ext4_setattr(cpu: PerCpu, file: int, i_mmap: Mappings, size: int, cut: bool = False) -> int:
    """ext4_setattr of a size (fs/ext4/inode.c): truncate_setsize, and nobody reads a page in meanwhile.

    Such a page would be in the cache behind the end, with what was stored there, for a file that grows to
    show again. tmpfs has nothing to read in, and no lock (shmem_setattr).
    """
    await Lock(invalidate_lock(file))
    gone = await truncate_setsize(cpu, file, i_mmap, size, cut)
    if cut:
        await ext4_block_truncate_page(cpu, file, size - 1)
    await Unlock(invalidate_lock(file))
    return gone


async def ext4_block_truncate_page(cpu: PerCpu, file: int, pgoff: int) -> None:
    """ext4_block_truncate_page: zeroes behind the end of the file, in the cache and to be written out,
    whether the page was cached or not."""
    pfn = await filemap_get_folio(cpu, file, pgoff, True)
    await WriteFrame(INIT_MM, pgoff, pfn, 0)
    await FolioSetFlag(pfn, PG_DIRTY)
    await filemap_put_folio(file, pgoff, pfn)


async def truncate_inode_partial_folio(cpu: PerCpu, file: int, pgoff: int) -> None:
    """truncate_inode_partial_folio of a page that is cut: zeroes behind the end (folio_zero_segments; since
    v6.8 folio_zero_range), if it is cached. It stays mapped, so nothing is flushed."""
    pfn = await filemap_get_folio(cpu, file, pgoff, False)
    if pfn < 0:
        return
    await WriteFrame(INIT_MM, pgoff, pfn, 0)
    if file < 0:
        # shmem_undo_range: nothing else says so.
        await FolioSetFlag(pfn, PG_DIRTY)
    await cpu.policy.page_cache_changed(cpu, file)
    await filemap_put_folio(file, pgoff, pfn)


async def i_size_write(file: int, size: int) -> int:
    """i_size_write, in pages; the size that it was. Whoever writes it holds the inode's lock."""
    return await AtomicXchg(i_size_word(file), size)


async def truncate_pagecache_range(cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int) -> int:
    """truncate_pagecache_range: punch a hole of pages [start, end); how many it had. Copies stay."""
    await unmap_mapping_range(cpu, file, i_mmap, start, end, False)
    return await truncate_inode_pages(cpu, file, i_mmap, start, end)


async def ext4_punch_hole(cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int) -> int:
    """ext4_punch_hole (fs/ext4/inode.c), or that of tmpfs (shmem_fallocate), for MADV_REMOVE as well; and the
    end of vfs_fallocate."""
    if cpu.parameters.punch_hole_writes and file > 0:
        await filemap_write_and_wait_range(cpu, file, start, end)
    if cpu.parameters.file_sizes:
        # Else a fault reads a page in again between the two.
        await Lock(invalidate_lock(file))
        gone = await truncate_pagecache_range(cpu, file, i_mmap, start, end)
        await ext4_ext_remove_space(file, start, end)
        await Unlock(invalidate_lock(file))
    else:
        gone = await truncate_pagecache_range(cpu, file, i_mmap, start, end)
    await cpu.policy.file_written(cpu, file)
    return gone


async def ext4_ext_remove_space(file: int, start: int, end: int) -> None:
    """ext4_ext_remove_space: what is stored of pages [start, end) is no more."""
    for pgoff in range(start, end):
        await RemoveBlock(file, pgoff)


async def unmap_mapping_range(
    cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int, even_cows: bool
) -> None:
    """unmap_mapping_range (mm/memory.c): clear pages [start, end) of the file, a gather a mapping."""
    for mm, first in i_mmap if start < end else ():
        vma = Vma(first + start, first + end, VM_SHARED, file, start)
        await zap_page_range_single(cpu, mm, vma, vma.start, vma.end, ZapDetails(file, first, even_cows))


async def truncate_inode_pages(
    cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int, cut: bool = False
) -> int:
    """truncate_inode_pages_range: pages [start, end) of the file are no more; how many the cache had.

    `cut`: the page before them ends where the file does.
    """
    if cut:
        await truncate_inode_partial_folio(cpu, file, start - 1)
    gone = 0
    for pgoff in range(start, end):
        while True:
            pfn = await FilemapGet(file, pgoff)
            if pfn < 0:
                break
            if await truncate_inode_folio(cpu, file, i_mmap, pgoff, pfn):
                gone += 1
                break
    await cpu.policy.page_cache_changed(cpu, file)
    return gone


async def truncate_inode_folio(cpu: PerCpu, file: int, i_mmap: Mappings, pgoff: int, pfn: int) -> bool:
    """truncate_inode_folio: false if the folio has been moved meanwhile. Drops the caller's reference."""
    lock = folio_lock(file, pgoff)
    await Lock(lock)
    # Mapped or not: where the kernel would have waited for a migration to give up the folio's lock, that is
    # found by its entries.
    for mm, first in i_mmap:
        await unmap_mapping_folio(cpu, file, mm, first + pgoff, pfn)
    removed = await FilemapRemove(file, pgoff, pfn, _KEEP_BLOCK if cpu.parameters.file_sizes else 0)
    await cpu.policy.page_cache_changed(cpu, file)
    await Unlock(lock)
    await FolioPut(pfn)
    return removed


async def unmap_mapping_folio(cpu: PerCpu, file: int, mm: int, vpn: int, pfn: int) -> None:
    """unmap_mapping_folio, zap_page_range_single: clear one mapping of the folio, if it is one, and flush.

    A migration holds the folio's lock from before it unmaps until everything is mapped again, so truncation
    comes before or after it.
    """
    tlb = await tlb_gather_mmu(mm)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_start(cpu, mm, vpn, vpn + 1)
    lock = ptl(mm, vpn)
    while True:
        _, entry = await Series((Lock(lock), GetPte(mm, vpn)))
        await flush_tlb_batched_pending(cpu, mm)
        if not is_migration_entry(entry):
            break
        await Unlock(lock)
        await WaitPte(mm, vpn, entry)
    if entry and pte_pfn(entry) == pfn:
        await zap_present_ptes(cpu, tlb, Vma(vpn, vpn + 1, VM_SHARED, file), [vpn])
    await Unlock(lock)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_end(cpu, mm, vpn, vpn + 1)
    await tlb_finish_mmu(cpu, tlb)
