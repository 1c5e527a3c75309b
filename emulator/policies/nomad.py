"""Nomad (Xiang and others, OSDI 2024; their patch for v5.13): promotion as a transaction, and shadows.

A page is copied while it stays mapped. Its dirty bit is cleared before, with a flush, and looked at when its
entry is cleared after, with another one: if it was written, the copy is thrown away (abort), else the page is
mapped at the copy, read-only (commit). What it was stays in the slow tier as its shadow, until somebody
writes; a page that still has its shadow is demoted by mapping that again. Marks and hint faults are TPP's.

| patch | here |
|---|---|
| nomad_clean_pte | nomad_clean_pte |
| nomad_try_to_remap, nomad_remap_single_ref, remap_clean_page | nomad_try_to_remap |
| nomad_transit_pages, promote_work_handler, queue_pages_for_promotion | queue, fault_end, promote |
| link_shadow_page | link_shadow |
| release_shadow_page in do_wp_page | before_writable, mapped_writable |
| reclaim_shadow_page | watermark_failed, allocation_failed |
| demotion_migrate_pages, demote_shadow_page_find, _breakup | demote, demote_to_shadow |

Departures. What kpromote does, the task that faulted does, once it has its access back. While its flush is
under way the entry is a migration entry, under the page-table lock; the patch leaves it empty there. The
shadow is linked before the copy is mapped. In the patch it is after that, while the page's lock makes whoever
writes copy it; v6.6 does not ask for that lock where a page is one mapping's own. For the same reason the
shadow is taken once the page is unmapped, not before, and the patch's made_writable has nothing to say.
mprotect gives the right to write back without a fault (v6.2), so that shadows go there too. The shadow of a
page that was freed goes when its frame is handed out again. Short of memory all shadows go, where the patch
frees ten times what is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicXchg,
    CmpxchgPte,
    FolioCopy,
    FolioGet,
    FolioIsolateLru,
    FolioMapping,
    FolioMigrateMapping,
    FolioPut,
    FolioPutbackLru,
    FolioRmap,
    FolioSetFlag,
    GetPte,
    LlistAdd,
    LlistDelAll,
    Load,
    Lock,
    LruAdd,
    Series,
    SetPte,
    Store,
    TryToMigratePte,
    Unlock,
    XchgPte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    PAGE_SHIFT,
    RW,
    make_migration_entry,
    mk_pte,
    pte_dirty,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.kernel.instead import instead_of
from emulator.kernel.migrate import folio_order, migrate_misplaced_folio, migrate_pages
from emulator.kernel.mmzone import (
    FAST_NODE,
    WMARK_HIGH,
    alloc_pages_thisnode,
    wakeup_kswapd,
    zone_watermark_ok,
)
from emulator.kernel.pgtable_generic import MIGRATED, RESTORED, pte_accessible, set_pte_at
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.rmap import remove_migration_ptes, try_to_migrate, try_to_unmap_flush
from emulator.kernel.vmscan import demote_folio_list
from emulator.memory.folios import PG_DIRTY
from emulator.policies.tpp import Tpp

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu
    from emulator.memory.page_table import Vma

SHADOW = "nomad_shadow."
NR_SHADOWS = "nomad_nr_shadows"  # how many are held
LINKED = "nomad_linked"  # frames that got one, for who needs memory
COMMITTED = "nomad_committed"
ABORTED = "nomad_aborted"
RELEASED = "nomad_shadows_released"
REMAPPED = "nomad_demoted_to_shadow"

_FLAGS = (1 << PAGE_SHIFT) - 1


def shadow_word(pfn: int) -> str:
    """The shadow of the page in this frame of the fast tier: a frame of the slow one; 0: none."""
    return f"{SHADOW}{pfn}"


class Nomad(Tpp):
    """`nomad`."""

    name = "nomad"
    description = "promotes by transactions, keeps shadows and demotes to them (OSDI 2024)"
    words_at_rest: ClassVar[tuple[str, ...]] = (SHADOW, NR_SHADOWS)
    pending_words = (NR_SHADOWS,)

    def __init__(self) -> None:
        self.queued: tuple[int, ...] = ()

    # --- promotion -------------------------------------------------------------------------------------

    @instead_of(migrate_misplaced_folio)
    async def queue(self, cpu: PerCpu, pfn: int, target: int) -> bool:
        """queue_page_fault: not now; the caller's reference is the queue's. The access is given back."""
        self.queued += (pfn,)
        return False

    async def fault_end(self, cpu: PerCpu, mm: int, vma: Vma, write: bool) -> None:
        """promote_work_handler."""
        queued, self.queued = self.queued, ()
        for pfn in queued:
            await self.promote(cpu, pfn)

    async def promote(self, cpu: PerCpu, pfn: int) -> None:
        """nomad_transit_pages of one page, on which the caller has a reference, which goes."""
        room = await zone_watermark_ok(cpu, FAST_NODE, 1, WMARK_HIGH)
        if not room:
            await wakeup_kswapd(cpu, FAST_NODE)
        isolated = room and await FolioIsolateLru(pfn)
        await FolioPut(pfn)
        if not isolated:
            return
        before = cpu.remote_flushes()
        mappings = await FolioRmap(pfn)
        alone = len(mappings) == 1 and not await FolioMapping(pfn) and not await folio_order(cpu, pfn)
        done = await (self.transit(cpu, pfn, *mappings[0]) if alone else self.move(cpu, pfn))
        cpu.count_flushes("tlb_remote_flush_promotion", before)
        if done:
            cpu.count("numa_pages_migrated")
            cpu.count("pgpromote_success")
        else:
            await FolioPutbackLru(pfn, False)

    async def move(self, cpu: PerCpu, pfn: int) -> bool:
        """nomad_unmap_and_move of what is shared, or of a file: as mainline does."""
        moved, _ = await migrate_pages(cpu, [pfn], FAST_NODE, MR_NUMA_MISPLACED)
        return bool(moved)

    async def transit(self, cpu: PerCpu, src: int, mm: int, vpn: int) -> bool:
        """nomad_copy_and_remap_page; the reference that isolated the page is its shadow's then."""
        dst = await alloc_pages_thisnode(cpu, FAST_NODE, 0)
        if dst < 0:
            return False
        await self.nomad_clean_pte(cpu, mm, vpn, src)
        await FolioCopy(src, dst)
        done = await self.nomad_try_to_remap(cpu, mm, vpn, src, dst)
        await FolioPut(dst)
        cpu.count(COMMITTED if done else ABORTED)
        return done

    async def nomad_clean_pte(self, cpu: PerCpu, mm: int, vpn: int, src: int) -> None:
        """nomad_clean_pte: from here on whoever writes sets the dirty bit anew."""
        lock = ptl(mm, vpn)
        _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
        if pte_present(seen) and pte_pfn(seen) == src and pte_dirty(seen):
            await FolioSetFlag(src, PG_DIRTY)
            entry = await XchgPte(mm, vpn, 0)
            await self.flush_cleaned(cpu, mm, vpn, entry)
            await set_pte_at(cpu, SetPte(mm, vpn, entry & ~DIRTY), RESTORED)
        await Unlock(lock)

    async def flush_cleaned(self, cpu: PerCpu, mm: int, vpn: int, entry: int) -> None:
        """ptep_clear_flush of nomad_clean_pte: no CPU has the entry cached dirty."""
        if await pte_accessible(mm, vpn, entry):
            await self.flush_changed(cpu, mm, vpn, vpn + 1, 1, False)

    async def nomad_try_to_remap(self, cpu: PerCpu, mm: int, vpn: int, src: int, dst: int) -> bool:
        """nomad_remap_single_ref, remap_clean_page: commit or abort, under the page-table lock."""
        lock = ptl(mm, vpn)
        old: int
        _, old = await Series((Lock(lock), TryToMigratePte(mm, vpn, src)))
        if not old:
            await Unlock(lock)
            return False
        await self.flush_unmapped(cpu, mm, vpn, old)
        await FolioPut(src)
        commits = self.may_commit(old) and await FolioMigrateMapping(src, dst, 0)
        entry, new, to = make_migration_entry(old), old, src
        if commits:
            to = dst
            new = mk_pte(dst, old & _FLAGS & ~(RW | DIRTY | ACCESSED))
            await LruAdd(dst, False)
            await self.before_mapped(cpu, dst, src)
        await FolioGet(to)
        await set_pte_at(cpu, CmpxchgPte(mm, vpn, entry, new), MIGRATED)
        await Unlock(lock)
        if commits:
            await self.after_mapped(cpu, dst, src)
        return commits

    async def flush_unmapped(self, cpu: PerCpu, mm: int, vpn: int, entry: int) -> None:
        """ptep_clear_flush of nomad_remap_single_ref: nobody uses the page where it was."""
        if await pte_accessible(mm, vpn, entry):
            await self.flush_changed(cpu, mm, vpn, vpn + 1, 1, False)

    def may_commit(self, entry: int) -> bool:
        """The paper's rule: nobody has written since the copy began."""
        return not pte_dirty(entry)

    async def before_mapped(self, cpu: PerCpu, dst: int, src: int) -> None:
        """The copy is about to be mapped."""
        await self.link_shadow(dst, src)

    async def after_mapped(self, cpu: PerCpu, dst: int, src: int) -> None:
        """It is, and others may write to it."""

    # --- shadows ---------------------------------------------------------------------------------------

    async def link_shadow(self, dst: int, src: int) -> None:
        """link_shadow_page."""
        await Store(shadow_word(dst), src)
        await AtomicAdd(NR_SHADOWS, 1)
        await LlistAdd(LINKED, (dst,))

    async def take_shadow(self, pfn: int) -> int:
        """TestClearPageShadowed: the page's shadow, whose reference is the caller's now; 0: it has none."""
        if not await Load(shadow_word(pfn)):
            return 0
        shadow = await AtomicXchg(shadow_word(pfn), 0)
        if shadow:
            await AtomicAdd(NR_SHADOWS, -1)
        return shadow

    async def release_shadow(self, cpu: PerCpu, pfn: int) -> bool:
        """release_shadow_page; whether there was one."""
        shadow = await self.take_shadow(pfn)
        if shadow:
            cpu.count(RELEASED)
            await FolioPut(shadow)
        return shadow != 0

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """do_wp_page: a page that can be written has no shadow."""
        await self.release_shadow(cpu, pfn)

    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        """The same where the right comes without a write fault."""
        await self.release_shadow(cpu, pfn)

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """What is left of a page that was freed."""
        await super().before_handed_out(cpu, pfn, order)
        if cpu.parameters.nid(pfn) == FAST_NODE:
            for page in range(pfn, pfn + (1 << order)):
                await self.release_shadow(cpu, page)

    async def reclaim_shadow_pages(self, cpu: PerCpu) -> bool:
        """reclaim_shadow_page; whether there was any."""
        freed = [await self.release_shadow(cpu, node[0]) for node in await LlistDelAll(LINKED)]
        return any(freed)

    async def watermark_failed(self, cpu: PerCpu, node: int) -> bool:
        """The slow tier is short of memory."""
        return node != FAST_NODE and await self.reclaim_shadow_pages(cpu)

    async def allocation_failed(self, cpu: PerCpu, order: int) -> bool:
        """Before anything else is reclaimed."""
        return await self.reclaim_shadow_pages(cpu)

    async def drain(self, cpu: PerCpu) -> None:
        """Nothing is held at the end."""
        await self.reclaim_shadow_pages(cpu)

    # --- demotion --------------------------------------------------------------------------------------

    @instead_of(migrate_pages, within=demote_folio_list)
    async def demote(
        self, cpu: PerCpu, folios: list[int], target: int, reason: str
    ) -> tuple[list[int], list[int]]:
        """demotion_migrate_pages: what has a shadow goes there, the rest as in mainline."""
        moved: list[int] = []
        others: list[int] = []
        for pfn in folios:
            shadowed = await Load(shadow_word(pfn)) and await self.demote_to_shadow(cpu, pfn)
            (moved if shadowed else others).append(pfn)
        cpu.count("pgmigrate_success", len(moved))
        went, failed = await migrate_pages(cpu, others, target, reason) if others else ([], [])
        return moved + went, failed

    async def demote_to_shadow(self, cpu: PerCpu, src: int) -> bool:
        """demotion_unmap_and_move: nothing is copied. False if somebody has written meanwhile."""
        left = await try_to_migrate(cpu, src)
        await try_to_unmap_flush(cpu)
        # Nobody writes to it any more: if its shadow is there, it is what it was.
        shadow = await self.take_shadow(src)
        if not shadow or not await FolioMigrateMapping(src, shadow, 0):
            await remove_migration_ptes(cpu, left, src)
            if shadow:
                await FolioPut(shadow)
            return False
        await LruAdd(shadow, False)
        await remove_migration_ptes(cpu, left, shadow)
        await FolioPut(shadow)
        await self.free_folio(cpu, src)
        cpu.count(REMAPPED)
        return True
