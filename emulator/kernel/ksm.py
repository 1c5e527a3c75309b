"""Merging anonymous pages of equal content (mm/ksm.c, v6.6): write-protect, compare, map one for all.

Nobody may write to a page between the look at it and the replacement, so each is flushed for twice: when it
loses its write permission, and when its entry names the other page.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    DownRead,
    FolioGet,
    FolioMapping,
    FolioPut,
    FolioRefcount,
    FolioRmap,
    FolioSetFlag,
    FolioTestFlag,
    GetPte,
    Load,
    Lock,
    PagesIdentical,
    Series,
    Unlock,
    UpRead,
    XchgPte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    PRESENT,
    RW,
    ZERO_PFN,
    mk_pte,
    pte_huge,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.kernel.memory import wp_page_copy
from emulator.kernel.mprotect import mmap_lock
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word
from emulator.kernel.pgtable_generic import MERGED, PROTECT, RESTORED, ptep_clear_flush, set_pte_at
from emulator.memory.folios import PG_KSM


async def try_to_merge_two_pages(cpu: PerCpu, mm: int, vpn: int, into: int) -> bool:
    """try_to_merge_two_pages: let page `vpn` share the frame of page `into`, which becomes the KSM page.

    False if they differ, are in use otherwise, or are none that KSM takes. Which are equal is not looked for
    (the stable and the unstable tree). ksmd write-protects `into` first (set_page_stable_node).
    """
    # mmap_read_lock; in the kernel once for each of the two.
    await DownRead(mmap_lock(mm))
    merged = False
    kpfn = await _get_mergeable_page(mm, into)
    if kpfn >= 0:
        protected = await write_protect_page(cpu, mm, into, kpfn)
        if cpu.parameters.ksm:
            # set_page_stable_node
            await FolioSetFlag(kpfn, PG_KSM)
        merged = bool(protected) and await _merge_one(cpu, mm, vpn, kpfn)
        await FolioPut(kpfn)
    await UpRead(mmap_lock(mm))
    cpu.count("ksm_pages_merged", merged)
    return merged


async def _merge_one(cpu: PerCpu, mm: int, vpn: int, kpfn: int) -> bool:
    """try_to_merge_one_page: the page is write-protected, and replaced if it is the same as the KSM page."""
    pfn = await _get_mergeable_page(mm, vpn)
    if pfn < 0:
        return False
    merged = False
    entry = await write_protect_page(cpu, mm, vpn, pfn) if pfn != kpfn else 0
    if entry and await PagesIdentical(pfn, kpfn):
        merged = await replace_page(cpu, mm, vpn, entry, kpfn)
    await FolioPut(pfn)
    return merged


async def _get_mergeable_page(mm: int, vpn: int) -> int:
    """get_mergeable_page: an anonymous page's frame with a reference, else -1."""
    lock = ptl(mm, vpn)
    _, entry = await Series((Lock(lock), GetPte(mm, vpn)))
    pfn = pte_pfn(entry)
    found = entry & PRESENT and not pte_huge(entry) and pfn != ZERO_PFN and not await FolioMapping(pfn)
    if found:
        await FolioGet(pfn)
    await Unlock(lock)
    return pfn if found else -1


async def unmerge_ksm_pages(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """unmerge_ksm_pages (MADV_UNMERGEABLE): pages [start, end) are the process' own again."""
    await Lock(mmap_lock(mm))
    await break_ksm(cpu, mm, start, end)
    await Unlock(mmap_lock(mm))


async def break_ksm(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """break_ksm of pages [start, end), mmap_lock held.

    By a fault each that asks for a copy, but not for the right to write (FAULT_FLAG_UNSHARE).
    """
    for vpn in range(start, end):
        entry = await GetPte(mm, vpn)
        if entry & PRESENT and await FolioTestFlag(pte_pfn(entry), PG_KSM):
            await FolioGet(pte_pfn(entry))
            await wp_page_copy(cpu, mm, vpn, entry, unshare=True)


async def write_protect_page(cpu: PerCpu, mm: int, vpn: int, pfn: int) -> int:
    """write_protect_page: the read-only entry that page `vpn` has when this returns; 0 if it cannot be had.

    The caller holds a reference. With one more, somebody may write to the frame without a TLB (direct I/O):
    asked after the flush, when nobody can get at it by the fast way any more. An entry that is read-only
    already is flushed for if others gather on the mm: they may have made it so, and still owe the flush.
    """
    lock = ptl(mm, vpn)
    await Lock(lock)
    entry = await GetPte(mm, vpn)
    if not pte_present(entry) or pte_pfn(entry) != pfn:
        await Unlock(lock)
        return 0
    if entry & (RW | DIRTY | EXCLUSIVE) or await Load(tlb_flush_pending_word(mm)):
        entry = await ptep_clear_flush(cpu, mm, vpn)
        if await FolioRefcount(pfn) != len(await FolioRmap(pfn)) + 2:
            # The cleared mapping's reference, and the caller's.
            await set_pte_at(cpu, XchgPte(mm, vpn, entry), RESTORED)
            await Unlock(lock)
            return 0
        entry &= ~(RW | DIRTY | EXCLUSIVE)
        await set_pte_at(cpu, XchgPte(mm, vpn, entry), PROTECT)
    await Unlock(lock)
    return entry


async def replace_page(cpu: PerCpu, mm: int, vpn: int, entry: int, kpfn: int) -> bool:
    """replace_page: the entry names the KSM page, if it still is what it was. The old page may go."""
    lock = ptl(mm, vpn)
    _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
    same: bool = seen & ~ACCESSED == entry & ~ACCESSED
    if same:
        await FolioGet(kpfn)
        await ptep_clear_flush(cpu, mm, vpn)
        await set_pte_at(cpu, XchgPte(mm, vpn, mk_pte(kpfn, PRESENT | ACCESSED)), MERGED)
        await FolioPut(pte_pfn(entry))
    await Unlock(lock)
    return same
