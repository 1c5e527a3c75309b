"""Mistakes at others' expense: their notes, their lazy mode, their node, what is counted for them."""

from __future__ import annotations

from emulator.hardware.operations import AtomicAdd, FolioPut, FolioTestFlag, Load, Series, Store
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PerCpu, is_lazy_word
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import arch_tlbbatch_flush
from emulator.policies.migrc import MIGRC_GEN, RequestUnderConstruction, migrc_done_word, pending_word
from emulator.policies.migrc_v3 import PG_MIGRC, MigrcV3, requests_list


class NotesForOthersEarly(MigrcV3):
    """The postings' `migrc_done` is written by its own CPU, behind its flush.

    Here the flusher writes it for all whom it is about to interrupt: until then they count as flushed.
    """

    name = "mistake:notes-for-others-early"

    async def flush_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> bool:
        """Notes, then flushes."""
        batch, folios = await self.take_lists(cpu, names)
        if folios:
            await _note(cpu, batch.cpumask)
            await arch_tlbbatch_flush(cpu, batch)
        return await self.release_all(cpu, folios)


class NotesForOthersLate(MigrcV3):
    """The generation that a note holds was read before the flush.

    Here the flusher writes it for all whom it has interrupted, as it is by then: what was unmapped since they
    flushed counts as flushed.
    """

    name = "mistake:notes-for-others-late"

    async def flush_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> bool:
        """Flushes, then notes."""
        batch, folios = await self.take_lists(cpu, names)
        mask = batch.cpumask
        if folios:
            await arch_tlbbatch_flush(cpu, batch)
            await _note(cpu, mask)
        return await self.release_all(cpu, folios)


async def _note(cpu: PerCpu, mask: int) -> None:
    """Note the present generation for the others of a mask."""
    cpu.count("migrc_flushes")
    gen = await Load(MIGRC_GEN)
    for other in cpus_of(mask & ~cpu.bit):
        await Store(migrc_done_word(other), gen)


class FlushesOneNode(MigrcV3):
    """v3, migrc_try_flush_free_folios goes over the lists of all nodes. Here a write fault takes node 0's."""

    name = "mistake:flushes-one-node"

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """Flushes what was demoted; what was promoted stays pending."""
        if await FolioTestFlag(pfn, PG_MIGRC):
            await self.flush_lists(cpu, (requests_list(FAST_NODE),))


class LazyBeforeUnmap(MigrcV3):
    """arch/x86/mm/tlb.c: tlb_is_not_lazy is asked when the interrupt is sent, the generation raised before.

    Here lazy CPUs are left out by a look taken before the unmap: one that goes back to user mode in between
    has missed no generation yet, and caches the entry again.
    """

    name = "mistake:lazy-before-unmap"

    def __init__(self) -> None:
        super().__init__()
        self._lazy = 0

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """Looks."""
        await super().before_unmap(cpu, src)
        lazy = await Series(tuple(Load(is_lazy_word(other)) for other in range(cpu.parameters.cpus)))
        self._lazy = sum(1 << other for other, flag in enumerate(lazy) if flag)

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Leaves them out."""
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is not None:
            request.tlb_ubc_ro.cpumask &= ~self._lazy
        await super().after_unmap(cpu, src, dst)


class FreedBeforeCountedOut(MigrcV3):
    """v3's watermark counts pending pages as free. Here one is free while it still counts as pending."""

    name = "mistake:freed-before-counted-out"

    async def release(self, cpu: PerCpu, pfn: int) -> None:
        """Gives the reference back first."""
        await FolioPut(pfn)
        await AtomicAdd(pending_word(cpu.parameters.nid(pfn)), -1)
