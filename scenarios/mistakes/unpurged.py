"""Kernels that free or use their own mappings again before all CPUs, or devices, have dropped them."""

from __future__ import annotations

from emulator.hardware.operations import FlushTlb
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.x86 import do_kernel_range_flush, uses_pcid
from emulator.kernel.mmu_notifier import iommu_sva_invalidate_kva_range
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_tlb_kernel_range
from emulator.kernel.vmalloc import pmd_free_pte_page, purge_vmap_area_lazy
from emulator.policies.immediate import Immediate


class IoremapWithoutPurge(Immediate):
    """arch/x86/mm/pgtable.c, pmd_free_pte_page before 5e0fb5df2ee8: no flush before the table is freed."""

    name = "mistake:ioremap-without-purge"

    @instead_of(flush_tlb_kernel_range, within=pmd_free_pte_page)
    async def flushes_nothing(self, cpu: PerCpu, start: int, end: int) -> None:
        """Its entries are empty."""


class KernelTablesUntold(Immediate):
    """arch/x86/mm/pgtable.c, pmd_free_pte_page with shared virtual addressing, before CVE-2025-71089: only
    CPUs were flushed before the table was used again."""

    name = "mistake:kernel-tables-untold"

    @instead_of(iommu_sva_invalidate_kva_range)
    async def tells_nobody(self, cpu: PerCpu, start: int, end: int) -> None:
        """Devices may not use the kernel's mappings."""


class VmallocWithoutPurge(Immediate):
    """mm/vmalloc.c, __purge_vmap_area_lazy: `flush_tlb_kernel_range()` before addresses are used again. Here
    they are just used."""

    name = "mistake:vmalloc-without-purge"

    @instead_of(purge_vmap_area_lazy)
    async def purges_nothing(self, cpu: PerCpu, start: int, end: int) -> None:
        """Nobody uses what is freed."""


class PurgesByCr3(Immediate):
    """arch/x86/mm/tlb.c, do_kernel_range_flush: `flush_tlb_one_kernel()`. Here CR3 is written instead, which
    leaves global entries."""

    name = "mistake:purges-by-cr3"

    @instead_of(do_kernel_range_flush)
    async def writes_cr3(self, cpu: PerCpu, arguments: tuple[int, ...]) -> None:
        """What is loaded goes."""
        await FlushTlb()


class PcidsInSpiteOfInvlpg(Immediate):
    """arch/x86/mm/init.c, setup_pcid before ce0b15d11ad8: PCIDs also where INVLPG leaves global entries."""

    name = "mistake:pcids-in-spite-of-invlpg"

    @instead_of(uses_pcid)
    def has_them(self, cpu: PerCpu) -> bool:
        """The CPU says that it can."""
        return cpu.parameters.pcid
