"""LUF v12 (<20250220052027.58847-1-byungchul@sk.com>, linux-mm, February 2025): Lazy Unmap Flush.

Whatever reclaim or migration unmaps from read-only entries, and then frees, is flushed for when its frame
leaves the allocator again, or when somebody could notice: a fault, a gather, a change of the page cache. What
is owed is said in three places: by the freed page (a key into `luf_batch`, and the zone's generation), by the
mm, and by the file. `luf_ugen` is the one clock; `ugen_done` of a CPU is when its last flush began, and who
is to flush leaves out those that have flushed since (diet).

| posting | here |
|---|---|
| can_luf_init, can_luf_test, fold_batch after the walk | unmap_begin, unmapped, unmap_end |
| set_tlb_ubc_flush_pending, fold_luf_batch_mm | unmapped, fold_luf_batch_mm |
| fold_unmap_luf, __fold_luf_batch | put_off, fold_luf_batch |
| luf_flush, luf_flush_mm, luf_flush_mapping, luf_flush_vma | luf_flush, flush_batch, luf_flush_vma |
| try_to_unmap_flush, flush_tlb_batched_pending | unmap_flush_*, flush_begin, flushed |
| free_unref_page, __free_one_page, update_zone_batch | free_folio; pend lists: emulator/memory/zone.py |
| luf_takeoff_start, _check_and_fold, _end | take_pages, luf_takeoff_check_and_fold, luf_takeoff_end |
| handle_mm_fault, tlb_end_vma, finish_task_switch | fault_end, gather_end, switched |
| mapping_write_begin, folio_mkclean, truncation | page_cache_changed |

As posted `fold_luf_batch_mm` does not set flush_required in the batches of the mm and the file, and
`fold_batch` takes nothing over from a batch without it: `luf_flush_mm` and `luf_flush_mapping` flush nothing
for them, in the RFC and in both rebased series. `luf:v12` is that; `luf:v12-required` sets it, as it must
have been meant.

Departures. A zone's batch learns of a page when it is freed, not when it leaves a CPU's list for the zone.
Tags in the zone are compared as whole numbers, though what a page says (page_zone_ugen) has 16 bits. A batch
that never owed anything is older than every flush. VM_MAYWRITE is that of a private area, or of a writable
one. A migrated page whose last reference has to be LUF's and is not is freed all the same, as posted; here
the other's reference goes. KASAN, init_on_free, page reporting, compaction and offlining are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    AtomicOr,
    FindVma,
    FolioMapping,
    FolioPut,
    FolioPutTestzero,
    FolioSetTag,
    FolioTakeTag,
    Load,
    Lock,
    Operation,
    Series,
    SmpMb,
    Store,
    Unlock,
    WaitWhile,
    ZonePaid,
)
from emulator.kernel.percpu import TlbUbc, cpumask_word
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.kernel.tlb import PENDING, FlushScope, arch_tlbbatch_flush
from emulator.memory.page_table import VM_SHARED, VM_WRITE, Vma
from emulator.memory.zone import TAG_BITS
from emulator.policies.luf_clock import (
    LUF_OWED,
    LUF_UGEN,
    LUF_UGEN_INIT,
    NR_LUF_PAGES,
    ZONE_UGEN_INIT,
    LufBatch,
    LufClock,
    key_batch,
    lock_of,
    mapping_batch,
    mm_batch,
    read_batch,
    zone_word,
)
from emulator.policies.luf_unmap import LufUnmap

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu


class LufV12(LufUnmap, LufClock):
    """`luf:v12`."""

    name = "luf:v12"
    description = (
        "unmaps read-only pages without a flush, in reclaim too; flushes when their frames are taken"
    )
    luf_debug = True
    pending_words = (NR_LUF_PAGES,)
    sets_flush_required: ClassVar[bool] = False

    def pending_after(self, operation: Operation, pending: int, words: Mapping[str, int]) -> int:
        """Pages on pend lists, of all zones."""
        found: int = sum(value for name, value in words.items() if name.startswith(NR_LUF_PAGES))
        return found

    # --- unmapping -------------------------------------------------------------------------------------

    async def unmap_begin(self, cpu: PerCpu, pfn: int, reason: str) -> None:
        """can_luf_init, and whose debt it is besides the mm's."""
        await super().unmap_begin(cpu, pfn, reason)
        slot = await FolioMapping(pfn)
        self.task(cpu).mapping = slot[0] if slot else None

    async def owed_by_mm(self, cpu: PerCpu, mm: int) -> None:
        """set_tlb_ubc_flush_pending: the mm owes it, and the file."""
        await self.fold_luf_batch_mm(cpu, mm_batch(mm), mm)
        mapping = self.task(cpu).mapping
        if mapping is not None:
            await self.fold_luf_batch_mm(cpu, mapping_batch(mapping), mm)

    async def fold_luf_batch_mm(self, cpu: PerCpu, batch: str, mm: int) -> None:
        """fold_luf_batch_mm: the mm, or the file, owes a flush to all CPUs of the mm, from a new time on.

        The mm's generation is raised only where a CPU is new to the batch.
        """
        await Lock(lock_of(batch))
        mask = LufBatch.of(await Load(batch)).cpus
        if await Load(cpumask_word(mm)) & ~mask:
            owed = TlbUbc(cpumask=mask)
            await cpu.mmu.arch_tlbbatch_add_pending(cpu, owed, mm, 0)
            mask = owed.cpumask
        await Store(batch, LufBatch(mask, await self.new_luf_ugen()).word)
        await Unlock(lock_of(batch))

    async def put_off(self, cpu: PerCpu) -> int:
        """fold_unmap_luf: the key of what this task has put off, 0 if the flush that comes next covers it."""
        owed = self.task(cpu).tlb_ubc_luf
        owed.cpumask &= ~cpu.current.tlb_ubc.cpumask
        # arch_tlbbatch_done: on arm64 always.
        if cpu.mmu.shared_asids or not owed.nr_flush_required or not owed.cpumask:
            if cpu.mmu.shared_asids and owed.nr_flush_required:
                cpu.count("migrc_deferred", owed.nr_flush_required)
            owed.clear()
            return 0
        ugen = await self.new_luf_ugen()
        key = await self.new_luf_key()
        batch = key_batch(key)
        await Lock(lock_of(batch))
        await self.fold_luf_batch(cpu, batch, LufBatch(owed.cpumask, ugen))
        await Unlock(lock_of(batch))
        await AtomicOr(LUF_OWED, owed.cpumask)
        owed.clear()
        return key

    async def fold_luf_batch(self, cpu: PerCpu, batch: str, new: LufBatch) -> None:
        """__fold_luf_batch: merged with whom that slot has owed before, but for those that have flushed."""
        cpus, ugen = LufBatch.of(await Load(batch))
        if ugen < new.ugen:
            cpus, ugen = await self.diet(cpu, cpus, ugen), new.ugen
        await Store(batch, LufBatch(cpus | new.cpus, ugen).word)

    async def reclaim_failed(self, cpu: PerCpu, pfn: int) -> None:
        """shrink_folio_list: what was unmapped and stays is flushed for."""
        state = self.task(cpu)
        if pfn in state.folios:
            del state.folios[pfn]
            await self.luf_flush(cpu, await self.put_off(cpu))

    # --- flushing ----------------------------------------------------------------------------------------

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """tlb_flush_start: drawn before the flush."""
        self.task(cpu).flush_ugen = await self.new_luf_ugen()

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """tlb_flush_end."""
        await self.mark_ugen(mask, self.task(cpu).flush_ugen)

    async def flush_begin(self, cpu: PerCpu, scope: FlushScope) -> int:
        """flush_tlb_batched_pending, likewise."""
        return await self.new_luf_ugen() if scope.kind == PENDING else 0

    async def flushed(self, cpu: PerCpu, scope: FlushScope, token: int) -> None:
        """arch_mm_mark_ugen: all CPUs that run the mm by now."""
        if scope.kind == PENDING:
            await self.mark_ugen(await Load(cpumask_word(scope.mm)), token)

    async def luf_flush(self, cpu: PerCpu, key: int) -> None:
        """luf_flush."""
        mask = (await read_batch(key_batch(key))).cpus
        if mask:
            cpu.current.tlb_ubc.cpumask |= mask
            cpu.current.tlb_ubc.nr_flush_required += 1
        await try_to_unmap_flush(cpu)

    async def flush_batch(self, cpu: PerCpu, batch: str) -> None:
        """luf_flush_mm, luf_flush_mapping: taken over by the task's own batch, of which then those are left
        out that have flushed since what the mm, or the file, owes."""
        ubc = cpu.current.tlb_ubc
        mask, ugen = await read_batch(batch)
        if mask and self.sets_flush_required:
            ubc.cpumask |= mask
            ubc.nr_flush_required += 1
        ubc.cpumask = await self.diet(cpu, ubc.cpumask, ugen)
        if ubc.cpumask:
            cpu.count("luf_flushes")
            await try_to_unmap_flush(cpu)

    async def luf_flush_vma(self, cpu: PerCpu, mm: int, vma: Vma) -> None:
        """luf_flush_vma."""
        if vma.flags & VM_SHARED and vma.file:
            await self.flush_batch(cpu, mapping_batch(vma.file))
        await self.flush_batch(cpu, mm_batch(mm))

    async def fault_end(self, cpu: PerCpu, mm: int, vma: Vma, write: bool) -> None:
        """handle_mm_fault, where something may have become writable."""
        if write or vma.flags & VM_WRITE or not vma.flags & VM_SHARED:
            await self.luf_flush_vma(cpu, mm, vma)

    async def gather_end(self, cpu: PerCpu, mm: int, vma: Vma) -> None:
        """tlb_end_vma."""
        await self.luf_flush_vma(cpu, mm, vma)

    async def left_unflushed(self, cpu: PerCpu, mm: int, vpn: int) -> None:
        """ptep_clear_flush of an entry that is not accessible."""
        found = await FindVma(mm, vpn)
        if found:
            await self.luf_flush_vma(cpu, mm, Vma(*found))

    async def page_cache_changed(self, cpu: PerCpu, file: int) -> None:
        """mapping_write_begin, folio_mkclean, truncate_inode_folio, truncate_inode_pages_range."""
        await self.flush_batch(cpu, mapping_batch(file))

    async def switched(self, cpu: PerCpu, mm: int) -> None:
        """finish_task_switch: the mm that a kernel thread had borrowed."""
        await self.flush_batch(cpu, mm_batch(mm))

    # --- frames --------------------------------------------------------------------------------------------

    async def free_folio(self, cpu: PerCpu, pfn: int) -> None:
        """free_unref_page with a key, then __free_one_page: the page has the zone's generation, the zone its
        CPUs."""
        key = self.task(cpu).keys.pop(pfn, 0)
        if not key:
            await FolioPut(pfn)
            return
        node = cpu.parameters.nid(pfn)
        lock, zone_batch = zone_word(node, "lock"), zone_word(node, "zone_batch")
        # update_zone_batch
        _, owed, before, zone_ugen = await Series(
            (Lock(lock), AtomicAdd(key_batch(key), 0), Load(zone_batch), Load(zone_word(node, "zone_ugen")))
        )
        page, zone = LufBatch.of(owed), LufBatch.of(before)
        folded = LufBatch(page.cpus | zone.cpus, max(page.ugen, zone.ugen))
        await Series((Store(zone_batch, folded.word), AtomicAdd(f"{NR_LUF_PAGES}{node}", 1)))
        tag = (zone_ugen or ZONE_UGEN_INIT) << TAG_BITS | key
        _, last, _ = await Series((FolioSetTag(pfn, tag), FolioPutTestzero(pfn), Unlock(lock)))
        cpu.count("migrc_deferred")
        if self.task(cpu).moved and not last:
            # VM_WARN_ON, and free_frozen_pages all the same.
            cpu.count("luf_not_last")
            await FolioPut(pfn)

    async def take_pages(
        self, cpu: PerCpu, node: int, order: int, mark: int, pending: int, may_interrupt: bool
    ) -> int:
        """rmqueue between luf_takeoff_start and luf_takeoff_end: what is owed for a frame is taken over with
        it, and paid once the zone's lock has been dropped."""
        lock = zone_word(node, "lock")
        pfn: int
        _, pfn = await Series((Lock(lock), AllocPages(node, order, mark, pending)))
        tag = await FolioTakeTag(pfn) if pfn >= 0 else 0
        if tag and not await self.luf_takeoff_check_and_fold(cpu, node, tag, may_interrupt):
            cpu.count("luf_refused")
            await Series((FolioSetTag(pfn, tag), FolioPut(pfn)))
            pfn = -1
        await Unlock(lock)
        if tag:
            await self.luf_takeoff_end(cpu, node)
        return pfn

    async def luf_takeoff_check_and_fold(self, cpu: PerCpu, node: int, tag: int, may_interrupt: bool) -> bool:
        """luf_takeoff_check_and_fold: false for a page that would have to be flushed for by who may not."""
        state = self.task(cpu)
        key = tag % (1 << TAG_BITS)
        if key:
            # From a CPU's list.
            mask, ugen = await read_batch(key_batch(key))
            left = await self.diet(cpu, mask, ugen)
            if left and may_interrupt:
                state.tlb_ubc_takeoff.cpumask |= mask
                state.tlb_ubc_takeoff.nr_flush_required += 1
                state.luf_ugen = max(state.luf_ugen, ugen)
            return not left or may_interrupt
        done, now = await Series(
            (Load(zone_word(node, "zone_ugen_done")), Load(zone_word(node, "zone_ugen")))
        )
        now = now or ZONE_UGEN_INIT
        zone_ugen = self.page_zone_ugen(now, tag >> TAG_BITS)
        if zone_ugen <= (done or ZONE_UGEN_INIT - 1):
            return True
        if not may_interrupt:
            return False
        if state.zone_ugen:
            return True
        if zone_ugen != now:
            # Somebody else is about to flush for it.
            state.wait_zone_ugen = max(state.wait_zone_ugen, zone_ugen)
            return True
        state.wait_zone_ugen = self.prev_ugen(now)
        state.zone_ugen = now
        owed, ugen = LufBatch.of(await Load(zone_word(node, "zone_batch")))
        state.luf_ugen = ugen or LUF_UGEN_INIT - 1
        await Store(zone_word(node, "zone_ugen"), self.next_ugen(now))
        await Store(f"{NR_LUF_PAGES}{node}", 0)
        await Store(zone_word(node, "zone_batch"), LufBatch(0, ugen).word)
        if owed:
            state.tlb_ubc_takeoff.cpumask |= owed
            state.tlb_ubc_takeoff.nr_flush_required += 1
        return True

    async def luf_takeoff_end(self, cpu: PerCpu, node: int) -> None:
        """luf_takeoff_end: flush for what was taken over; generations of the zone are done one by one."""
        state = self.task(cpu)
        takeoff = state.tlb_ubc_takeoff
        ugen, state.luf_ugen = state.luf_ugen, 0
        if ugen:
            takeoff.cpumask = await self.diet(cpu, takeoff.cpumask, ugen)
            if not takeoff.cpumask:
                takeoff.clear()
        await self.try_to_unmap_flush_takeoff(cpu)
        mine, state.zone_ugen = state.zone_ugen, 0
        others, state.wait_zone_ugen = state.wait_zone_ugen, 0
        if mine or others:
            await SmpMb()
            word = zone_word(node, "zone_ugen_done")
            while ((done := await Load(word)) or ZONE_UGEN_INIT - 1) < others:
                # cond_resched, until it changes
                await WaitWhile(word, done)
            if mine:
                await Store(word, mine)
                await ZonePaid(node, mine << TAG_BITS)

    async def try_to_unmap_flush_takeoff(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush_takeoff: whom this reaches need not be flushed for the task's other batches."""
        state = self.task(cpu)
        takeoff = state.tlb_ubc_takeoff
        if not takeoff.nr_flush_required:
            return
        mask = takeoff.cpumask
        ugen = await self.new_luf_ugen()
        cpu.count("luf_takeoff_flushes")
        await arch_tlbbatch_flush(cpu, takeoff)
        await self.mark_ugen(mask, ugen)
        for batch in (cpu.current.tlb_ubc, state.tlb_ubc_ro, state.tlb_ubc_luf):
            batch.cpumask &= ~mask
            if not batch.cpumask:
                batch.clear()
        takeoff.clear()

    async def drain(self, cpu: PerCpu) -> None:
        """Flush all that have not since the last time that anything was put off."""
        owed, drawn = await Series((Load(LUF_OWED), Load(LUF_UGEN)))
        cpu.current.tlb_ubc.cpumask |= await self.diet(cpu, owed, LUF_UGEN_INIT + drawn)
        cpu.current.tlb_ubc.nr_flush_required += cpu.current.tlb_ubc.cpumask != 0
        await try_to_unmap_flush(cpu)


class LufV12Required(LufV12):
    """`luf:v12-required`."""

    name = "luf:v12-required"
    description = "luf:v12 with flush_required set for mms and files, without which it cancels nothing"
    sets_flush_required = True
