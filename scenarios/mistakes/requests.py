"""Mistakes in what a request says: its generation, its CPUs, its folios, and when others see it."""

from __future__ import annotations

from emulator.hardware.operations import Load
from emulator.kernel.percpu import PerCpu, Task, TlbUbc, cpumask_word
from emulator.policies.migrc import RequestUnderConstruction
from emulator.policies.migrc_rfc2 import MigrcRfc2, RequestPair
from emulator.policies.migrc_v3 import MigrcV3


class GenerationBeforeUnmap(MigrcV3):
    """v3, migrc_unmap_done: `atomic_inc_return(&migrc_gen)` once everything is unmapped.

    Here the generation is taken when the batch begins: a CPU that flushes between that and the unmap counts
    as flushed although it may cache the entry again.
    """

    name = "mistake:generation-before-unmap"

    def __init__(self) -> None:
        super().__init__()
        self._early = 0

    async def migrate_begin(self, cpu: PerCpu, reason: str) -> None:
        """Takes the generation."""
        await super().migrate_begin(cpu, reason)
        self._early = await self.next_generation()

    async def unmap_done(self, cpu: PerCpu) -> None:
        """Uses it."""
        request = cpu.current.policy_state
        if request is not None:
            request.gen = self._early


class MaskBeforeUnmap(MigrcV3):
    """arch/x86/include/asm/tlbflush.h, arch_tlbbatch_add_mm: generation first, then `mm_cpumask`.

    Here the mask is read before the entry is changed: who loads the mm in between is not in it, and finds
    the generation as it was.
    """

    name = "mistake:mask-before-unmap"

    def __init__(self) -> None:
        super().__init__()
        self._mask = 0

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """Reads the mask."""
        await super().before_unmap(cpu, src)
        self._mask = await Load(cpumask_word(cpu.current.mm))

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Uses it."""
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is not None and request.tlb_ubc_ro.nr_flush_required:
            request.tlb_ubc_ro.cpumask = self._mask
        await super().after_unmap(cpu, src, dst)


class DefersWritable(MigrcV3):
    """v3, set_tlb_ubc_flush_pending: `if (pte_write(pteval) || writable)` chooses the ordinary batch.

    Here every entry is taken for read-only: a CPU goes on writing to the source after the copy.
    """

    name = "mistake:defers-writable"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """Everything may wait."""
        request: RequestUnderConstruction | None = task.policy_state
        return task.tlb_ubc if request is None else request.tlb_ubc_ro


class NotUndone(MigrcV3):
    """RFC v2 has no migrc_undo_folios (v3 added it): a folio that cannot be moved keeps mark and count."""

    name = "mistake:not-undone"

    async def folio_not_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Nothing is taken back."""


class MarksWhatIsPending(MigrcV3):
    """v3, in the unmap loop: `!folio_test_migrc(src)` keeps a pending folio from being marked again.

    Here it is marked again; undoing the second mark takes the first one with it, so a write fault does not
    know that the folio is pending.
    """

    name = "mistake:marks-what-is-pending"

    async def may_mark(self, src: int) -> bool:
        """Always."""
        return True


class MovedAgainWithoutFlush(MigrcRfc2):
    """RFC v2, migrate_pages_batch: `if (need_migrc_flush) migrc_try_flush_free_folios()`, here left out."""

    name = "mistake:moved-again-without-flush"

    async def after_flush(self, cpu: PerCpu) -> None:
        """Forgets that a folio of the batch was pending."""
        pair: RequestPair | None = cpu.current.policy_state
        if pair is not None:
            pair.flush_after = False
        await super().after_flush(cpu)


class HungTooEarly(MigrcV3):
    """v3, migrc_req_end: a request is hung when its batch is through. Here when its folios are unmapped.

    Another CPU flushes for it and drops the references that the migration still counts on.
    """

    name = "mistake:hung-too-early"

    async def unmap_done(self, cpu: PerCpu) -> None:
        """Shares the request while it is still being worked on."""
        await super().unmap_done(cpu)
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is not None and request.marked:
            await self.hang(cpu, request, tuple(request.marked))

    async def migrate_end(self, cpu: PerCpu) -> None:
        """It hangs already."""
        cpu.current.policy_state = None
