"""The kernel's own mappings (mm/vmalloc.c, arch/x86/mm/pgtable.c, v6.6): global entries that all have.

Addresses are given back lazily: what vfree has unmapped is flushed for before its address is used again, and
its pages go at once, as the kernel does not use what it has freed.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    FolioPut,
    GetPmd,
    PutTable,
    ReadFrame,
    Translate,
    XchgPmd,
    XchgPte,
)
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, mk_pte, pte_pfn
from emulator.kernel.mmu_notifier import iommu_sva_invalidate_kva_range
from emulator.kernel.percpu import INIT_MM, PerCpu
from emulator.kernel.pgtable_generic import KERNEL, set_pte_at
from emulator.kernel.tlb import flush_tlb_kernel_range
from emulator.kernel.user import walk

PAGE_KERNEL = PRESENT | RW | ACCESSED | DIRTY


async def vmap(cpu: PerCpu, vpn: int, pfn: int) -> None:
    """vmap_range_noflush of one page: nothing was there."""
    await set_pte_at(cpu, CmpxchgPte(INIT_MM, vpn, 0, mk_pte(pfn, PAGE_KERNEL)), KERNEL)


async def vfree(cpu: PerCpu, vpn: int) -> None:
    """vfree of one page: unmap it (vunmap_range_noflush), give it back; the address waits for the purge."""
    entry = await XchgPte(INIT_MM, vpn, 0)
    await FolioPut(pte_pfn(entry))


async def purge_vmap_area_lazy(cpu: PerCpu, start: int, end: int) -> None:
    """__purge_vmap_area_lazy: addresses [start, end) may be used again after it."""
    await flush_tlb_kernel_range(cpu, start, end)


async def pmd_free_pte_page(cpu: PerCpu, vpn: int) -> bool:
    """pmd_free_pte_page: a huge mapping takes the place of a table (ioremap), whose entries are empty.

    The flush is there since 5e0fb5df2ee8 (v4.18). An IOMMU that walks the CPUs' tables walks the kernel's,
    too, and is told before the page is used again since the fix of CVE-2025-71089.
    """
    pmd = await GetPmd(INIT_MM, vpn)
    if not pmd:
        return False
    await XchgPmd(INIT_MM, vpn, 0)
    await flush_tlb_kernel_range(cpu, vpn, vpn + 1)
    await iommu_sva_invalidate_kva_range(cpu, vpn, vpn + 1)
    await PutTable(pmd)
    return True


async def kernel_page_read(cpu: PerCpu, vpn: int) -> int:
    """A read by the kernel through a mapping of its own: the content version, -1 for none (an oops)."""
    pte = await Translate(vpn, False) or await walk(cpu, INIT_MM, vpn, False)
    return await ReadFrame(INIT_MM, vpn, pte_pfn(pte)) if pte else -1
