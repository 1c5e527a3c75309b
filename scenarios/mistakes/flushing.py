"""Mistakes in flushing what is pending, and in knowing when to."""

from __future__ import annotations

from emulator.hardware.operations import LlistAdd, LlistDelAll, Load, NrFree
from emulator.kernel.percpu import PerCpu, TlbUbc
from emulator.kernel.tlb import arch_tlbbatch_flush
from emulator.policies.migrc import Request
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MIGRC_DISABLED, MigrcV3
from scenarios.mistakes.interrupts import send_without_waiting


class FreedBeforeTheFlush(MigrcV3):
    """v3, migrc_try_flush_free_folios: `arch_tlbbatch_flush`, then `migrc_shrink`. Here the other way."""

    name = "mistake:freed-before-the-flush"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """Frees what may still be cached."""
        batch, folios = await self.take_lists(cpu, self._lists(cpu))
        freed = await self.release_all(cpu, folios)
        await arch_tlbbatch_flush(cpu, batch)
        return freed


class DeferredWithoutWaiting(MigrcV3):
    """v3, migrc_try_flush_free_folios relies on `arch_tlbbatch_flush` to return when all have flushed.

    Here the interrupts are only sent.
    """

    name = "mistake:deferred-without-waiting"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """Frees once the interrupts are on their way."""
        batch, folios = await self.take_lists(cpu, self._lists(cpu))
        await send_without_waiting(cpu, batch)
        return await self.release_all(cpu, folios)


class FlushesRequestByRequest(MigrcV3):
    """v3, migrc_try_flush_free_folios folds the masks of all requests (`arch_tlbbatch_fold`), flushes once.

    Here each request is flushed for by itself, so that a CPU is interrupted again and again.
    """

    name = "mistake:flushes-request-by-request"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """One flush per request; the notes are not looked at in between."""
        flushed = False
        for name in self._lists(cpu):
            for node in await LlistDelAll(name):
                request = Request(*node)
                batch = TlbUbc()
                batch.cpumask = request.cpumask
                await arch_tlbbatch_flush(cpu, batch)
                flushed = await self.release_all(cpu, request.folios) or flushed
        return flushed


class WalksTheSharedList(MigrcV3):
    """v3, migrc_try_flush_free_folios: `llist_del_all` before anything of the list is looked at.

    Here the taker walks the list where it hangs and empties it when it is through: what was hung in the
    meantime is lost.
    """

    name = "mistake:walks-the-shared-list"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """Looks at the nodes without taking them (there is no such operation, so they go back at once)."""
        batch = TlbUbc()
        folios: list[int] = []
        for name in self._lists(cpu):
            nodes = await LlistDelAll(name)
            for node in reversed(nodes):
                await LlistAdd(name, node)
                request = Request(*node)
                batch.cpumask |= await self.skip_flushed_cpus(cpu, request)
                folios += request.folios
        await arch_tlbbatch_flush(cpu, batch)
        for name in self._lists(cpu):
            await LlistDelAll(name)
        return await self.release_all(cpu, folios)


class WriteFaultForgets(MigrcV3):
    """v3, do_wp_page: `if (folio_test_migrc(folio)) migrc_try_flush_free_folios()`, here left out.

    The destination becomes writable while others still read the source.
    """

    name = "mistake:write-fault-forgets"

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """Does not look at the folio."""


class SwitchedOffForgets(MigrcV3):
    """v3's sysctl: turned off, nothing more is deferred; what is pending stays so until its flush.

    Here a write fault takes "off" for "nothing pending".
    """

    name = "mistake:switched-off-forgets"

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """Looks at the switch first."""
        if not await Load(MIGRC_DISABLED):
            await super().before_writable(cpu, pfn)


class NoFlushUnderPressure(MigrcV3):
    """v3, get_page_from_freelist: a failing watermark flushes and tries again. Here it just fails."""

    name = "mistake:no-flush-under-pressure"

    async def watermark_failed(self, cpu: PerCpu, node: int) -> bool:
        """Leaves what is pending where it is."""
        return False


class NoFlushForHighOrders(MigrcRfc2):
    """RFC v2, __alloc_pages and its slow path: flush, for high orders even before the slow path is entered.

    Here only allocations of order 0 flush: for others pending pages count as free, and there is no block.
    """

    name = "mistake:no-flush-for-high-orders"

    def __init__(self) -> None:
        super().__init__()
        self._order = 0

    async def allocation_failed(self, cpu: PerCpu, order: int) -> bool:
        """Remembers what failed."""
        self._order = order
        return False

    async def slowpath_enter(self, cpu: PerCpu) -> None:
        """Flushes for a single page only."""
        if not self._order:
            await super().slowpath_enter(cpu)


class FlushesBelowTheWatermarkOnly(MigrcV3):
    """v3, get_page_from_freelist, to the letter: the flush stands where zone_watermark_fast has failed.

    But that counts pending pages as free. With nothing free and enough pending it holds, then rmqueue finds
    no page, and nobody flushes. (`migrc:v3` flushes when either fails. Single pages only: for a higher order
    the watermark asks for a free block, and fails.)
    """

    name = "mistake:flushes-below-the-watermark-only"

    async def watermark_failed(self, cpu: PerCpu, node: int) -> bool:
        """Only if the watermark did not hold."""
        free = await NrFree(node) + await self.pending_pages(cpu, node)
        if free > cpu.parameters.watermarks[node].low:
            return False
        return await super().watermark_failed(cpu, node)
