"""MIGRC as posted in RFC v2 (linux-mm, August 2023): per-page states, global lists, a cap.

Dirty entries are deferred too, on a list of their own. At most `cap` pages of a node wait. Requests
are hung on the list before the folios are moved, so the folio's state says whether it still waits.
A pending destination that moves again makes its batch flush.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.hardware.operations import (
    AtomicAdd,
    FolioClearFlag,
    FolioGet,
    FolioSetFlag,
    FolioTestFlag,
    LlistAdd,
    LlistEmpty,
    Load,
    SmpWmb,
)
from emulator.hardware.pte import pte_dirty, pte_write
from emulator.kernel.percpu import TlbUbc
from emulator.memory.folios import PG_PRIVATE_2, PG_PRIVATE_3, PageFlag
from emulator.policies.migrc import (
    GENERATION_BITS,
    Migrc,
    Request,
    RequestUnderConstruction,
    migrates_for_tiering,
    pending_word,
)

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu, Task

# Per-page states.
PG_MIGRC_SRC = PageFlag(PG_PRIVATE_2, "PG_MIGRC_SRC")
PG_MIGRC_DST = PageFlag(PG_PRIVATE_3, "PG_MIGRC_DST")
MIGRC_REQS = "migrc_reqs"
MIGRC_REQS_DIRTY = "migrc_reqs_dirty"
PENDING_MAX = 512


class RequestPair:
    """The two requests that a migrating task builds, its `policy_state`: for clean and for dirty entries."""

    __slots__ = ("clean", "dirty", "flush_after", "nr_required", "tlb_ubc_ro")

    def __init__(self) -> None:
        self.clean = RequestUnderConstruction()
        self.dirty = RequestUnderConstruction()
        self.tlb_ubc_ro = TlbUbc()
        self.flush_after = False
        self.nr_required = 0


class MigrcRfc2(Migrc):
    """`migrc:rfc2`; `cap` is migrc_pending_max in pages."""

    name = "migrc:rfc2"
    description = (
        "keeps sources, of dirty mappings too, at most 512 of a node; hangs requests before the move"
    )
    page_flags = (PG_MIGRC_SRC, PG_MIGRC_DST)

    def __init__(self, bits: int = GENERATION_BITS, cap: int = PENDING_MAX) -> None:
        super().__init__(bits)
        self.cap = cap

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """Whatever is not writable may be deferred; dirty is remembered."""
        pair: RequestPair | None = task.policy_state
        if pair is None or pte_write(pte):
            return super().batch_for(task, pte)
        if pte_dirty(pte):
            pair.tlb_ubc_ro.writable = True
        return pair.tlb_ubc_ro

    def is_worth_noting(self, noted: int, gen: int) -> bool:
        """RFC v1 and v2 write the note without looking at the old one; the same value again shows nowhere."""
        return gen != noted

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush_dirty: what waits for a flush of dirty entries is flushed for, too."""
        await super().flush_before_io(cpu)
        await self.flush_lists(cpu, (MIGRC_REQS_DIRTY,))

    async def needs_flush_to_move(self, src: int) -> bool:
        """migrc_dst_pending: the stale translations of a pending destination name an even older frame."""
        return await FolioTestFlag(src, PG_MIGRC_DST)

    async def _is_full(self, cpu: PerCpu, pfn: int) -> bool:
        return await Load(pending_word(cpu.parameters.nid(pfn))) >= self.cap

    async def migrate_begin(self, cpu: PerCpu, reason: str) -> None:
        """migrc_req_start."""
        if migrates_for_tiering(cpu, reason):
            cpu.current.policy_state = RequestPair()

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """Remember what the ordinary batch owes, to see whether this folio adds to it."""
        pair = cpu.current.policy_state
        if pair is not None:
            pair.nr_required = cpu.current.tlb_ubc.nr_flush_required

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrc_expand_req if only read-only mappings were found and the node is not full."""
        owed = cpu.current.tlb_ubc
        pair: RequestPair | None = cpu.current.policy_state
        if pair is None:
            return
        if (
            owed.nr_flush_required == pair.nr_required
            and pair.tlb_ubc_ro.nr_flush_required
            and not await self._is_full(cpu, src)
        ):
            await self._expand(cpu, pair, src, dst)
        if await self.needs_flush_to_move(src):
            pair.flush_after = True
        owed.fold(pair.tlb_ubc_ro)

    async def _expand(self, cpu: PerCpu, pair: RequestPair, src: int, dst: int) -> None:
        ubc = pair.tlb_ubc_ro
        request = pair.dirty if ubc.writable else pair.clean
        request.batch.fold(ubc)
        await FolioGet(src)
        await FolioSetFlag(src, PG_MIGRC_SRC)
        await FolioSetFlag(dst, PG_MIGRC_DST)
        # The state must be visible before an entry that names the destination.
        await SmpWmb()
        request.folios.append(src)
        await AtomicAdd(pending_word(cpu.parameters.nid(src)), 1)
        cpu.count("migrc_deferred")
        if await self._is_full(cpu, src):
            await self.try_flush_free_folios(cpu)

    async def _hang(self, request: RequestUnderConstruction, name: str) -> None:
        if request.folios:
            gen = await self.next_generation()
            await LlistAdd(name, Request(gen, request.batch.cpumask, tuple(request.folios)))

    async def _end(self, pair: RequestPair) -> None:
        await self._hang(pair.clean, MIGRC_REQS)
        await self._hang(pair.dirty, MIGRC_REQS_DIRTY)
        pair.clean = RequestUnderConstruction()
        pair.dirty = RequestUnderConstruction()

    async def unmap_done(self, cpu: PerCpu) -> None:
        """migrc_req_end."""
        pair: RequestPair | None = cpu.current.policy_state
        if pair is not None:
            await self._end(pair)

    async def after_flush(self, cpu: PerCpu) -> None:
        """need_migrc_flush: before anything is moved."""
        pair: RequestPair | None = cpu.current.policy_state
        cpu.current.policy_state = None
        if pair is not None and pair.flush_after:
            await self.try_flush_free_folios(cpu)

    async def extra_references(self, cpu: PerCpu, src: int, dst: int) -> int:
        """folio_expected_refs: one more while the folio waits as a source."""
        return int(await FolioTestFlag(src, PG_MIGRC_SRC))

    async def release(self, cpu: PerCpu, pfn: int) -> None:
        """migrc_shrink: back to the initial state before the folio can be allocated again."""
        await FolioClearFlag(pfn, PG_MIGRC_SRC)
        await SmpWmb()
        await super().release(cpu, pfn)

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """migrc_try_flush_free_folios: a request under construction is hung first, to be flushed too."""
        if isinstance(cpu.current.policy_state, RequestPair):
            await self._end(cpu.current.policy_state)
        # As posted: `ret = ret || flush(dirty)` leaves the dirty list when the first had some.
        return await self.flush_lists(cpu, (MIGRC_REQS,)) or await self.flush_lists(cpu, (MIGRC_REQS_DIRTY,))

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """do_wp_page: give up deferring before the folio can differ from its read copy."""
        if await FolioTestFlag(pfn, PG_MIGRC_SRC | PG_MIGRC_DST):
            cpu.count("migrc_write_faults")
            await self.try_flush_free_folios(cpu)

    async def slowpath_enter(self, cpu: PerCpu) -> None:
        """__alloc_pages_slowpath: flush first."""
        await self.try_flush_free_folios(cpu)

    async def allocation_failed(self, cpu: PerCpu, order: int) -> bool:
        """__alloc_pages: for high orders flush and try again."""
        return order > 0 and await self.try_flush_free_folios(cpu)

    async def drain(self, cpu: PerCpu) -> None:
        """Flush until both lists are empty."""
        for name in (MIGRC_REQS, MIGRC_REQS_DIRTY):
            while not await LlistEmpty(name):
                await self.try_flush_free_folios(cpu)
