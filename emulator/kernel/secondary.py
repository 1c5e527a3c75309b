"""What translates beside the CPUs does: accesses of a device (IOMMU with shared addresses) and of a guest.

They are programs in the place of a CPU of their own, which the kernel does not know as one: in no mm_cpumask,
with a translation cache that only the commands of `mmu_notifier` and `kvm_mmu` empty.
"""

from __future__ import annotations

from emulator.hardware.operations import FolioPut, ReadFrame, Translate, WalkSpte
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, frame_of, mk_pte
from emulator.kernel.gup import get_user_pages
from emulator.kernel.kvm_mmu import kvm_tdp_mmu_map, mmu_invalidate_seq
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import walk


async def device_read(cpu: PerCpu, mm: int, vpn: int) -> int:
    """A read by a device through the page tables of `mm`: the content version, -1 if it faults (and nobody
    answers its page request)."""
    pte = await Translate(vpn, False) or await walk(cpu, mm, vpn, False)
    return await ReadFrame(mm, vpn, frame_of(pte, vpn, cpu.parameters.hpage_order)) if pte else -1


async def guest_read(cpu: PerCpu, mm: int, vpn: int, root: int = 0) -> int:
    """A read by a guest, whose page is `vpn` of the process: its content version."""
    while True:
        pte = await Translate(vpn, False) or await WalkSpte(mm, vpn, root, False)
        if pte:
            return await ReadFrame(mm, vpn, frame_of(pte, vpn, 0))
        await kvm_tdp_page_fault(cpu, mm, vpn, root)


async def read_if_translated(cpu: PerCpu, mm: int, vpn: int) -> None:
    """A read by either, as long as its own cache has the page."""
    pte = await Translate(vpn, False)
    if pte:
        await ReadFrame(mm, vpn, frame_of(pte, vpn, cpu.parameters.hpage_order))


async def kvm_tdp_page_fault(cpu: PerCpu, mm: int, vpn: int, root: int) -> None:
    """kvm_tdp_page_fault: the process' page, with a reference until the entry is there."""
    seq = await mmu_invalidate_seq(mm)
    pfn = await get_user_pages(cpu, mm, vpn, False)
    await kvm_tdp_mmu_map(cpu, mm, root, vpn, mk_pte(pfn, PRESENT | ACCESSED | RW | DIRTY), seq)
    await FolioPut(pfn)
