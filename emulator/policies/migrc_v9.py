"""MIGRC v9 (<20240417071847.29584-1-byungchul@sk.com>, linux-mm, April 2024; its successor is LUF).

What waits is no folio but the flush: sources are freed at once, and the flush is due when a frame leaves the
allocator again, or when a mapping becomes writable. CPUs that may hold old translations are merged into one
global mask; a freed page keeps the generation of the flush that it needs, 16 bits, 0 for none. There are no
per-CPU notes any more: a CPU leaves the mask when the flush of any unmap batch has reached it, and a flush is
not repeated for a generation that is done.

Three departures. The generation skips 0, as its comment says; the posted expression is computed in int, so it
does give 0 after 65535. It is noted for the page before the migration drops its reference, whoever drops the
last one; folio_put_mgen, posted, loses it if that is somebody else. And whoever finds a generation done has
looked under the lock, which orders what follows; the posting first looks without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from emulator.hardware.operations import Load, Lock, Operation, Series, Store, Unlock, WaitFor
from emulator.hardware.pte import pte_dirty, pte_write
from emulator.kernel.migrate import folio_order
from emulator.kernel.percpu import TlbUbc
from emulator.kernel.policy import Policy
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.kernel.smp import cpus_of

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu, Task

GENERATION_BITS = 16
NO_GENERATION = 0

MIGRC_LOCK = "migrc_lock"
# The rest of the words change under MIGRC_LOCK only.
MIGRC_UBC = "migrc_ubc"  # the merged mask
ON_FLUSHING = "on_flushing"  # flushes of unmap batches under way
MIGRC_ON_FLUSHING = "migrc_on_flushing"  # the merged mask has been taken and is being flushed
MIGRC_GEN = "migrc_gen"  # what was handed out last
MIGRC_GEN_BEGUN = "migrc_gen_begun"  # the last whose flush has begun; the posting keeps the one after it
MIGRC_GEN_DONE = "migrc_gen_done"  # the last whose flush is done


PAGE_GENERATION = "migrc_page_gen."


def page_generation_word(pfn: int) -> str:
    """page_buddy_mgen: the generation whose flush a free page still needs, 0 for none."""
    return f"{PAGE_GENERATION}{pfn}"


class Batch:
    """What one migration batch puts off: whom to flush, for which sources, and the generation it got.

    `tlb_ubc_ro`: what is owed for entries of the current folio that may wait; the task's own in the posting.
    """

    __slots__ = ("gen", "nr_required", "pending", "sources", "tlb_ubc_ro")

    def __init__(self) -> None:
        self.tlb_ubc_ro = TlbUbc()
        self.pending = TlbUbc()
        self.sources: dict[int, None] = {}  # a set in the order of its making
        self.nr_required = 0
        self.gen = NO_GENERATION


class OneMask(Policy):
    """What LUF v10 and v11 have of it: generations, and how what is pending is flushed; `bits` is the width
    of a generation, of which 0 means none."""

    frees_before_flush = True
    words_at_rest = (ON_FLUSHING, MIGRC_ON_FLUSHING)
    pending_words = (PAGE_GENERATION, ON_FLUSHING, MIGRC_ON_FLUSHING)  # change when a flush begins or is done

    def __init__(self, bits: int = GENERATION_BITS) -> None:
        self.bits = bits

    def pending_after(self, operation: Operation, pending: int, words: Mapping[str, int]) -> int:
        """Pages that were freed with the generation under way, while anybody has to be flushed for it."""
        owed = bool(words.get(MIGRC_UBC) or words.get(MIGRC_ON_FLUSHING))
        if isinstance(operation, Store) and operation.word.startswith(PAGE_GENERATION):
            return pending + (owed and operation.value == self.mgen_next(words.get(MIGRC_GEN_DONE, 0)))
        return pending if owed else 0

    # --- generations ---------------------------------------------------------------------------------

    def mgen_next(self, gen: int) -> int:
        """mgen_next: counts round, past 0."""
        return (gen + 1) % (1 << self.bits) or 1

    def mgen_before(self, a: int, b: int) -> bool:
        """(short)(a - b) < 0."""
        return (a - b) % (1 << self.bits) >= 1 << (self.bits - 1)

    def mgen_latest(self, a: int, b: int) -> int:
        """The later of two; none is earlier than any."""
        if NO_GENERATION in (a, b):
            return a or b
        return b if self.mgen_before(a, b) else a

    async def may_add(self) -> bool:
        """Nothing is added while anybody flushes: it would be cleared unflushed ("flush races add")."""
        flushing, taken = await Series((Load(ON_FLUSHING), Load(MIGRC_ON_FLUSHING)))
        return not flushing and not taken

    # --- flushing --------------------------------------------------------------------------------------

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """rmap_flush_start."""
        await Lock(MIGRC_LOCK)
        await Store(ON_FLUSHING, await Load(ON_FLUSHING) + 1)
        await Unlock(MIGRC_LOCK)

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """rmap_flush_end: these CPUs have dropped everything, so what was pending for them is done too."""
        await Lock(MIGRC_LOCK)
        pending, flushing = await Series((Load(MIGRC_UBC), Load(ON_FLUSHING)))
        cpu.count("migrc_skipped", len(cpus_of(pending & mask)))
        await Store(MIGRC_UBC, pending & ~mask)
        await Store(ON_FLUSHING, flushing - 1)
        await Unlock(MIGRC_LOCK)

    async def others_are_flushing(self) -> bool:
        """The mask was taken and its flush is not done: empty means nothing ("empty is not done")."""
        return bool(await Load(MIGRC_ON_FLUSHING))

    async def check_migrc_flush(self, cpu: PerCpu, gen: int) -> bool:
        """Return when the flush of this generation is done, by whomever; whether it was done here."""
        if gen == NO_GENERATION:
            return False
        while True:
            if await self.looks_done(gen):
                return False
            await Lock(MIGRC_LOCK)
            if self.mgen_next(await Load(MIGRC_GEN_DONE)) != gen:
                # Only the generation after the one that is done can be pending.
                await Unlock(MIGRC_LOCK)
                return False
            if not await self.others_are_flushing():
                break
            await Unlock(MIGRC_LOCK)
            await WaitFor(MIGRC_ON_FLUSHING, 0)
        mask = await Load(MIGRC_UBC)
        if not mask:
            await Unlock(MIGRC_LOCK)
            return False
        await self.take(mask, gen)
        await Unlock(MIGRC_LOCK)
        await self.flush(cpu, mask)
        await Lock(MIGRC_LOCK)
        await Store(MIGRC_ON_FLUSHING, 0)
        await Store(MIGRC_GEN_DONE, gen)
        await Unlock(MIGRC_LOCK)
        return True

    async def looks_done(self, gen: int) -> bool:
        """Without the lock; see above."""
        return False

    async def take(self, mask: int, gen: int) -> None:
        """Under the lock: the mask is this CPU's to flush; what is added later needs the next flush."""
        await Store(MIGRC_UBC, 0)
        await Store(MIGRC_GEN_BEGUN, gen)
        await Store(MIGRC_ON_FLUSHING, 1)

    async def flush(self, cpu: PerCpu, mask: int) -> None:
        """try_to_unmap_flush, with what was taken folded into the task's own batch."""
        cpu.count("migrc_flushes")
        cpu.current.tlb_ubc.cpumask |= mask
        cpu.current.tlb_ubc.nr_flush_required += 1
        await try_to_unmap_flush(cpu)

    async def migrc_flush(self, cpu: PerCpu) -> bool:
        """Everything that is pending now; whether there was anything left to do."""
        await Lock(MIGRC_LOCK)
        gen = await Load(MIGRC_GEN)
        await Unlock(MIGRC_LOCK)
        return await self.check_migrc_flush(cpu, gen)

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """check_flush_task_mgen in prep_new_page: the flush that was put off when these pages were freed."""
        pages = tuple(page_generation_word(page) for page in range(pfn, pfn + (1 << order)))
        latest = NO_GENERATION
        for word, gen in zip(pages, await Series(tuple(Load(word) for word in pages)), strict=True):
            latest = self.mgen_latest(latest, gen)
            if gen != NO_GENERATION:
                await Store(word, NO_GENERATION)
        await self.check_migrc_flush(cpu, latest)

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """do_wp_page: the folio may be the copy of a source that is still read, so flush what is pending."""
        if await self.migrc_flush(cpu):
            cpu.count("migrc_write_faults")

    async def drain(self, cpu: PerCpu) -> None:
        """Flush until the mask is empty."""
        while await Load(MIGRC_UBC):
            await self.migrc_flush(cpu)


