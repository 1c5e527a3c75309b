"""Mistakes of those who flush by messages to other CPUs' microcode (`--mmu x86-rar`)."""

from __future__ import annotations

from emulator.hardware.operations import Lock, PutTable, SendRar, SetPayload, Tlbsync, Unlock
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.x86_invlpgb import X86Invlpgb
from emulator.kernel.mmu.x86_rar import X86Rar
from emulator.kernel.mmu_gather import MmuGather, tlb_table_flush
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import FlushTlbInfo
from emulator.policies.immediate import Immediate


class RarNotAwaited(Immediate):
    """arch/x86/mm/rar.c (RFC v4), smp_call_rar_many: `wait_for_action_done()` for each CPU. Here the message
    is all."""

    name = "mistake:rar-not-awaited"

    @instead_of(Tlbsync, within=X86Rar.smp_call_rar_many)
    async def goes_on(self, sender: int) -> None:
        """They have been told."""


class RarPendingFirst(Immediate):
    """arch/x86/mm/rar.c (RFC v4), set_payload: `smp_wmb()` at its end, so that what is pending can be read:
    the message of another CPU may come in between. Here the payload is written last."""

    name = "mistake:rar-pending-first"

    @instead_of(X86Rar.signal)
    async def the_other_way_round(self, mmu: X86Rar, payload: SetPayload, message: SendRar) -> None:
        """It takes a while until it arrives."""
        await message
        await payload


class RarSlotUnlocked(Immediate):
    """arch/x86/mm/rar.c (RFC v4), get_payload_slot: `raw_spin_lock()` of a payload that several CPUs share.
    Here a CPU writes its own over one on which others have yet to act."""

    name = "mistake:rar-slot-unlocked"

    @instead_of(Lock, within=X86Rar.smp_call_rar_many)
    async def takes_it(self, name: str) -> None:
        """There are 64."""

    @instead_of(Unlock, within=X86Rar.smp_call_rar_many)
    async def leaves_it(self, name: str) -> None:
        """Likewise."""


class RarComesBackUnflushed(Immediate):
    """arch/x86/mm/tlb.c (RFC v4), choose_new_asid: `need_flush = new_cpu` under a global number. Here it is
    up to date everywhere, as with INVLPGB."""

    name = "mistake:rar-comes-back-unflushed"

    @instead_of(X86Rar.choose_new_asid)
    async def as_with_invlpgb(
        self, mmu: X86Rar, cpu: PerCpu, mm: int, next_tlb_gen: int, new_cpu: bool
    ) -> tuple[int, bool]:
        """The number says it."""
        return await X86Invlpgb.choose_new_asid(mmu, cpu, mm, next_tlb_gen, new_cpu)


class RarToItself(Immediate):
    """arch/x86/mm/tlb.c (RFC v4, 7/8), rar_tlb_flush: a message to all CPUs of the mask, the own one among
    them, and nothing else. "It appears that the local TLB is not actually getting flushed" (8/8)."""

    name = "mistake:rar-to-itself"

    @instead_of(X86Rar.flush_here)
    async def by_message(self, mmu: X86Rar, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """Its action vector says success."""


class RarTablesAtOnce(Immediate):
    """mm/mmu_gather.c, tlb_remove_table: tables by RCU (MMU_GATHER_RCU_TABLE_FREE), as RAR_CTRL_IGNORE_IF has
    CPUs act that have interrupts off (Kirill Shutemov, on RFC v4 5/8). Here they go after the flush."""

    name = "mistake:rar-tables-at-once"

    @instead_of(tlb_table_flush)
    async def after_the_flush(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """Everybody has answered."""
        for pmd in tlb.tables:
            await PutTable(pmd)
        tlb.tables.clear()
