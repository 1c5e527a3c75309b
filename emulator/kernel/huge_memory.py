"""Huge pages (mm/huge_memory.c, v6.6): one entry, one folio of 2**hpage_order pages.

A PMD may be split in place, and then small entries name the one folio. `vpn` is the first page of the huge
page unless it says otherwise.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    FolioPut,
    FolioRefcount,
    FolioRmap,
    FolioTryGet,
    FolioZero,
    GetPte,
    Lock,
    LruAdd,
    PagesIdentical,
    PmdRange,
    PopulatePmd,
    Series,
    SetPte,
    SplitHugePage,
    Unlock,
    WaitPte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    PAGE_SHIFT,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    ZERO_PFN,
    is_migration_entry,
    mk_pte,
    pte_pfn,
    ptl,
)
from emulator.kernel.mmzone import FAST_NODE, alloc_pages_thisnode
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pgtable_generic import FAULT, HUGE, PROTECT, WP, set_pte_at
from emulator.kernel.rmap import MigrationEntry, remove_migration_ptes, try_to_migrate
from emulator.kernel.tlb import flush_tlb_range
from emulator.memory.page_table import Vma


async def do_huge_pmd_anonymous_page(cpu: PerCpu, mm: int, vpn: int, write: bool, vma: Vma) -> bool:
    """do_huge_pmd_anonymous_page for a fault on any page `vpn`; false: a small page has to do.

    The huge page must lie in the area as a whole, and no page table be there (pmd_none). It comes from
    the local node without reclaim or not at all (GFP_TRANSHUGE_LIGHT). A read gets the huge zero page.
    """
    size = cpu.parameters.hpage_nr
    head = cpu.parameters.hpage_head(vpn)
    if size == 1 or vma.file or head < vma.start or head + size > vma.end:
        return False
    if await PmdRange(mm, head, head + size):
        return False
    if not write and not cpu.parameters.forbids_zeropage:
        # set_huge_zero_folio
        await set_pte_at(cpu, CmpxchgPte(mm, head, 0, mk_pte(ZERO_PFN, PRESENT | ACCESSED | PSE)), FAULT)
        return True
    pfn = await alloc_pages_thisnode(cpu, FAST_NODE, cpu.parameters.hpage_order)
    if pfn < 0:
        cpu.count("thp_fault_fallback")
        return False
    await FolioZero(pfn)
    await LruAdd(pfn, False)
    flags = PRESENT | ACCESSED | EXCLUSIVE | PSE | (RW | DIRTY if write else 0)
    if await set_pte_at(cpu, CmpxchgPte(mm, head, 0, mk_pte(pfn, flags)), FAULT) == 0:
        cpu.count("thp_fault_alloc")
    else:
        await FolioPut(pfn)
    return True


async def do_huge_pmd_wp_page(cpu: PerCpu, mm: int, vpn: int, pmd: int) -> None:
    """do_huge_pmd_wp_page: a write through a read-only PMD makes it writable if the folio is ours alone.

    Else the PMD is split, and the fault on the small entry copies its page. No posting of MIGRC comes by
    here: they look in do_wp_page.
    """
    pfn = pte_pfn(pmd)
    if pfn == ZERO_PFN:
        # Before v6.13: entries of the zero page (__split_huge_zero_page_pmd); the fault on one copies.
        await split_huge_pmd(cpu, mm, vpn)
        return
    # A reference first, as in do_wp_page.
    found, seen = await Series((FolioTryGet(pfn), GetPte(mm, vpn)))
    if not found:
        return
    if seen == pmd:
        if not pmd & EXCLUSIVE and await FolioRefcount(pfn) != 2:
            await split_huge_pmd(cpu, mm, vpn)
        else:
            cpu.count("thp_wp_faults")
            await cpu.policy.mapped_writable(cpu, pfn)
            # page_move_anon_rmap: nobody else has the folio any more.
            writable = CmpxchgPte(mm, vpn, pmd, pmd | RW | DIRTY | ACCESSED | EXCLUSIVE)
            await set_pte_at(cpu, writable, WP)
    await FolioPut(pfn)


async def pmdp_clear_bits(cpu: PerCpu, mm: int, vpn: int, pmd: int, bits: int) -> bool:
    """What MADV_FREE and MADV_COLD do to a whole PMD, under its lock: invalid and flushed, then back without
    `bits` (pmdp_invalidate, set_pmd_at). False if it had none of them."""
    if not pmd & bits:
        return False
    pmd = await pmdp_invalidate(cpu, mm, vpn, pmd)
    await set_pte_at(cpu, SetPte(mm, vpn, pmd & ~bits), PROTECT)
    return True


async def pmdp_invalidate(cpu: PerCpu, mm: int, vpn: int, pmd: int) -> int:
    """pmdp_invalidate: present to the kernel, not to a walker (pmd_mkinvalid), and flushed; what it was."""
    # What a walker has set meanwhile is kept.
    while (seen := await CmpxchgPte(mm, vpn, pmd, pmd & ~PRESENT | PROTNONE)) != pmd:
        pmd = seen
    await flush_tlb_range(cpu, mm, vpn, vpn + cpu.parameters.hpage_nr)
    return pmd


async def split_huge_pmd(cpu: PerCpu, mm: int, vpn: int) -> None:
    """__split_huge_pmd: a page table takes the PMD's place, and the folio stays as it is.

    Nobody may have the huge translation and a small one at the same time: it is made invalid and flushed
    before the small ones are there (pmdp_invalidate), all under the lock. A migration has to end first (Linux
    splits its entry as well).
    """
    lock = ptl(mm, vpn)
    await Lock(lock)
    while is_migration_entry(pmd := await GetPte(mm, vpn)) and pmd & PSE:
        await Unlock(lock)
        await WaitPte(mm, vpn, pmd)
        await Lock(lock)
    if pmd & PSE:
        pmd = await pmdp_invalidate(cpu, mm, vpn, pmd)
        small = pmd if cpu.parameters.split_keeps_dirty else pmd & ~DIRTY
        await set_pte_at(cpu, PopulatePmd(mm, vpn, small), HUGE)
        cpu.count("thp_split_pmd")
    await Unlock(lock)


async def split_huge_pmd_if_needed(cpu: PerCpu, mm: int, vpn: int) -> None:
    """split_huge_pmd_if_needed: if any page `vpn` is inside a huge page and not its first, that is split."""
    if vpn != cpu.parameters.hpage_head(vpn) and await GetPte(mm, vpn) & PSE:
        await split_huge_pmd(cpu, mm, cpu.parameters.hpage_head(vpn))


async def split_huge_page(cpu: PerCpu, pfn: int) -> bool:
    """split_huge_page_to_list of an isolated anonymous folio: its pages are isolated folios after that.

    False if somebody else has a reference (can_split_folio, or folio_ref_freeze): it stays as it was. (Linux
    leaves it mapped by small entries if the reference came while it was unmapped.) Nothing is put off:
    __split_huge_pmd_locked clears by pmdp_invalidate, which flushes.
    """
    mappings = await FolioRmap(pfn)
    left: list[MigrationEntry] = []
    split = False
    if await FolioRefcount(pfn) == len(mappings) + 1:
        left = await try_to_migrate(cpu, pfn, split=True)
        split = await SplitHugePage(pfn, 1)
    if not split:
        cpu.count("thp_split_page_failed")
        await remove_migration_ptes(cpu, left, pfn)
        return False
    cpu.count("thp_split_page")
    cpu.count("thp_split_pmd", len(left))
    for page in range(cpu.parameters.hpage_nr):
        # remap_page
        to = pfn + page
        zeropage = cpu.parameters.split_maps_zeropage and not cpu.parameters.forbids_zeropage
        if zeropage and await PagesIdentical(to, ZERO_PFN):
            # try_to_map_unused_to_zeropage: nobody names the page any more.
            for mm, vpn, entry in left:
                was = (entry & ~PSE) + (page << PAGE_SHIFT)
                zero = CmpxchgPte(mm, vpn + page, was, mk_pte(ZERO_PFN, PRESENT | ACCESSED))
                await set_pte_at(cpu, zero, HUGE)
            continue
        entries = [
            MigrationEntry(mm, vpn + page, (entry & ~PSE) + (page << PAGE_SHIFT)) for mm, vpn, entry in left
        ]
        await remove_migration_ptes(cpu, entries, to)
    return True
