"""Who translates by an mm's pages and is no CPU of it (mm/mmu_notifier.c, v6.6): told before anything goes.

Such a device holds no reference to a page. An IOMMU with shared virtual addresses (`devices`) walks the CPUs'
page tables and is told where the architecture flushes; KVM (`guests`) has tables of its own and is told at
both ends of every change.
"""

from __future__ import annotations

from emulator.hardware.operations import FlushTlb, FlushTlbOne, SendIpi, WaitAcks
from emulator.kernel.kvm_mmu import kvm_mmu_invalidate_begin, kvm_mmu_invalidate_end
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import ipi_function

EVERYTHING = -1


@ipi_function
async def qi_flush_piotlb(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """The command that an IOMMU, or the translation cache of a device behind it, takes from its queue: drop
    pages [start, end), everything if `end` is EVERYTHING."""
    start, end = arguments
    if end == EVERYTHING:
        await FlushTlb()
        return
    for vpn in range(start, end):
        await FlushTlbOne(vpn)


async def arch_invalidate_secondary_tlbs(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """mmu_notifier_arch_invalidate_secondary_tlbs, intel_arch_invalidate_secondary_tlbs: devices that walk
    the tables of the mm have dropped pages [start, end) when it returns."""
    found = tuple(device for device, of in cpu.parameters.devices if of == mm)
    if found:
        await WaitAcks(await SendIpi(found, qi_flush_piotlb.__name__, (start, end), True))


async def iommu_sva_invalidate_kva_range(cpu: PerCpu, start: int, end: int) -> None:
    """iommu_sva_invalidate_kva_range: the kernel's mappings are in everybody's tables, so all are told."""
    found = tuple(dict.fromkeys(device for device, _ in cpu.parameters.devices))
    if found:
        await WaitAcks(await SendIpi(found, qi_flush_piotlb.__name__, (start, end), True))


async def mmu_notifier_invalidate_range_start(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """mmu_notifier_invalidate_range_start: from here on nobody translates pages [start, end) by what was."""
    if cpu.parameters.guests:
        await kvm_mmu_invalidate_begin(cpu, mm, start, end)


async def mmu_notifier_invalidate_range_end(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """mmu_notifier_invalidate_range_end: by what is now, again."""
    if cpu.parameters.guests:
        await kvm_mmu_invalidate_end(cpu, mm)
