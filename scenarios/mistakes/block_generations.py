"""Mistakes with v9's generations of freed pages: how they count, and which page of a block is asked."""

from __future__ import annotations

from emulator.hardware.operations import Load, Store
from emulator.kernel.percpu import INIT_MM, PerCpu
from emulator.policies.migrc_v9 import NO_GENERATION, Batch, MigrcV9, page_generation_word


class GenerationsUnsigned(MigrcV9):
    """v9's mgen_before: `return (short)(a - b) < 0`. Here a plain `a < b`.

    Of two pages of a block the one freed before the counter wrapped seems to be the later one.
    """

    name = "mistake:generations-unsigned"

    def mgen_before(self, a: int, b: int) -> bool:
        """Does not know that the counter is a ring."""
        return a < b


class GenerationZero(MigrcV9):
    """v9's comment on mgen_next: 0 means none and is skipped. The posted expression gives it after 65535."""

    name = "mistake:generation-zero"

    def mgen_next(self, gen: int) -> int:
        """Counts round, through 0."""
        return (gen + 1) % (1 << self.bits)


class AsksTheHeadOnly(MigrcV9):
    """v9's prep_new_page: the generations of all pages of the block. Here that of the first one."""

    name = "mistake:asks-the-head-only"

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """Asks as if it were one page."""
        await super().before_handed_out(cpu, pfn, 0)


class NotesTheHeadOnly(MigrcV9):
    """v9's expand hands the generation of a freed block on to its parts. Here the first page keeps it."""

    name = "mistake:notes-the-head-only"

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Notes it as if it were one page."""
        batch: Batch = cpu.current.policy_state
        if batch.gen != NO_GENERATION and src in batch.sources:
            await Store(page_generation_word(src), batch.gen)
            cpu.count("migrc_deferred")


class CountsWhatIsFree(MigrcV9):
    """v9's sources are free at once and counted so. Here they count as pending in the watermark as well."""

    name = "mistake:counts-what-is-free"

    async def pending_pages(self, cpu: PerCpu, node: int) -> int:
        """The free pages of the node that still need a flush."""
        starts = cpu.parameters.starts
        pages = 0
        for pfn in range(starts[node], starts[node + 1]):
            pages += await Load(page_generation_word(pfn)) != NO_GENERATION
        return pages


class NotesTheFirstOnly(MigrcV9):
    """v9's migrate_folio_done notes the generation for each source. Here for the first one of its batch."""

    name = "mistake:notes-the-first-only"

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Forgets the others."""
        batch: Batch = cpu.current.policy_state
        if src == next(iter(batch.sources), -1):
            await super().folio_moved(cpu, src, dst)


class NotedAfterFree(MigrcV9):
    """v9's folio_put_mgen notes the generation with the last reference. Here when the batch is through.

    Until then the frame can be had without a flush.
    """

    name = "mistake:noted-after-free"

    def __init__(self) -> None:
        super().__init__()
        self._moved: tuple[tuple[int, int], ...] = ()

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """Remembers it."""
        self._moved += ((src, dst),)

    async def migrate_end(self, cpu: PerCpu) -> None:
        """Notes them all."""
        for src, dst in self._moved:
            await super().folio_moved(cpu, src, dst)
        self._moved = ()
        await super().migrate_end(cpu)


class KernelThreadsDoNotFlush(MigrcV9):
    """v9's prep_new_page flushes for whoever allocates. Here a kernel thread, which has no mm, does not."""

    name = "mistake:kernel-threads-do-not-flush"

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """Looks whether the task has an mm."""
        if cpu.current.mm != INIT_MM:
            await super().before_handed_out(cpu, pfn, order)
