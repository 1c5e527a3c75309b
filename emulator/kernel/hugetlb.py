"""Page tables that processes share (mm/hugetlb.c, v6.6): the pages of PMDs of a file of huge pages.

Here the one level of tables that is followed stands for the page of PMDs, and its entries for the huge pages.
The file's i_mmap lock is held by whoever shares or unshares: the last one to use the table frees it.
"""

from __future__ import annotations

from emulator.hardware.operations import GetPmd, PutTable, TableCount, XchgPmd
from emulator.kernel.mmu_gather import MmuGather, tlb_flush_mmu_tlbonly, tlb_remove_table_sync_one
from emulator.kernel.percpu import PerCpu


async def huge_pmd_unshare(cpu: PerCpu, mm: int, vpn: int) -> bool:
    """huge_pmd_unshare: this mm uses the table no more; false if nobody else does, who then empties it.

    The caller has yet to flush. Since 1013af4f585f (v6.16; CVE-2025-38085) whoever walks it with interrupts
    off is through before the others may think that it is theirs.
    """
    pud = await GetPmd(mm, vpn)
    if not pud or await TableCount(pud) == 1:
        return False
    # pud_clear
    await XchgPmd(mm, vpn, 0)
    await tlb_remove_table_sync_one(cpu)
    await PutTable(pud)
    cpu.count("hugetlb_unshared")
    return True


async def unmap_hugepage_range(cpu: PerCpu, tlb: MmuGather, vpn: int) -> bool:
    """__unmap_hugepage_range, as far as the table at `vpn` is shared: unshared and flushed for; else false.

    The flush comes before i_mmap_rwsem is dropped, since a4a118f2eead (v5.16; CVE-2021-4002): after that the
    last user may free the table and all that it maps.
    """
    pages = cpu.parameters.table_pages
    start = vpn & -pages
    if not await huge_pmd_unshare(cpu, tlb.mm, start):
        return False
    await flush_unshared(cpu, tlb, start, pages)
    return True


async def flush_unshared(cpu: PerCpu, tlb: MmuGather, start: int, pages: int) -> None:
    """tlb_flush_pmd_range, and at the end of __unmap_hugepage_range tlb_flush_mmu_tlbonly (`force_flush`)."""
    tlb.adjust_range(start, pages, 1)
    tlb.freed_tables = True
    await tlb_flush_mmu_tlbonly(cpu, tlb)
