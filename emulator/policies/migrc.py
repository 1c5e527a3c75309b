"""What the versions of MIGRC share: generations, the notes of local flushes, flushing a list.

Migration Read Copy (B. Park, linux-mm 2023): a read-only translation of a migrated folio may stay in
TLBs as long as the source folio stays. A request keeps the sources of one batch, the CPUs that may
hold translations and the generation after the unmap; a CPU whose last flush began at that generation
or later is not interrupted for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    BeginLoad,
    EndLoad,
    FolioPut,
    LlistDelAll,
    Load,
    Series,
    SmpMb,
    Store,
)
from emulator.kernel.percpu import PF_KSWAPD, TlbUbc
from emulator.kernel.policy import MR_DEMOTION, MR_NUMA_MISPLACED, Policy
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import arch_tlbbatch_flush

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu

MIGRC_GEN = "migrc_gen"
GENERATION_BITS = 32
PENDING_NR = "migrc_pending_nr."


def migrc_done_word(cpu: int) -> str:
    """per_cpu(migrc_done, cpu): the generation at which this CPU's last local flush began."""
    return f"migrc_done.{cpu}"


def pending_word(node: int) -> str:
    """NODE_DATA(node)->migrc_pending_nr, in pages."""
    return f"{PENDING_NR}{node}"


class Request(NamedTuple):
    """A finished struct migrc_req as it hangs on a list: plain values that can travel."""

    gen: int
    cpumask: int
    folios: tuple[int, ...]


class RequestUnderConstruction:
    """struct migrc_req while the migrating task builds it up, private to that task: its `policy_state`.

    `tlb_ubc_ro`: what is owed for entries of the current folio that may wait; the task's own in the postings.
    """

    __slots__ = ("batch", "folios", "gen", "marked", "nr_required", "tlb_ubc_ro")

    def __init__(self) -> None:
        self.batch = TlbUbc()
        self.tlb_ubc_ro = TlbUbc()
        self.folios: list[int] = []
        self.gen = 0
        self.marked: dict[int, int] = {}
        self.nr_required = 0


class Migrc(Policy):
    """The mechanism common to the versions; `bits` is the width of the generation counter."""

    words_at_rest: ClassVar[tuple[str, ...]] = (PENDING_NR,)
    pending_words = (PENDING_NR,)

    def __init__(self, bits: int = GENERATION_BITS) -> None:
        self.bits = bits
        self._noted = 0

    # --- generations -------------------------------------------------------------------------------

    def before(self, a: int, b: int) -> bool:
        """(int)(a - b) < 0 in a counter of `bits` bits: right while less than half the range lies between."""
        return (a - b) % (1 << self.bits) >= 1 << (self.bits - 1)

    async def next_generation(self) -> int:
        """atomic_inc_return(&migrc_gen): comes after the unmap, so that a flush that reads it covers it."""
        return await AtomicAdd(MIGRC_GEN, 1) % (1 << self.bits)

    async def local_flush_begin(self, cpu: PerCpu) -> int:
        """Read the generation before flushing: later requests are not covered by this flush.

        The token is the handle of a load that nothing needs before the note is taken.
        """
        handle = await BeginLoad(Load(MIGRC_GEN))
        await self.barrier_before_flush()
        return handle

    async def barrier_before_flush(self) -> None:
        """Keeps the read of the generation before the flush. Pairs with the increment after the unmap."""
        await SmpMb()

    async def local_flush_end(self, cpu: PerCpu, token: int) -> None:
        """Note it only after the flush."""
        await self.barrier_after_flush()
        gen = await EndLoad(token) % (1 << self.bits)
        # Nobody else writes this CPU's note, so what was stored last need not be read back.
        if self.is_worth_noting(self._noted, gen):
            self._noted = gen
            await Store(migrc_done_word(cpu.number), gen)

    def is_worth_noting(self, noted: int, gen: int) -> bool:
        """The note only moves forward. (From half the range on it does not move at all any more.)"""
        return self.before(noted, gen)

    async def barrier_after_flush(self) -> None:
        """Keeps the flush before the note. Pairs with the flusher's reading of the note."""
        await SmpMb()

    # --- flushing what is pending ----------------------------------------------------------------------

    async def skip_flushed_cpus(self, cpu: PerCpu, request: Request) -> int:
        """arch_migrc_adj: the request's CPUs without those that have flushed since."""
        mask = request.cpumask
        targets = cpus_of(mask)
        notes = await Series(tuple(Load(migrc_done_word(target)) for target in targets))
        for target, done in zip(targets, notes, strict=True):
            if not self.before(done, request.gen):
                mask &= ~(1 << target)
                cpu.count("migrc_skipped")
        return mask

    async def take_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> tuple[TlbUbc, list[int]]:
        """migrc_gather: whole lists, with all that their requests want flushed and freed, taken together."""
        batch = TlbUbc()
        folios: list[int] = []
        for name in names:
            for node in await LlistDelAll(name):
                request = Request(*node)
                batch.cpumask |= await self.skip_flushed_cpus(cpu, request)
                folios += request.folios
        return batch, folios

    async def flush_lists(self, cpu: PerCpu, names: tuple[str, ...]) -> bool:
        """Take whole lists, flush for all requests at once, release the folios; whether there were any."""
        batch, folios = await self.take_lists(cpu, names)
        if folios:
            cpu.count("migrc_flushes")
            await arch_tlbbatch_flush(cpu, batch)
        return await self.release_all(cpu, folios)

    async def release_all(self, cpu: PerCpu, folios: Sequence[int]) -> bool:
        """migrc_shrink: let them go; whether there were any."""
        for pfn in folios:
            await self.release(cpu, pfn)
        return bool(folios)

    async def release(self, cpu: PerCpu, pfn: int) -> None:
        """migrc_shrink for one folio: it is not pending any more; the reference that kept it goes."""
        await AtomicAdd(pending_word(cpu.parameters.nid(pfn)), -1)
        await FolioPut(pfn)

    async def pending_pages(self, cpu: PerCpu, node: int) -> int:
        """migrc_pending_nr_in_zone."""
        return await Load(pending_word(node))


def migrates_for_tiering(cpu: PerCpu, reason: str) -> bool:
    """The migrations that the postings defer for: kswapd's demotion and NUMA promotion."""
    return (reason == MR_DEMOTION and bool(cpu.current.flags & PF_KSWAPD)) or reason == MR_NUMA_MISPLACED
