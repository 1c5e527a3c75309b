"""A KVM guest that flushes by telling its host (arch/x86/kernel/kvm.c, v6.6).

A virtual CPU that does not run is not interrupted: a note says that its TLB is to be flushed before it runs
again. Then no flush waits until interrupts are on there, which walkers without locks rely on elsewhere.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicCmpxchg, AtomicXchg, FlushTlb, Load
from emulator.kernel.percpu import PerCpu

KVM_VCPU_PREEMPTED = 1 << 0
KVM_VCPU_FLUSH_TLB = 1 << 1


def preempted_word(cpu: int) -> str:
    """steal_time.preempted of a virtual CPU."""
    return f"steal_time.preempted.{cpu}"


async def kvm_flush_on_enter(cpu: PerCpu, mask: int) -> int:
    """kvm_flush_tlb_multi: note the flush for those CPUs of `mask` that do not run; the others are left."""
    for other in range(cpu.parameters.cpus):
        bit = 1 << other
        if mask & bit and bit != cpu.bit:
            word = preempted_word(other)
            state = await Load(word)
            noted = state | KVM_VCPU_FLUSH_TLB
            if state & KVM_VCPU_PREEMPTED and await AtomicCmpxchg(word, state, noted) == state:
                mask &= ~bit
    return mask


async def vcpu_preempted(cpu: PerCpu) -> None:
    """What a guest sees of it when the host takes this virtual CPU away for a while: kvm_arch_vcpu_put notes
    it, and record_steal_time flushes, if somebody has asked for that, before the guest runs again."""
    cpu.count("kvm_preempted")
    await AtomicXchg(preempted_word(cpu.number), KVM_VCPU_PREEMPTED)
    if await AtomicXchg(preempted_word(cpu.number), 0) & KVM_VCPU_FLUSH_TLB:
        await FlushTlb()
