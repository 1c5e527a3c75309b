"""Page migration (mm/migrate.c, v6.4-6.6): unmap a batch, flush once, move the batch.

Unmapping everything before flushing is what mainline does since 7e12beb8ca2a; a comparison without
it would flatter any deferral.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from emulator.hardware.operations import (
    FolioCopy,
    FolioIsolateLru,
    FolioMapping,
    FolioMigrateMapping,
    FolioOrder,
    FolioPut,
    FolioPutbackLru,
    Lock,
    LruAdd,
    Unlock,
)
from emulator.kernel.huge_memory import split_huge_page
from emulator.kernel.mmzone import WMARK_HIGH, alloc_pages_thisnode, wakeup_kswapd, zone_watermark_ok
from emulator.kernel.percpu import PerCpu, folio_lock
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.rmap import MigrationEntry, remove_migration_ptes, try_to_migrate, try_to_unmap_flush
from emulator.kernel.swap_state import SWAP_FILE


async def folio_order(cpu: PerCpu, pfn: int) -> int:
    """folio_order; asked only where there are huge pages."""
    return await FolioOrder(pfn) if cpu.parameters.hpage_order else 0


class Unmapped(NamedTuple):
    """One folio between its two phases: unmapped, not yet moved."""

    src: int
    dst: int
    left: list[MigrationEntry]
    lock: str


def batches(cpu: PerCpu, folios: list[int], orders: dict[int, int]) -> Iterator[list[int]]:
    """The folios in parts of NR_MAX_BATCHED_MIGRATION pages, the last of each counted in as a whole.

    Before v6.3 (7e12beb8ca2a) each is unmapped, flushed for and moved by itself (unmap_and_move).
    """
    most = cpu.parameters.migrate_batch if cpu.parameters.migrate_batched else 1
    batch: list[int] = []
    pages = 0
    for pfn in folios:
        batch.append(pfn)
        pages += 1 << orders[pfn]
        if pages >= most:
            yield batch
            batch = []
            pages = 0
    if batch:
        yield batch


async def migrate_pages(
    cpu: PerCpu, folios: list[int], target: int, reason: str
) -> tuple[list[int], list[int]]:
    """migrate_pages: move isolated folios to node `target`, in batches (NR_MAX_BATCHED_MIGRATION).

    Returns the frames that the moved ones were, and those that stayed, which are still isolated. What was
    split on the way is there page by page.
    """
    moved: list[int] = []
    failed: list[int] = []
    orders = {pfn: await folio_order(cpu, pfn) for pfn in folios}
    for batch in batches(cpu, folios, orders):
        split: list[int] = []
        done = await migrate_pages_batch(cpu, batch, orders, target, reason, split)
        if split:
            # Their pages are tried once, on their own.
            whole = frozenset(split)
            pages = [page for pfn in split for page in range(pfn, pfn + cpu.parameters.hpage_nr)]
            orders.update(dict.fromkeys(pages, 0))
            done += await migrate_pages_batch(cpu, pages, orders, target, reason, [])
            batch = [pfn for pfn in batch if pfn not in whole] + pages
        moved += done
        if len(done) < len(batch):
            gone = set(done)
            failed += [pfn for pfn in batch if pfn not in gone]
    cpu.count("pgmigrate_success", sum(1 << orders[pfn] for pfn in moved))
    cpu.count("pgmigrate_fail", sum(1 << orders[pfn] for pfn in failed))
    return moved, failed


async def migrate_pages_batch(
    cpu: PerCpu,
    folios: list[int],
    orders: dict[int, int],
    target: int,
    reason: str,
    split: list[int],
) -> list[int]:
    """migrate_pages_batch: the frames that were moved away from.

    A huge folio for which there is no destination is split, unless it moves for NUMA; `split` gets it.
    """
    policy = cpu.policy
    await policy.migrate_begin(cpu, reason)
    unmapped: list[Unmapped] = []
    for src in folios:
        dst = await alloc_pages_thisnode(cpu, target, orders[src])
        if dst < 0:
            # -ENOMEM. After a split the rest is tried, else what is unmapped is moved and that is all.
            if orders[src]:
                cpu.count("thp_migration_fail")
                if reason != MR_NUMA_MISPLACED and await split_huge_page(cpu, src):
                    cpu.count("thp_migration_split")
                    split.append(src)
                    continue
            break
        lock = await lock_file_folio(cpu, src)
        await policy.before_unmap(cpu, src)
        left = await try_to_migrate(cpu, src)
        await policy.after_unmap(cpu, src, dst)
        unmapped.append(Unmapped(src, dst, left, lock))
    await policy.unmap_done(cpu)
    await try_to_unmap_flush(cpu)
    await policy.after_flush(cpu)
    moved = []
    for folio in unmapped:
        done = await _move(cpu, folio)
        if folio.lock:
            await Unlock(folio.lock)
        if done:
            moved.append(folio.src)
        if orders[folio.src]:
            cpu.count("thp_migration_success" if done else "thp_migration_fail")
    await policy.migrate_end(cpu)
    return moved


async def lock_file_folio(cpu: PerCpu, pfn: int) -> str:
    """folio_lock in migrate_folio_unmap, of a file's folio where somebody can tell (`folio_locks`), or ""."""
    if not cpu.parameters.folio_locks:
        return ""
    slot = await FolioMapping(pfn)
    if not slot or slot[0] == SWAP_FILE:
        return ""
    lock = folio_lock(*slot)
    await Lock(lock)
    return lock


async def _move(cpu: PerCpu, folio: Unmapped) -> bool:
    """migrate_folio_move: copy and map the destination, or map the source again."""
    policy = cpu.policy
    src, dst, left, _ = folio
    # The copy first: once the page cache names the destination, others map it. (Mainline does it in this
    # order since v6.11; before, the destination's folio lock kept them out.)
    await FolioCopy(src, dst)
    if not await FolioMigrateMapping(src, dst, await policy.extra_references(cpu, src, dst)):
        await policy.folio_not_moved(cpu, src, dst)
        await remove_migration_ptes(cpu, left, src)
        await FolioPut(dst)
        return False
    await LruAdd(dst, False)
    await remove_migration_ptes(cpu, left, dst)
    await policy.folio_moved(cpu, src, dst)
    await FolioPut(dst)
    await policy.free_folio(cpu, src)
    return True


async def migrate_misplaced_folio(cpu: PerCpu, pfn: int, target: int) -> bool:
    """migrate_misplaced_folio: promote the folio behind a NUMA hint fault, if there is room.

    Room means the high watermark (migrate_balanced_pgdat); without it kswapd is woken, which is how promotion
    drives demotion (numamigrate_isolate_folio). The caller's reference on the folio goes: isolating it has
    taken another.
    """
    pages = 1 << await folio_order(cpu, pfn)
    isolated = False
    if await zone_watermark_ok(cpu, target, pages, WMARK_HIGH):
        isolated = await FolioIsolateLru(pfn)
    else:
        await wakeup_kswapd(cpu, target)
    await FolioPut(pfn)
    if not isolated:
        return False
    # folio_migrate_flags keeps PG_active. Nothing reclaims the slow tier, so what is there is inactive.
    before = cpu.remote_flushes()
    moved, failed = await migrate_pages(cpu, [pfn], target, MR_NUMA_MISPLACED)
    cpu.count_flushes("tlb_remote_flush_promotion", before)
    for stayed in failed:
        await FolioPutbackLru(stayed, False)
    if moved:
        cpu.count("numa_pages_migrated", pages)
        cpu.count("pgpromote_success", pages)
    return bool(moved)
