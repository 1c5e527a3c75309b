"""The hooks: every place where the kernel asks when a TLB flush that it owes shall happen.

This class is also the answer of mainline Linux: flush when the kernel says so. A policy overrides
what it does differently. Hooks are called by `emulator.kernel` and may await operations; the CPU
that runs them comes first. Hooks that are plain functions decide something without touching memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

from emulator.hardware.operations import AtomicAdd, Operation, Unlock
from emulator.hardware.pte import pte_dirty
from emulator.kernel.rmap import try_to_unmap_flush_dirty
from emulator.kernel.tlb import flush_tlb_mm, flush_tlb_mm_range, flush_tlb_range

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu, Task, TlbUbc
    from emulator.memory.folios import PageFlag

MR_DEMOTION = "demotion"
MR_NUMA_MISPLACED = "numa_misplaced"


class WrongAnswer(TypeError):
    """A policy's method answered what nobody can use; `place` is the method's file, line and name."""

    def __init__(self, method: str, answer: Any, wanted: str, code: CodeType) -> None:
        super().__init__(f"{method} answers {answer!r:.80}; {wanted} is expected")
        self.place = (code.co_filename, code.co_firstlineno, code.co_name)


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
    pending_words: ClassVar[tuple[str, ...]] = ()
    """Words whose changes tell how many pages are pending; see `pending_after`."""
    page_flags: ClassVar[tuple[PageFlag, ...]] = ()
    """The flags that it sets on folios."""

    def pending_after(self, operation: Operation, pending: int, words: Mapping[str, int]) -> int:
        """How many pages are pending now, after `operation` on one of `pending_words`; `pending` were before.

        As it stands: those words count them, by AtomicAdd.
        """
        return pending + operation.delta if isinstance(operation, AtomicAdd) else pending

    # --- unmapping -------------------------------------------------------------------------------

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """set_tlb_ubc_flush_pending: the batch that the flush for an unmapped `pte` is owed to."""
        if pte_dirty(pte):
            task.tlb_ubc.writable = True
        return task.tlb_ubc

    async def flush_before_io(self, cpu: PerCpu) -> None:
        """shrink_folio_list is about to write out what it has unmapped: nobody may write to it now."""
        await try_to_unmap_flush_dirty(cpu)

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        """try_to_unmap_flush is about to flush for what this task has unmapped."""

    async def unmap_flush_end(self, cpu: PerCpu, mask: int) -> None:
        """It has: the CPUs of `mask` have dropped all their translations."""

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
