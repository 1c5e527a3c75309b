"""Mistakes around the notes of local flushes: what is read and written when, and how it is compared."""

from __future__ import annotations

from emulator.hardware.operations import BeginLoad, EndLoad, Load, SmpMb, Store
from emulator.kernel.percpu import PerCpu
from emulator.policies.migrc import MIGRC_GEN, Request, migrc_done_word
from emulator.policies.migrc_v3 import MigrcV3


class GenerationReadAfterFlush(MigrcV3):
    """arch/x86/mm/tlb.c of the postings: `gen = atomic_read(&migrc_gen)` stands before the flush.

    Here the generation is read behind it, so the note claims to cover what was unmapped after the flush.
    """

    name = "mistake:generation-read-after-flush"

    async def local_flush_end(self, cpu: PerCpu, token: int) -> None:
        """Notes what the generation is by now."""
        await EndLoad(token)
        await super().local_flush_end(cpu, await BeginLoad(Load(MIGRC_GEN)))


class NoteBeforeFlush(MigrcV3):
    """arch/x86/mm/tlb.c of the postings: the CPU's `migrc_done` is written behind the flush.

    Here it is written before: between the two the CPU counts as flushed and is not.
    """

    name = "mistake:note-before-flush"

    async def local_flush_begin(self, cpu: PerCpu) -> int:
        """Reads and notes."""
        token = await super().local_flush_begin(cpu)
        await super().local_flush_end(cpu, token)
        return token

    async def local_flush_end(self, cpu: PerCpu, token: int) -> None:
        """It has been noted already."""


class PlainComparison(MigrcV3):
    """The postings' `before`: `return (int)(a - b) < 0`. Here a plain `a < b`.

    Right until the counter wraps; then a CPU that noted the largest value counts as flushed for ever.
    """

    name = "mistake:plain-comparison"

    def before(self, a: int, b: int) -> bool:
        """Does not know that the counter is a ring."""
        return a < b


def narrow_generation() -> MigrcV3:
    """The review's question about the width of the generation (a 32-bit atomic_t, why not atomic64_t).

    The same algorithm with two bits: half of the range is two generations, which is soon past.
    """
    return MigrcV3(bits=2)


class SkipTestInverted(MigrcV3):
    """arch_migrc_adj of the postings: `if (!before(...)) cpumask_clear_cpu(...)`. Here without the `!`.

    Leaves alone whoever has not flushed and interrupts those that have.
    """

    name = "mistake:skip-test-inverted"

    async def skip_flushed_cpus(self, cpu: PerCpu, request: Request) -> int:
        """The complement of what it should be."""
        return request.cpumask & ~await super().skip_flushed_cpus(cpu, request)


class NobodyIsSkipped(MigrcV3):
    """arch_migrc_adj of the postings takes CPUs that have flushed out of the mask. Here nobody is taken out.

    Nothing breaks, but a CPU is interrupted for what it is known to have done.
    """

    name = "mistake:nobody-is-skipped"

    async def skip_flushed_cpus(self, cpu: PerCpu, request: Request) -> int:
        """Reads the notes, and takes everybody who ever may have held an entry."""
        await super().skip_flushed_cpus(cpu, request)
        return request.cpumask


class NoBarrierBeforeFlush(MigrcV3):
    """RFC v1, 'keep the order: read generation, flush, write note': no barrier for the first half.

    The load may be performed after the flush where the flush does not order it.
    """

    name = "mistake:no-barrier-before-flush"

    async def barrier_before_flush(self) -> None:
        """Does not wait for the load."""


class NoBarrierAfterFlush(MigrcV3):
    """RFC v1, 'keep the order: read generation, flush, write note': no barrier for the second half.

    The note may be visible before the flush has happened where the flush does not order it.
    """

    name = "mistake:no-barrier-after-flush"

    async def barrier_after_flush(self) -> None:
        """Does not wait for the flush."""


class RangeFlushNoted(MigrcV3):
    """v3 notes full flushes of this CPU (flush_tlb_local), whatever asks for them.

    Here who flushes pages of some mm everywhere notes that it has flushed, all and everything.
    """

    name = "mistake:range-flush-noted"

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """Flush what was unmapped, then note."""
        gen = await Load(MIGRC_GEN)
        await super().flush_zapped(cpu, mm, start, end, stride, freed_tables)
        await SmpMb()
        await Store(migrc_done_word(cpu.number), gen)
