"""The hooks: every place where the kernel asks when a TLB flush that it owes shall happen.

This class is also the answer of mainline Linux: flush when the kernel says so. A policy overrides
what it does differently. Hooks are called by `emulator.kernel` and may await operations; the CPU
that runs them comes first. Hooks that are plain functions decide something without touching memory.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from emulator.hardware.operations import AllocPages, AtomicAdd, FolioPut, Operation, Unlock
from emulator.hardware.pte import pte_dirty
from emulator.kernel.rmap import MIGRATION as MIGRATION
from emulator.kernel.rmap import RECLAIM as RECLAIM
from emulator.kernel.rmap import try_to_unmap_flush_dirty
from emulator.kernel.tlb import flush_tlb_mm, flush_tlb_mm_range, flush_tlb_range

if TYPE_CHECKING:
    from emulator.kernel.mmu_gather import MmuGather
    from emulator.kernel.percpu import PerCpu, Task, TlbUbc
    from emulator.kernel.tlb import FlushScope
    from emulator.memory.folios import PageFlag
    from emulator.memory.page_table import Vma

ThreadBody = Callable[..., Coroutine[Any, Any, None]]
"""Of (PerCpu, Task)."""

MR_DEMOTION = "demotion"
MR_NUMA_MISPLACED = "numa_misplaced"
# What changes an area.
MMAP: Final = "mmap"
MUNMAP: Final = "munmap"


class WrongAnswer(TypeError):
    """A policy's method answered what nobody can use; `place` is the method's file, line and name."""

    def __init__(self, method: str, answer: Any, wanted: str, place: tuple[str, int, str]) -> None:
        super().__init__(f"{method} answers {answer!r:.80}; {wanted} is expected")
        self.place = place


class Policy:
    """One policy object lives on each CPU; what CPUs share belongs into named words and lists."""

    # --- what it declares of itself; names of words may be beginnings, as "x_nr." for all x_nr.NODE ----

    name: ClassVar[str] = "policy"
    description: ClassVar[str] = ""
    """What it does, in one line."""
    like: ClassVar[str] = ""
    """The shipped policy whose expectations in tests are its too; else the one that it is derived from."""
    frees_before_flush: ClassVar[bool] = False
    """The source of a migration is freed before the flush; its frame is flushed before it is used again."""
    words_at_rest: ClassVar[tuple[str, ...]] = ()
    """Words that have to be 0 when everything is over; what else it leaves in words is its own business."""
    luf_debug: ClassVar[bool] = False
    """It has LUF v12's words and tags, by which LUF_DEBUG can tell what a frame owes
    (`checks/luf_debug.py`), where that is asked for."""
    dsb_for_others: ClassVar[bool] = True
    """On arm64 who flushes for what others have unmapped invalidates anew, as a DSB of his waits for none of
    their TLBIs. False: a DSB is all, as in the postings."""
    pending_words: ClassVar[tuple[str, ...]] = ()
    """Words whose changes tell how many pages are pending; see `pending_after`."""
    page_flags: ClassVar[tuple[PageFlag, ...]] = ()
    """The flags that it sets on folios."""

    def pending_after(self, operation: Operation, pending: int, words: Mapping[str, int]) -> int:
        """How many pages are pending now, after `operation` on one of `pending_words`; `pending` were before.

        As it stands: those words count them, by AtomicAdd.
        """
        return pending + operation.delta if isinstance(operation, AtomicAdd) else pending

    # --- unmapping: the rmap walks of migration and reclaim ----------------------------------------

    async def unmap_begin(self, cpu: PerCpu, pfn: int, reason: str) -> None:
        """try_to_migrate (`reason` is MIGRATION) or try_to_unmap (RECLAIM) walks a folio's mappings next."""

    async def unmapped(self, cpu: PerCpu, mm: int, vpn: int, pte: int, pfn: int, reason: str) -> TlbUbc:
        """set_tlb_ubc_flush_pending: the entry `pte` has been cleared and its flush may be put off; the batch
        that it is owed to. The page-table lock is held: who finds the entry gone comes after this.

        As it stands: what `batch_for` says.
        """
        return self.batch_for(cpu.current, pte)

    async def unmap_end(self, cpu: PerCpu, pfn: int, reason: str, done: bool) -> None:
        """The walk is over; `done`: the folio is mapped nowhere."""

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """set_tlb_ubc_flush_pending: the batch that the flush for an unmapped `pte` is owed to."""
        if pte_dirty(pte):
            task.tlb_ubc.writable = True
        return task.tlb_ubc

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """shrink_folio_list is about to write out what it has unmapped: nobody may write to it now."""
        await try_to_unmap_flush_dirty(cpu)

    async def unmap_flush_wanted(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush is called, and has not looked yet whether this task owes anything."""

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush is about to flush for what this task has unmapped."""

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """It has: the CPUs of `mask` have dropped all their translations."""

    # --- reclaim, in the order of shrink_folio_list -------------------------------------------------

    async def reclaim_failed(self, cpu: PerCpu, pfn: int) -> None:
        """The folio has been looked at, and perhaps unmapped, and stays."""

    async def reclaim_unmapped(self, cpu: PerCpu) -> None:
        """All of a batch are unmapped and out of their files; its flush comes next, then `free_folio`."""

    async def free_folio(self, cpu: PerCpu, pfn: int) -> None:
        """The last reference of what was reclaimed, or the source of a migration, is dropped."""
        await FolioPut(pfn)

    # --- every flush ----------------------------------------------------------------------------------

    async def flush_begin(self, cpu: PerCpu, scope: FlushScope) -> int:
        """A flush of any kind begins; the answer is given to `flushed`."""
        return 0

    async def flushed(self, cpu: PerCpu, scope: FlushScope, token: int) -> None:
        """No CPU of the scope uses what was owed to it when the flush began."""

    # --- migration, in the order of migrate_pages_batch --------------------------------------------

    async def migrate_begin(self, cpu: PerCpu, reason: str) -> None:
        """A batch starts; `reason` is MR_DEMOTION or MR_NUMA_MISPLACED."""

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        """The folio `src` is about to be unmapped."""

    async def after_unmap(self, cpu: PerCpu, src: int, dst: int) -> None:
        """`src` is unmapped everywhere, and `dst` is there to take its content."""

    async def unmap_done(self, cpu: PerCpu) -> None:
        """All folios of the batch are unmapped; the ordinary flush of the batch comes next."""

    async def after_flush(self, cpu: PerCpu) -> None:
        """The ordinary flush of the batch is done; folios are moved next."""

    async def extra_references(self, cpu: PerCpu, src: int, dst: int) -> int:
        """References that the policy itself holds on `src` while it is moved."""
        return 0

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """`src` has been copied and every mapping names `dst` now."""

    async def folio_not_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        """The move failed after `after_unmap`; mappings name `src` again next."""

    async def migrate_end(self, cpu: PerCpu) -> None:
        """The batch is through."""

    # --- mappings that become writable -------------------------------------------------------------

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """A mapping of the folio is about to become writable, or its page to be replaced by a copy."""

    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        """The same outside do_wp_page: a hint fault or mprotect gives the right back, or do_shared_fault maps
        a page writable from the start. No posting looks at these places."""

    # --- faults, areas, files, switches -----------------------------------------------------------------

    async def entry(self, cpu: PerCpu, mm: int, vpn: int, pte: int, why: str) -> None:
        """set_pte_at: a present entry is about to be installed, for the first time or anew; `why` is one of
        those of pgtable_generic.py. Often, not always, the page-table lock is held. An entry that is compared
        first (CmpxchgPte) may be another by then, and is not installed."""

    async def entry_changed(self, cpu: PerCpu, mm: int, vpn: int, old: int, seen: int) -> None:
        """update_mmu_tlb: a fault has found another entry than the one that it went by, and gives up."""

    async def fault_end(self, cpu: PerCpu, mm: int, vma: Vma, write: bool) -> None:
        """handle_mm_fault ends, the area's lock held. What it has mapped others can walk already."""

    async def area_changing(self, cpu: PerCpu, mm: int, start: int, end: int, flags: int) -> None:
        """do_mmap begins, mmap_lock held: pages [start, end) are to be an area with these VM_* flags."""

    async def area_changed(self, cpu: PerCpu, mm: int, start: int, end: int, why: str) -> None:
        """Pages [start, end) are in another area than before (`why` is MMAP), or in none (MUNMAP), and the
        call has not returned. That is said also where nothing was mapped."""

    async def table_changed(self, cpu: PerCpu, tlb: MmuGather, vpn: int) -> None:
        """A gather has changed entries of the page table of page `vpn`, whose lock is held, and has not
        flushed."""

    async def gather_end(self, cpu: PerCpu, mm: int, vma: Vma) -> None:
        """tlb_end_vma: a gather is through with an area, whatever it has found there. Its flush may be still
        to come."""

    async def left_unflushed(self, cpu: PerCpu, mm: int, vpn: int) -> None:
        """ptep_clear_flush has cleared an entry that no CPU can have cached, and has not flushed."""

    async def page_cache_changed(self, cpu: PerCpu, file: int) -> None:
        """What a file's pages are has changed: write(2) begins, mappings were cleaned before writing out, or
        pages were taken away or cut."""

    async def file_written(self, cpu: PerCpu, file: int) -> None:
        """file_end_write: write(2) or fallocate has changed a file, and has dropped the inode's lock."""

    async def tick(self, cpu: PerCpu) -> None:
        """scheduler_tick: every `tick_accesses` accesses of the CPU, between two of them."""

    async def mm_dropped(self, cpu: PerCpu, mm: int) -> None:
        """__mmdrop: nobody has this address space any more, and its number may be used again."""

    def threads(self, cpu: PerCpu) -> tuple[ThreadBody, ...]:
        """What kernel threads of the policy's own run on this CPU: each is awaited as `body(cpu, task)`, from
        boot until `task.should_stop`, and waits by `kthread_wait` (sched.py)."""
        return ()

    async def switched(self, cpu: PerCpu, mm: int) -> None:
        """finish_task_switch behind a kernel thread, which had borrowed `mm`, as the task that is next."""

    # --- mappings that are written no more -------------------------------------------------------------

    async def after_fork(self, cpu: PerCpu, mm: int) -> None:
        """dup_mmap has write-protected the parent's entries: flush_tlb_mm, before the child can run."""
        await flush_tlb_mm(cpu, mm)

    delays_rmap: ClassVar[bool] = True
    """tlb_delay_rmap: munmap flushes for a dirty page of a file before that leaves the reverse map."""

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """tlb_flush_mmu: the entries of pages [start, end) are gone, and their frames are about to go.

        `stride` and `freed_tables` are those of flush_tlb_mm_range: page tables may be about to go as well.
        """
        await flush_tlb_mm_range(cpu, mm, start, end, freed_tables, stride)

    async def flush_changed(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """The entries of pages [start, end) grant less than before or are elsewhere, and their pages stay:
        the flush before the page-table lock is dropped (ptep_clear_flush), or at the end."""
        await flush_tlb_mm_range(cpu, mm, start, end, freed_tables, stride)

    async def flush_moved(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """move_ptes: what was mapped at pages [start, end) is elsewhere, and both page tables are still
        locked."""
        await flush_tlb_range(cpu, mm, start, end)

    async def move_unlocked(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """move_ptes has dropped the locks: from here on others find what was moved."""

    async def flush_collected(self, cpu: PerCpu, mm: int, start: int, end: int, lock: str) -> None:
        """migrate_vma_collect_pmd has left migration entries in [start, end): flush, then give the page-table
        lock back."""
        await flush_tlb_mm_range(cpu, mm, start, end)
        await Unlock(lock)

    # --- local flushes -------------------------------------------------------------------------------

    async def local_flush_begin(self, cpu: PerCpu) -> int:
        """This CPU is about to flush its TLB; the answer is given to `local_flush_end`."""
        return 0

    async def local_flush_end(self, cpu: PerCpu, token: int) -> None:
        """This CPU has flushed its TLB."""

    # --- allocation ------------------------------------------------------------------------------------

    async def pending_pages(self, cpu: PerCpu, node: int) -> int:
        """Pages of the node that a flush would free; watermark checks count them as free."""
        return 0

    async def take_pages(
        self, cpu: PerCpu, node: int, order: int, mark: int, pending: int, may_interrupt: bool
    ) -> int:
        """rmqueue: take 2**order pages off the node's lists; a frame, or -1, also for what is refused.

        Who may not interrupt other CPUs cannot flush for it. As it stands: AllocPages.
        """
        return await AllocPages(node, order, mark, pending)

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """Pages have left the free lists; nobody has them yet (prep_new_page)."""

    async def watermark_failed(self, cpu: PerCpu, node: int) -> bool:
        """The watermark of the node does not hold; whether something was freed and a retry is due."""
        return False

    async def allocation_failed(self, cpu: PerCpu, order: int) -> bool:
        """The fast path found nothing; whether something was freed and a retry is due."""
        return False

    async def slowpath_enter(self, cpu: PerCpu) -> None:
        """__alloc_pages_slowpath begins."""

    async def slowpath_retry_failed(self, cpu: PerCpu) -> None:
        """The first attempt inside the slow path failed: reclaim comes next."""

    async def slowpath_leave(self, cpu: PerCpu) -> None:
        """__alloc_pages_slowpath ends, whatever came out."""

    # --- the end -----------------------------------------------------------------------------------------

    async def drain(self, cpu: PerCpu) -> None:
        """Perform everything that is still owed."""
