"""Kernels that do not tell those who translate beside the CPUs, most of them as they were before a fix."""

from __future__ import annotations

from emulator.hardware.operations import Lock, Unlock
from emulator.kernel.i915_gem import flush_tlb_invalidate
from emulator.kernel.instead import instead_of
from emulator.kernel.khugepaged import notify_collapse_end, notify_collapse_start
from emulator.kernel.kvm_mmu import mmu_lock, tdp_mmu_iter_cond_resched
from emulator.kernel.mmu_notifier import (
    arch_invalidate_secondary_tlbs,
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.mremap import move_page_tables
from emulator.kernel.percpu import PerCpu
from emulator.policies.immediate import Immediate


class DeviceUntold(Immediate):
    """arch/x86/mm/tlb.c, flush_tlb_mm_range: `mmu_notifier_arch_invalidate_secondary_tlbs()` at its end, and
    in arch_tlbbatch_add_pending. Here neither: a device goes on with what it has cached."""

    name = "mistake:device-untold"

    @instead_of(arch_invalidate_secondary_tlbs)
    async def tells_nobody(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """CPUs are all that there is."""


class CollapseUntold(Immediate):
    """mm/khugepaged.c, collapse_pte_mapped_thp before f268f6cf875f: no notifier around it.

    A guest goes on with pages that are somebody else's.
    """

    name = "mistake:collapse-untold"

    @instead_of(notify_collapse_start)
    async def begins(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Entries of small pages go, nothing else."""

    @instead_of(notify_collapse_end)
    async def ends(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Likewise."""


class MremapUntold(Immediate):
    """mm/mremap.c, move_page_tables: `mmu_notifier_invalidate_range_start()`, here left out.

    A guest goes on by the old address, and who frees the page at its new one tells KVM of that.
    """

    name = "mistake:mremap-untold"

    @instead_of(mmu_notifier_invalidate_range_start, within=move_page_tables)
    async def begins(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """No page goes."""

    @instead_of(mmu_notifier_invalidate_range_end, within=move_page_tables)
    async def ends(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Likewise."""


class YieldsWithoutFlush(Immediate):
    """arch/x86/kvm/mmu/tdp_mmu.c, zap_gfn_range before a835429cda91: before it gave way it flushed for what
    it had zapped in this root; what it had in another was still owed."""

    name = "mistake:kvm-yields-without-flush"

    @instead_of(tdp_mmu_iter_cond_resched)
    async def gives_way(self, cpu: PerCpu, mm: int, flush: bool) -> bool:
        """Nothing has been zapped in this root yet."""
        await Unlock(mmu_lock(mm))
        await Lock(mmu_lock(mm))
        return flush


class BuffersWithoutFlush(Immediate):
    """drivers/gpu/drm/i915, __i915_gem_object_put_pages before 7938d61591d3: the GPU's TLBs were not flushed.

    Its pages go back while it may still use them.
    """

    name = "mistake:buffers-without-flush"

    @instead_of(flush_tlb_invalidate)
    async def flushes_nothing(self, cpu: PerCpu, mm: int) -> None:
        """The tables are clear."""
