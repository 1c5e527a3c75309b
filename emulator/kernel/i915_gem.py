"""Buffers of a GPU (drivers/gpu/drm/i915/gem/i915_gem_pages.c, v6.6), whose tables name pages of memory.

The GPU stands in the place of a guest of `kvm_mmu`: it has tables and a translation cache of its own.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicXchg, FolioPut
from emulator.hardware.pte import spte_word
from emulator.kernel.kvm_mmu import kvm_flush_remote_tlbs
from emulator.kernel.percpu import PerCpu


async def i915_gem_object_put_pages(cpu: PerCpu, mm: int, vpn: int, pfn: int) -> None:
    """__i915_gem_object_put_pages of a buffer of one page, bound at `vpn`: unbind it, give the page back."""
    await AtomicXchg(spte_word(mm, 0, vpn), 0)
    await flush_tlb_invalidate(cpu, mm)
    await FolioPut(pfn)


async def flush_tlb_invalidate(cpu: PerCpu, mm: int) -> None:
    """flush_tlb_invalidate: intel_gt_invalidate_tlb, since 7938d61591d3 (v5.17)."""
    await kvm_flush_remote_tlbs(cpu, mm)
