"""What all versions of LUF do between clearing an entry and freeing the frame that it named.

Of a folio whose entries were all read-only the flush is put off and given to the frame: a number (`ugen`, or
a key) that comes with the batch's `put_off`. All else is flushed for as mainline does.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from emulator.hardware.pte import pte_dirty, pte_write
from emulator.kernel.migrate import folio_order
from emulator.kernel.percpu import TlbUbc
from emulator.kernel.policy import Policy
from emulator.kernel.rmap import try_to_unmap_flush

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu


class LufTask:
    """What LUF has added to struct task_struct; and the folios that are freed with the next key."""

    __slots__ = (
        "can_luf",
        "flush_ugen",
        "folios",
        "keys",
        "luf_ugen",
        "mapping",
        "moved",
        "started",
        "tlb_ubc_luf",
        "tlb_ubc_ro",
        "tlb_ubc_takeoff",
        "wait_zone_ugen",
        "zone_ugen",
    )

    def __init__(self) -> None:
        self.tlb_ubc_ro = TlbUbc()
        self.tlb_ubc_luf = TlbUbc()
        self.tlb_ubc_takeoff = TlbUbc()
        self.can_luf = False
        self.mapping: int | None = None  # the file of the folio that is unmapped
        self.moved = False
        self.started = False  # v11: rmap_flush_start has got the lock
        self.flush_ugen = 0
        self.luf_ugen = 0
        self.zone_ugen = 0
        self.wait_zone_ugen = 0
        self.folios: dict[int, None] = {}
        self.keys: dict[int, int] = {}


class LufUnmap(Policy):
    """The walks, the batches and the numbers of the frames."""

    frees_before_flush = True
    dsb_for_others = False

    def task(self, cpu: PerCpu) -> LufTask:
        """What it has under way for the current task."""
        task = cpu.current
        if task.policy_state is None:
            task.policy_state = LufTask()
        state: LufTask = task.policy_state
        return state

    @abstractmethod
    async def put_off(self, cpu: PerCpu) -> int:
        """What `tlb_ubc_luf` owes is owed by all from here on; the number for the frames, 0 if the task still
        owes it."""

    async def unmap_begin(self, cpu: PerCpu, pfn: int, reason: str) -> None:
        """can_luf_init: any small folio, anonymous or of a file."""
        self.task(cpu).can_luf = not await folio_order(cpu, pfn)

    async def unmapped(self, cpu: PerCpu, mm: int, vpn: int, pte: int, pfn: int, reason: str) -> TlbUbc:
        """set_tlb_ubc_flush_pending: one writable entry, and the whole folio is flushed for."""
        state = self.task(cpu)
        batch = cpu.current.tlb_ubc
        if pte_write(pte):
            state.can_luf = False
        if state.can_luf:
            batch = state.tlb_ubc_ro
            await self.owed_by_mm(cpu, mm)
        if pte_dirty(pte):
            batch.writable = True
        return batch

    async def owed_by_mm(self, cpu: PerCpu, mm: int) -> None:
        """A read-only entry of the mm is gone; the page table is still locked."""

    async def unmap_end(self, cpu: PerCpu, pfn: int, reason: str, done: bool) -> None:
        """can_luf_test, at the end of try_to_migrate and try_to_unmap."""
        state = self.task(cpu)
        if state.can_luf and done:
            state.tlb_ubc_luf.fold(state.tlb_ubc_ro)
            state.folios[pfn] = None
        else:
            cpu.current.tlb_ubc.fold(state.tlb_ubc_ro)

    async def give_keys(self, cpu: PerCpu) -> None:
        """All that was put off since the last time gets one key."""
        state = self.task(cpu)
        key = await self.put_off(cpu)
        if key:
            state.keys.update(dict.fromkeys(state.folios, key))
        state.folios.clear()

    async def unmap_done(self, cpu: PerCpu) -> None:
        """migrate_pages_batch: "should be before try_to_unmap_flush()"."""
        await self.give_keys(cpu)

    async def reclaim_unmapped(self, cpu: PerCpu) -> None:
        """shrink_folio_list, likewise."""
        await self.give_keys(cpu)

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrate_folio_done comes next, which expects the last reference."""
        self.task(cpu).moved = True

    async def migrate_end(self, cpu: PerCpu) -> None:
        """What is freed from here on was reclaimed."""
        self.task(cpu).moved = False

    async def folio_not_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrate_folios_undo: what is mapped is the source again."""
        self.task(cpu).keys.pop(src, None)

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush_dirty."""
        state = self.task(cpu)
        if cpu.current.tlb_ubc.writable or state.tlb_ubc_ro.writable or state.tlb_ubc_luf.writable:
            await try_to_unmap_flush(cpu)

    async def unmap_flush_wanted(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush flushes for what was not folded, too."""
        state = self.task(cpu)
        cpu.current.tlb_ubc.fold(state.tlb_ubc_ro)
        cpu.current.tlb_ubc.fold(state.tlb_ubc_luf)
