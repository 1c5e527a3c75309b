"""Mistakes in what a request says: its generation, its CPUs, its folios, and when others see it."""

from __future__ import annotations

from emulator.hardware.operations import LlistDelAll, Load
from emulator.hardware.pte import pte_dirty
from emulator.kernel.percpu import PerCpu, Task, TlbUbc, cpumask_word
from emulator.policies.migrc import Request, RequestUnderConstruction
from emulator.policies.migrc_rfc2 import MIGRC_REQS, MigrcRfc2, RequestPair
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


class FailureDropsTheBatch(MigrcV3):
    """v3, migrc_undo_folios takes back one folio. Here a failed move empties the request.

    What was moved before it keeps its reference for ever.
    """

    name = "mistake:failure-drops-the-batch"

    async def folio_not_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Forgets the others."""
        await super().folio_not_moved(cpu, src, dst)
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is not None:
            request.folios.clear()


class MaskOfTheLastRequest(MigrcV3):
    """v3, migrc_gather: `arch_tlbbatch_fold` for each request. Here the last one's CPUs stand."""

    name = "mistake:mask-of-the-last-request"

    async def take_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> tuple[TlbUbc, list[int]]:
        """Overwrites the mask."""
        batch = TlbUbc()
        folios: list[int] = []
        for name in names:
            for node in await LlistDelAll(name):
                request = Request(*node)
                batch.cpumask = await self.skip_flushed_cpus(cpu, request)
                folios += request.folios
        return batch, folios


class SkipsByTheFirstRequest(MigrcV3):
    """v3, arch_migrc_adj for each request. Here once for all, by the earliest generation of the lists."""

    name = "mistake:skips-by-the-first-request"

    async def take_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> tuple[TlbUbc, list[int]]:
        """Folds first and skips then."""
        batch = TlbUbc()
        folios: list[int] = []
        first: int | None = None
        for name in names:
            for node in await LlistDelAll(name):
                request = Request(*node)
                first = request.gen if first is None or self.before(request.gen, first) else first
                batch.cpumask |= request.cpumask
                folios += request.folios
        if first is not None:
            batch.cpumask = await self.skip_flushed_cpus(cpu, Request(first, batch.cpumask, ()))
        return batch, folios


class DefersWhatIsClean(MigrcV3):
    """v3, set_tlb_ubc_flush_pending: `pte_write` chooses the ordinary batch. Here only `pte_dirty` does.

    The destination is mapped writable, so that nobody faults before it differs from the source.
    """

    name = "mistake:defers-what-is-clean"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """What nobody has written through may wait."""
        request: RequestUnderConstruction | None = task.policy_state
        if request is not None and not pte_dirty(pte):
            return request.tlb_ubc_ro
        return super().batch_for(task, pte)


class DefersTheWholeBatch(MigrcV3):
    """v3, can_migrc_test: nothing was added to the ordinary batch. Here one entry that may wait is enough."""

    name = "mistake:defers-the-whole-batch"

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Puts off what the other entries owe as well."""
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is not None and request.tlb_ubc_ro.nr_flush_required:
            request.tlb_ubc_ro.fold(cpu.current.tlb_ubc)
            request.nr_required = 0
        await super().after_unmap(cpu, src, dst)


class DrainsWhatIsClean(MigrcRfc2):
    """RFC v2 keeps two lists. Here the last flush takes only that of clean entries."""

    name = "mistake:drains-what-is-clean"

    async def drain(self, cpu: PerCpu) -> None:
        """Forgets the other one."""
        await self.flush_lists(cpu, (MIGRC_REQS,))


class MaskOfTheFirstFolio(MigrcV3):
    """v3, migrc_mark_folios folds every folio's mask into the batch's.

    Here the batch keeps that of its first folio.
    """

    name = "mistake:mask-of-the-first-folio"

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Forget whom this folio has added."""
        request = cpu.current.policy_state
        first = request.batch.cpumask if request is not None else 0
        await super().after_unmap(cpu, src, dst)
        if first:
            request.batch.cpumask = first
