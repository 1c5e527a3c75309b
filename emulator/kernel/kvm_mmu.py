"""KVM's own page tables, which the hardware walks for a guest (arch/x86/kvm/mmu, virt/kvm/kvm_main.c, v6.6).

An entry names a frame of the process that runs the guest and holds no reference: KVM zaps it and flushes the
virtual CPUs when a notifier says so, and makes no new one until that is over. The guest's pages are those of
the process, one to one; `roots` tables show the same (one for each kind of the guest's memory).
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicXchg,
    FlushTlb,
    Load,
    Lock,
    SendIpi,
    SmpRmb,
    Unlock,
    WaitAcks,
)
from emulator.hardware.pte import spte_word
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import ipi_function


def mmu_lock(mm: int) -> str:
    """kvm->mmu_lock."""
    return f"kvm.mmu_lock.{mm}"


def invalidate_seq_word(mm: int) -> str:
    """kvm->mmu_invalidate_seq: how many changes are over."""
    return f"kvm.mmu_invalidate_seq.{mm}"


def invalidate_in_progress_word(mm: int) -> str:
    """kvm->mmu_invalidate_in_progress: how many are not."""
    return f"kvm.mmu_invalidate_in_progress.{mm}"


@ipi_function
async def kvm_vcpu_flush_tlb(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """KVM_REQ_TLB_FLUSH, as a virtual CPU does it before it goes on."""
    await FlushTlb()


async def kvm_flush_remote_tlbs(cpu: PerCpu, mm: int) -> None:
    """kvm_flush_remote_tlbs: no virtual CPU of the guest has anything cached when it returns."""
    found = tuple(vcpu for vcpu, of, *_ in cpu.parameters.guests if of == mm)
    await WaitAcks(await SendIpi(found, kvm_vcpu_flush_tlb.__name__, (), True))


def _slots(cpu: PerCpu, mm: int, start: int, end: int) -> list[int]:
    """The pages of [start, end) that the guest has (kvm_memory_slot)."""
    slots = dict.fromkeys((first, pages) for _, of, first, pages in cpu.parameters.guests if of == mm)
    return [vpn for first, pages in slots for vpn in range(max(start, first), min(end, first + pages))]


async def kvm_tdp_mmu_unmap_gfn_range(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """kvm_tdp_mmu_unmap_gfn_range: zap [start, end) in all roots, mmu_lock held; whether to flush."""
    flush = False
    for root in range(cpu.parameters.guest_roots):
        for vpn in _slots(cpu, mm, start, end):
            flush = bool(await AtomicXchg(spte_word(mm, root, vpn), 0)) or flush
    return flush


async def kvm_mmu_invalidate_begin(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """kvm_mmu_notifier_invalidate_range_start."""
    await Lock(mmu_lock(mm))
    await AtomicAdd(invalidate_in_progress_word(mm), 1)
    if await kvm_tdp_mmu_unmap_gfn_range(cpu, mm, start, end):
        await kvm_flush_remote_tlbs(cpu, mm)
    await Unlock(mmu_lock(mm))


async def kvm_mmu_invalidate_end(cpu: PerCpu, mm: int) -> None:
    """kvm_mmu_notifier_invalidate_range_end."""
    await Lock(mmu_lock(mm))
    await AtomicAdd(invalidate_seq_word(mm), 1)
    await AtomicAdd(invalidate_in_progress_word(mm), -1)
    await Unlock(mmu_lock(mm))


async def kvm_tdp_mmu_zap_gfn_range(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """kvm_zap_gfn_range: zap [start, end) in one root after the other, giving way in between, then flush."""
    await Lock(mmu_lock(mm))
    flush = False
    for root in range(cpu.parameters.guest_roots):
        flush = await zap_gfn_range(cpu, mm, root, start, end, flush)
    if flush:
        await kvm_flush_remote_tlbs(cpu, mm)
    await Unlock(mmu_lock(mm))


async def zap_gfn_range(cpu: PerCpu, mm: int, root: int, start: int, end: int, flush: bool) -> bool:
    """zap_gfn_range of one root; whether a flush is owed, which may have been so before (`flush`)."""
    for vpn in _slots(cpu, mm, start, end):
        flush = await tdp_mmu_iter_cond_resched(cpu, mm, flush)
        flush = bool(await AtomicXchg(spte_word(mm, root, vpn), 0)) or flush
    return flush


async def tdp_mmu_iter_cond_resched(cpu: PerCpu, mm: int, flush: bool) -> bool:
    """tdp_mmu_iter_cond_resched, where somebody wants the lock: what is owed is flushed before; what is owed
    after that."""
    if flush:
        await kvm_flush_remote_tlbs(cpu, mm)
    await Unlock(mmu_lock(mm))
    await Lock(mmu_lock(mm))
    return False


async def mmu_invalidate_seq(mm: int) -> int:
    """A fault notes it before it looks at the process' page (kvm_faultin_pfn)."""
    seq = await Load(invalidate_seq_word(mm))
    await SmpRmb()
    return seq


async def kvm_tdp_mmu_map(cpu: PerCpu, mm: int, root: int, vpn: int, spte: int, seq: int) -> None:
    """direct_page_fault: the entry is made, unless a change has been there since `seq` or is under way."""
    await Lock(mmu_lock(mm))
    if not await Load(invalidate_in_progress_word(mm)) and await Load(invalidate_seq_word(mm)) == seq:
        await AtomicXchg(spte_word(mm, root, vpn), spte)
    await Unlock(mmu_lock(mm))
