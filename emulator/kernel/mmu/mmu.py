"""How a flush is carried out: the seam between the kernel that owes one and the CPUs that hold entries.

A class here is a way to do it; `--mmu` names one. *When* a flush happens is the policy's business, *how* is
this one's. Methods have the names of the kernel's architecture functions and may await operations; the CPU
that runs them comes first. What a CPU keeps for itself is in its `tlbstate`, what CPUs share in named words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from emulator.hardware.operations import FlushTlb
from emulator.kernel.mmu_gather import MmuGather, tlb_flush_mmu_tlbonly

if TYPE_CHECKING:
    from emulator.hardware.cpu import IpiRequest
    from emulator.kernel.percpu import KernelParameters, PerCpu, TlbUbc
    from emulator.kernel.tlb import FlushTlbInfo


class Mmu(ABC):
    """One object lives on each CPU; what it keeps is private to that CPU."""

    name: ClassVar[str]
    description: ClassVar[str] = ""
    """What it does, in one line."""
    broadcasts: ClassVar[bool] = False
    """It has TLBs drop entries without an interrupt (Invlpgb, SendRar, Tlbi): who has interrupts off keeps no
    page table from being freed (MMU_GATHER_RCU_TABLE_FREE, which x86 has for that since v6.15)."""
    frees_lazily: ClassVar[bool] = False
    """Frames and ranges that are given up are kept until others have flushed: `flush_zapped`, `keep_range`,
    `tick`, `sweep` and `finish` are called."""
    archs: ClassVar[tuple[str, ...]] = ("sc", "x86", "riscv")
    """Architectures whose instructions it has."""
    shared_asids: ClassVar[bool] = False
    """An address space has the same number on all CPUs, and no mask says who runs it."""
    leaves_dead_mms: ClassVar[bool] = False
    """Who gives up a whole address space flushes for page tables alone: its number is not used again before
    all TLBs are flushed."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Kernel parameters that it needs."""

    def begins(self, parameters: KernelParameters, loaded: Sequence[int]) -> tuple[dict[str, int], list[int]]:
        """Where `shared_asids`: shared words, and the number that each CPU's TLB goes by, on a machine
        whose CPUs have loaded these mms already."""
        return {}, []

    def invalidators(self, parameters: KernelParameters) -> tuple[int, ...]:
        """As whom TLBs may be asked to drop entries, where it `broadcasts`: every CPU."""
        cpus = range(parameters.cpus) if self.broadcasts else ()
        return tuple(one for one in cpus if not parameters.beside >> one & 1)

    # --- flushing for a change, at once --------------------------------------------------------------

    @abstractmethod
    async def flush_tlb_mm_range(
        self, cpu: PerCpu, mm: int, start: int, end: int, freed_tables: bool, stride: int
    ) -> None:
        """Pages [start, end) of `mm`, all of them if `end` is TLB_FLUSH_ALL: when it returns, no CPU uses
        what page tables said there before it was called.

        One entry for every `stride` pages was changed. With `freed_tables` no walker uses the tables either.
        """

    @abstractmethod
    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """What a CPU does that is asked for a flush by a call, its own included; with interrupts off."""

    async def flush_tlb_local(self, cpu: PerCpu) -> None:
        """This CPU alone drops every entry of the loaded address space, with the policy's notes around it."""
        token = await cpu.policy.local_flush_begin(cpu)
        await FlushTlb()
        await cpu.policy.local_flush_end(cpu, token)

    @abstractmethod
    async def flush_tlb_kernel_range(self, cpu: PerCpu, start: int, end: int) -> None:
        """The same of pages of the kernel, which all CPUs use."""

    async def acknowledge(self, cpu: PerCpu, request: IpiRequest) -> bool:
        """A call that its sender waits for is about to be carried out: whether it has been acknowledged
        already. As it stands: no, it will be when its function is through."""
        return False

    # --- giving up later, where it `frees_lazily` -------------------------------------------------------

    async def flush_zapped(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """Flush for what a gather has zapped, whose frames are freed next; or see to it that both are done
        later: then `tlb.put_off`, and frames are taken out of `tlb.folios`. No tables go with them."""
        await tlb_flush_mmu_tlbonly(cpu, tlb)

    async def keep_range(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """munmap has put something off; mmap_lock is held."""
        return

    async def range_is_kept(self, cpu: PerCpu, mm: int, start: int, end: int) -> bool:
        """No area may be put into [start, end) yet; mmap_lock is held."""
        return False

    async def sweep(self, cpu: PerCpu) -> None:
        """Another task is about to be switched to; interrupts are off."""
        return

    async def tick(self, cpu: PerCpu) -> None:
        """scheduler_tick, every `tick_accesses` accesses of the CPU."""
        return

    async def finish(self, cpu: PerCpu) -> None:
        """A thread of this CPU makes no more accesses: nothing may be kept here."""
        return

    # --- flushing for many changes together ------------------------------------------------------------

    @abstractmethod
    def arch_tlbbatch_should_defer(self, cpu: PerCpu, mask: int) -> bool:
        """Whether an entry of an mm that the CPUs of `mask` use may join a batch; else it is flushed for at
        once."""

    @abstractmethod
    async def arch_tlbbatch_add_pending(self, cpu: PerCpu, batch: TlbUbc, mm: int, vpn: int) -> None:
        """The entry of `mm` at page `vpn` was cleared, under its page-table lock: the batch owes the flush
        from here on."""

    @abstractmethod
    async def arch_tlbbatch_flush(self, cpu: PerCpu, batch: TlbUbc) -> None:
        """No CPU uses any entry that the batch was told of; it owes nothing after that."""

    # --- address spaces ----------------------------------------------------------------------------------

    @abstractmethod
    async def switch_mm_irqs_off(self, cpu: PerCpu, mm: int) -> None:
        """Load another address space; what it uses of it from here on is as page tables say."""

    async def destroy_context(self, cpu: PerCpu, mm: int) -> None:
        """Nobody will load this address space any more."""
        return

    @abstractmethod
    async def enter_lazy_tlb(self, cpu: PerCpu) -> None:
        """A kernel thread borrows the loaded address space and makes no access to it."""
