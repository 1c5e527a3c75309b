"""MIGRC as posted in v3 (<20231030072540.38631-1-byungchul@sk.com>, linux-mm, October 2023).

One page flag on both folios, one list of requests per node, no cap; an entry that is dirty is not
deferred for, nor a folio that already is under MIGRC. A failing watermark flushes; the allocation
slow path pauses deferral. One departure: where the posting drops a half-built request when a pause
begins in the middle of a batch (which would leak the folios already marked), this stops marking and
finishes the request for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emulator.hardware.operations import (
    AtomicAdd,
    FolioClearFlag,
    FolioGet,
    FolioPut,
    FolioSetFlag,
    FolioTestFlag,
    LlistAdd,
    LlistEmpty,
    Load,
    Series,
    Store,
)
from emulator.hardware.pte import pte_dirty, pte_write
from emulator.memory.folios import PG_PRIVATE_1, PageFlag
from emulator.policies.migrc import (
    GENERATION_BITS,
    Migrc,
    Request,
    RequestUnderConstruction,
    migrates_for_tiering,
    pending_word,
)

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu, Task, TlbUbc

PG_MIGRC = PageFlag(PG_PRIVATE_1, "PG_MIGRC")  # the folio has a read copy whose flush is pending
MIGRC_STOP = "migrc_stop"
# The runtime switch (vm.migrc_enable), inverted: 0 is on, so that nobody has to turn it on first.
MIGRC_DISABLED = "migrc_disabled"


def requests_list(node: int) -> str:
    """NODE_DATA(node)->migrc_reqs."""
    return f"migrc_reqs.{node}"


class MigrcV3(Migrc):
    """`migrc`, `migrc:v3`."""

    name = "migrc:v3"
    description = "keeps sources of clean read-only mappings until they are flushed for; a list per node"
    words_at_rest = (*Migrc.words_at_rest, MIGRC_STOP)
    page_flags = (PG_MIGRC,)

    def __init__(self, bits: int = GENERATION_BITS) -> None:
        super().__init__(bits)
        self._pausing: frozenset[int] = frozenset()

    async def _paused(self) -> bool:
        """can_migrc_system, negated: nothing more is deferred. Asked for every batch and every folio."""
        stopped, disabled = await Series((Load(MIGRC_STOP), Load(MIGRC_DISABLED)))
        return bool(stopped or disabled)

    async def set_enabled(self, cpu: PerCpu, on: bool) -> None:
        """The runtime switch. Turned off, it defers no more; what is pending waits for the next flush."""
        await Store(MIGRC_DISABLED, int(not on))

    def _lists(self, cpu: PerCpu) -> tuple[str, ...]:
        return tuple(requests_list(node) for node in range(len(cpu.parameters.watermarks)))

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """Read-only and clean: may be deferred. Everything else is owed as in mainline."""
        request: RequestUnderConstruction | None = task.policy_state
        if request is not None and not pte_write(pte) and not pte_dirty(pte):
            return request.tlb_ubc_ro
        return super().batch_for(task, pte)

    async def migrate_begin(self, cpu: PerCpu, reason: str) -> None:
        """migrc_req_start."""
        if migrates_for_tiering(cpu, reason) and not await self._paused():
            cpu.current.policy_state = RequestUnderConstruction()

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """Remember what the ordinary batch owes, to see whether this folio adds to it."""
        request = cpu.current.policy_state
        if request is not None:
            request.nr_required = cpu.current.tlb_ubc.nr_flush_required

    async def may_mark(self, src: int) -> bool:
        """What is pending (migrc_pending_folio) and moves again is owed the ordinary flush."""
        return not await FolioTestFlag(src, PG_MIGRC) and not await self._paused()

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrc_mark_folios if only read-only mappings were found; else the flush is owed at once."""
        owed = cpu.current.tlb_ubc
        request: RequestUnderConstruction | None = cpu.current.policy_state
        if request is None:
            return
        if (
            owed.nr_flush_required == request.nr_required
            and request.tlb_ubc_ro.nr_flush_required
            and await self.may_mark(src)
        ):
            await FolioGet(src)
            await FolioSetFlag(src, PG_MIGRC)
            await FolioSetFlag(dst, PG_MIGRC)
            request.batch.fold(request.tlb_ubc_ro)
            request.marked[src] = dst
        owed.fold(request.tlb_ubc_ro)

    async def unmap_done(self, cpu: PerCpu) -> None:
        """migrc_unmap_done."""
        request = cpu.current.policy_state
        if request is not None:
            request.gen = await self.next_generation()

    async def extra_references(self, cpu: PerCpu, src: int, dst: int) -> int:
        """migrc_marked_folios: the reference taken when the folio was marked."""
        request = cpu.current.policy_state
        return int(request is not None and src in request.marked)

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrc_expand_req."""
        request = cpu.current.policy_state
        if request is not None and src in request.marked:
            request.folios.append(src)
            await AtomicAdd(pending_word(cpu.parameters.nid(src)), 1)
            cpu.count("migrc_deferred")

    async def folio_not_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrc_undo_folios."""
        request = cpu.current.policy_state
        if request is not None and request.marked.pop(src, None) is not None:
            await FolioClearFlag(src, PG_MIGRC)
            await FolioClearFlag(dst, PG_MIGRC)
            await FolioPut(src)

    async def migrate_end(self, cpu: PerCpu) -> None:
        """migrc_req_end_if_started: from here on others can flush and free what this batch deferred."""
        request: RequestUnderConstruction | None = cpu.current.policy_state
        cpu.current.policy_state = None
        if request is not None and request.folios:
            await self.hang(cpu, request, request.folios)

    async def hang(self, cpu: PerCpu, request: RequestUnderConstruction, folios: Sequence[int]) -> None:
        """llist_add: on the list of the node that the folios come from."""
        hung = Request(request.gen, request.batch.cpumask, tuple(folios))
        await LlistAdd(requests_list(cpu.parameters.nid(hung.folios[0])), hung)

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """migrc_try_flush_free_folios over all nodes: whether anything was pending."""
        return await self.flush_lists(cpu, self._lists(cpu))

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """do_wp_page: give up deferring before the folio can differ from its read copy."""
        if await FolioTestFlag(pfn, PG_MIGRC):
            await FolioClearFlag(pfn, PG_MIGRC)
            cpu.count("migrc_write_faults")
            await self.try_flush_free_folios(cpu)

    async def watermark_failed(self, cpu: PerCpu, node: int) -> bool:
        """get_page_from_freelist: free what is pending and look again."""
        return await self.try_flush_free_folios(cpu)

    async def slowpath_retry_failed(self, cpu: PerCpu) -> None:
        """migrc_stop_pending: no more deferral while somebody is this short of memory."""
        self._pausing |= {cpu.current.pid}
        await AtomicAdd(MIGRC_STOP, 1)

    async def slowpath_leave(self, cpu: PerCpu) -> None:
        """migrc_resume_pending."""
        if cpu.current.pid in self._pausing:
            self._pausing -= {cpu.current.pid}
            await AtomicAdd(MIGRC_STOP, -1)

    async def drain(self, cpu: PerCpu) -> None:
        """Flush until every list is empty."""
        for name in self._lists(cpu):
            while not await LlistEmpty(name):
                await self.try_flush_free_folios(cpu)