class MigrcV9(OneMask):
    """`migrc:v9`."""

    name = "migrc:v9"
    description = "frees sources at once, flushes before their frames are used again; one mask for all"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """Read-only and clean: may be put off, whatever the migration is for."""
        batch: Batch | None = task.policy_state
        if batch is not None and not pte_write(pte) and not pte_dirty(pte):
            return batch.tlb_ubc_ro
        return super().batch_for(task, pte)

    async def migrate_begin(self, cpu: PerCpu, reason: str) -> None:
        """pending_ubc of migrate_pages_batch."""
        cpu.current.policy_state = Batch()

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """can_migrc_init: remember what the ordinary batch owes, to see whether this folio adds to it."""
        batch: Batch = cpu.current.policy_state
        batch.nr_required = cpu.current.tlb_ubc.nr_flush_required

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """can_migrc_test: only read-only mappings were found, and some at all."""
        owed = cpu.current.tlb_ubc
        batch: Batch = cpu.current.policy_state
        if owed.nr_flush_required == batch.nr_required and batch.tlb_ubc_ro.nr_flush_required:
            batch.pending.fold(batch.tlb_ubc_ro)
            batch.sources[src] = None
        owed.fold(batch.tlb_ubc_ro)

    async def unmap_done(self, cpu: PerCpu) -> None:
        """Pending before any mapping names a destination: a write there has to find it."""
        batch: Batch = cpu.current.policy_state
        if batch.sources:
            batch.gen = await self.migrc_add_pending_ubc(cpu, batch.pending)

    async def migrc_add_pending_ubc(self, cpu: PerCpu, ubc: TlbUbc) -> int:
        """Merge CPUs into the mask; the generation that covers them, or 0 if the flush is to be done now."""
        await Lock(MIGRC_LOCK)
        gen = NO_GENERATION
        if await self.may_add():
            await Store(MIGRC_UBC, await Load(MIGRC_UBC) | ubc.cpumask)
            gen = self.mgen_next(await Load(MIGRC_GEN_BEGUN))
            await Store(MIGRC_GEN, gen)
            ubc.clear()
        else:
            cpu.count("migrc_given_up")
            cpu.current.tlb_ubc.fold(ubc)
        await Unlock(MIGRC_LOCK)
        return gen

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """migrate_folio_done: the source is about to be freed, with the generation that it needs."""
        batch: Batch = cpu.current.policy_state
        if batch.gen != NO_GENERATION and src in batch.sources:
            # The head of a free block has it, and expand hands it on to the parts.
            for page in range(src, src + (1 << await folio_order(cpu, src))):
                await Store(page_generation_word(page), batch.gen)
            cpu.count("migrc_deferred")

    async def migrate_end(self, cpu: PerCpu) -> None:
        """Nothing is kept; sources that stayed where they are have cost a flush at worst."""
        cpu.current.policy_state = None
