"""LUF v10 and v11 (<20240510065206.76078-1-byungchul@sk.com>, <20240531092001.30428-1-byungchul@sk.com>).

Lazy Unmap Flush, linux-mm, May 2024: MIGRC v9 for whatever is unmapped and then freed, by reclaim too. One
mask for all CPUs (`luf_ubc`) under one lock (`luf_lock`), three generations of 16 bits; a freed page keeps
the one of the flush that it needs. Words are those of v9, as its code is.

| posting | here |
|---|---|
| can_luf_init, can_luf_fail, can_luf_test, fold_ubc after the walk | unmap_begin, unmapped, unmap_end |
| try_to_unmap_luf | put_off |
| rmap_flush_start, rmap_flush_end, arch_tlbbatch_done | unmap_flush_begin, unmap_flush_end |
| check_luf_flush, luf_flush | check_migrc_flush, migrc_flush |
| folio_put_ugen; free_unref_folios | free_folio |
| check_flush_task_ugen in prep_new_page | before_handed_out |
| v10: do_wp_page, do_mmap | before_writable, area_changing |
| v11: need_luf_flush behind update_mmu_tlb, file_end_write | entry_changed, file_written |

As posted: a folio that reclaim has unmapped and keeps leaves its flush to all, and nothing says so on the
page, which is freed without one when it goes later, mapped nowhere. A migrated page whose last reference
somebody else drops loses its generation (WARN_ON(!folio_put_testzero)). v11 dropped the flushes of v10: what
does a write fault itself, or makes an area writable, flushes nothing; only a fault that finds the entry
changed does. On arm64 whatever was put off is done when any task flushes a batch of its own.

Departures. Pages of a free block keep a generation each, where the kernel has the block's latest. The
generation skips 0, as its comment says. KASAN, init_on_free, page reporting, compaction, offlining and memory
failure are left out, and so is all else that only they flush for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.hardware.operations import (
    AtomicCmpxchg,
    FolioPut,
    FolioPutTestzero,
    Load,
    Store,
    TryLock,
    Unlock,
)
from emulator.hardware.pte import pte_present, pte_write
from emulator.memory.page_table import VM_WRITE
from emulator.policies.luf_unmap import LufUnmap
from emulator.policies.migrc_v9 import (
    MIGRC_GEN,
    MIGRC_GEN_BEGUN,
    MIGRC_GEN_DONE,
    MIGRC_LOCK,
    MIGRC_UBC,
    NO_GENERATION,
    ON_FLUSHING,
    OneMask,
    page_generation_word,
)

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu


class LufV10(LufUnmap, OneMask):
    """`luf:v10`."""

    name = "luf:v10"
    description = "as migrc:v9, in reclaim too; a write fault or a new writable area flushes for all"

    # --- putting off -----------------------------------------------------------------------------------

    async def unmap_end(self, cpu: PerCpu, pfn: int, reason: str, done: bool) -> None:
        """can_luf_test asks for some entry, and not whether the folio is still mapped."""
        state = self.task(cpu)
        state.can_luf = state.can_luf and bool(state.tlb_ubc_ro.nr_flush_required)
        await super().unmap_end(cpu, pfn, reason, True)

    async def put_off(self, cpu: PerCpu) -> int:
        """try_to_unmap_luf: given up where somebody has the lock, or flushes."""
        state = self.task(cpu)
        gen = NO_GENERATION
        if await TryLock(MIGRC_LOCK):
            if await self.may_add():
                await Store(MIGRC_UBC, await Load(MIGRC_UBC) | state.tlb_ubc_luf.cpumask)
                gen = self.mgen_next(await Load(MIGRC_GEN_BEGUN))
                await Store(MIGRC_GEN, gen)
                state.tlb_ubc_luf.clear()
            await Unlock(MIGRC_LOCK)
        if gen == NO_GENERATION:
            cpu.count("migrc_given_up")
            cpu.current.tlb_ubc.fold(state.tlb_ubc_luf)
        return gen

    async def reclaim_failed(self, cpu: PerCpu, pfn: int) -> None:
        """shrink_folio_list forgets can_luf with the folio; what is owed stays in the batch."""
        self.task(cpu).folios.pop(pfn, None)

    async def free_folio(self, cpu: PerCpu, pfn: int) -> None:
        """folio_put_ugen, which has to have the last reference, or free_unref_folios, whose pages nobody else
        can have (their count is frozen)."""
        state = self.task(cpu)
        gen = state.keys.pop(pfn, NO_GENERATION)
        if gen == NO_GENERATION:
            await FolioPut(pfn)
            return
        word = page_generation_word(pfn)
        cpu.count("migrc_deferred")
        await Store(word, gen)
        if not state.moved:
            await FolioPut(pfn)
        elif not await FolioPutTestzero(pfn):
            cpu.count("luf_not_last")
            await AtomicCmpxchg(word, gen, NO_GENERATION)

    # --- flushing --------------------------------------------------------------------------------------

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """rmap_flush_end; arch_tlbbatch_done of arm64 is true whoever was flushed."""
        await super().unmap_flush_end(cpu, -1 if cpu.mmu.shared_asids else mask)

    async def looks_done(self, gen: int) -> bool:
        """check_luf_flush looks at luf_gen_done before it takes the lock."""
        return not self.mgen_before(await Load(MIGRC_GEN_DONE), gen)

    async def area_changing(self, cpu: PerCpu, mm: int, start: int, end: int, flags: int) -> None:
        """do_mmap with PROT_WRITE."""
        if flags & VM_WRITE:
            await self.migrc_flush(cpu)


class LufV11(LufV10):
    """`luf:v11`."""

    name = "luf:v11"
    description = "as luf:v10, but for write(2), and for a fault that another has overtaken"

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """rmap_flush_start: without the lock nobody is told, and nobody is taken out at the end."""
        state = self.task(cpu)
        state.started = await TryLock(MIGRC_LOCK)
        if state.started:
            await Store(ON_FLUSHING, await Load(ON_FLUSHING) + 1)
            await Unlock(MIGRC_LOCK)

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """rmap_flush_end."""
        if self.task(cpu).started:
            await super().unmap_flush_end(cpu, mask)

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """do_wp_page asks nobody."""

    async def area_changing(self, cpu: PerCpu, mm: int, start: int, end: int, flags: int) -> None:
        """Nor does do_mmap."""

    async def entry_changed(self, cpu: PerCpu, mm: int, vpn: int, old: int, seen: int) -> None:
        """need_luf_flush."""
        if not pte_write(old) and pte_present(seen) and pte_write(seen):
            await self.migrc_flush(cpu)

    async def file_written(self, cpu: PerCpu, file: int) -> None:
        """file_end_write."""
        await self.migrc_flush(cpu)
