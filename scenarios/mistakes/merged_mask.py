"""Mistakes with the one merged mask of v9: who may go on while it is flushed, and who may add to it."""

from __future__ import annotations

from emulator.hardware.operations import Store
from emulator.kernel.percpu import PerCpu
from emulator.policies.migrc_v9 import ON_FLUSHING, MigrcV9


class EmptyMeansDone(MigrcV9):
    """v9's author in a comment on check_migrc_flush: somebody may have taken the mask and still be flushing.

    Here whoever finds the mask empty goes on.
    """

    name = "mistake:empty-means-done"

    async def others_are_flushing(self) -> bool:
        """Does not ask."""
        return False


class AddsWhileFlushing(MigrcV9):
    """v9's author in a comment on migrc_add_pending_ubc: a flush under way clears what it did not flush.

    Here CPUs are added to the mask at any time.
    """

    name = "mistake:adds-while-flushing"

    async def may_add(self) -> bool:
        """Always."""
        return True


class AnyFlushClearsAll(MigrcV9):
    """v9's rmap_flush_end takes the CPUs of the batch out of the mask. Here it empties the mask."""

    name = "mistake:any-flush-clears-all"

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """Takes everybody for flushed."""
        await super().unmap_flush_end(cpu, cpu.parameters.all_cpus)


class AddsWhileBatchesFlush(MigrcV9):
    """v9's migrc_add_pending_ubc looks at both kinds of flushes under way. Here at that of the mask only."""

    name = "mistake:adds-while-batches-flush"

    async def may_add(self) -> bool:
        """Whether nobody has taken the mask."""
        return not await self.others_are_flushing()


class FlushingIsAFlag(MigrcV9):
    """v9's on_flushing counts the flushes of unmap batches under way. Here it says whether there is one.

    The first of two that ends says for both that nobody flushes any more.
    """

    name = "mistake:flushing-is-a-flag"

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """One at least."""
        await super().unmap_flush_begin(cpu)
        await Store(ON_FLUSHING, 1)

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """None any more, as it thinks."""
        await super().unmap_flush_end(cpu, mask)
        await Store(ON_FLUSHING, 0)
