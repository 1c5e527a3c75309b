"""Operations on page tables and areas, and the accesses that the hardware makes through them."""

from __future__ import annotations

from emulator.hardware.operations.places import (
    Place,
    Touches,
    any_pte,
    any_rmap,
    areas,
    areas_if_asked,
    entry_range,
    frame,
    mapping,
    mm_lock,
    mm_lock_if_whole,
    old_mapping,
    page_table_lock,
    pins,
    pte,
    reads,
    references_of_entry,
    rmap,
    rmap_of_entry,
    rmap_of_new,
    rmap_of_old,
    table_pages,
    vma_readers,
    vma_writer,
    writes,
    written_through,
)
from emulator.hardware.operations.table import Answer, Answers, Order, Price, Row, Where


@Row(Where.MEMORY, Order.LOAD, reads(pte), Price.ENTRY, Answer.ENTRY, carries=(pte,), location=pte)
class GetPte(Answers[int]):
    """ptep_get: the entry, without the page-table lock."""

    mm: int
    vpn: int


@Row(
    Where.MEMORY,
    Order.STORE,
    writes(pte, rmap_of_entry),
    Price.ENTRY,
    carries=(pte,),
    location=pte,
    touches=Touches(writes=(pte, mapping, any_rmap, table_pages)),
)
class SetPte(Answers[None]):
    """set_pte_at: a plain store."""

    mm: int
    vpn: int
    pte: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte, rmap_of_entry),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches(writes=(pte, mapping, rmap_of_entry, table_pages), outcome=old_mapping),
)
class XchgPte(Answers[int]):
    """ptep_get_and_clear when `pte` is 0; the old entry. Not enabled while another CPU holds the
    page-table lock."""

    mm: int
    vpn: int
    pte: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches(writes=(pte, mapping), outcome=old_mapping),
)
class ZapPte(Answers[int]):
    """ptep_get_and_clear_full as zap_pte_range uses it, then page_remove_rmap; the old entry. With
    `delay_rmap` a dirty page stays in its folio's reverse map (folio_mapped) until
    RemoveRmap. Not enabled while another CPU holds the page-table lock."""

    mm: int
    vpn: int
    delay_rmap: bool
    pte = 0  # what is there afterwards, as with XchgPte


@Row(Where.MEMORY, Order.LOCKED, writes(rmap), Price.FOLIO, carries=(rmap,))
class RemoveRmap(Answers[None]):
    """page_remove_rmap of a mapping that ZapPte has left in the folio's reverse map (tlb_flush_rmaps)."""

    mm: int
    vpn: int
    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte, rmap_of_old, rmap_of_new),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches((areas_if_asked,), (pte, mapping, rmap_of_old, rmap_of_new, table_pages)),
)
class CmpxchgPte(Answers[int]):
    """Under the page-table lock: replace the entry if it still is `old` (pte_same); the entry seen.

    -1 where an empty entry (`old` 0) is no longer inside any area, or its area may not be written any more
    and
    `new` gives that right: a fault holds the area's lock until here."""

    mm: int
    vpn: int
    old: int
    new: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    Place(reads=(pins,), writes=(pte, rmap)),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches((pins,), (pte, mapping, rmap)),
)
class TryToMigratePte(Answers[int]):
    """One step of try_to_migrate_one under the page-table lock: if the entry maps `pfn`, clear it and
    leave a migration entry; the old entry, else 0. To walkers both are non-present, so nobody
    sees two steps. A page that is this mapping's own and pinned stays (page_try_share_anon_rmap)."""

    mm: int
    vpn: int
    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte, rmap_of_entry),
    Price.SPLIT,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches(writes=(pte, mapping, rmap_of_entry, references_of_entry, table_pages)),
)
class PopulatePmd(Answers[None]):
    """The end of __split_huge_pmd_locked: a page table with an entry for each page of the huge one at `vpn`,
    made of `pte`, which was the PMD; each holds a reference on the folio."""

    mm: int
    vpn: int
    pte: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte, rmap_of_entry),
    Price.SPLIT,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
    touches=Touches(writes=(pte, mapping, any_rmap, table_pages)),
)
class CollapsePmd(Answers[None]):
    """The end of collapse_huge_page: the entries of the pages from `vpn` on and their table are gone, the PMD
    is `pte`, which maps a huge page."""

    mm: int
    vpn: int
    pte: int


@Row(Where.MEMORY, Order.LOAD, reads(pte), Price.ENTRY, Answer.ENTRY, carries=(pte,), waits=pte)
class WaitPte(Answers[int]):
    """migration_entry_wait: not enabled while the entry is `pte`."""

    mm: int
    vpn: int
    pte: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(pte),
    Price.ENTRY,
    Answer.VALUE,
    carries=(pte, page_table_lock),
    waits=page_table_lock,
)
class TestAndClearYoung(Answers[bool]):
    """ptep_test_and_clear_young under the page-table lock; false for a non-present entry. x86 does not flush
    for it."""

    mm: int
    vpn: int


@Row(Where.MEMORY, Order.LOAD, reads(areas), Price.ENTRY, Answer.VALUE, carries=(areas,))
class FindVma(Answers[tuple[int, ...]]):
    """find_vma: (start, end, flags, file, pgoff) of the area holding `vpn`, or ()."""

    mm: int
    vpn: int


# A fault learns from its area's lock what it learns from the area, as FindVma does. What it has done it tells
# nobody by that: page-table locks and zones carry that, and of two faults nobody can tell who came first.
@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(areas, vma_writer),
    Price.LINE,
    Answer.VALUE,
    carries=(areas,),
    waits=mm_lock,
    touches=Touches((areas, vma_writer), adds=(vma_readers, mm_lock_if_whole)),
)
class LockVma(Answers[tuple[int, ...]]):
    """lock_vma_under_rcu, else lock_mm_and_find_vma: as FindVma, with the area locked for reading.

    With `whole` it is the mm's mmap_lock (before v6.4). Not enabled where the fault has to wait for a writer:
    one who holds mmap_lock, while the area is locked for writing or there is none. () locks nothing."""

    mm: int
    vpn: int
    whole: bool


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(vma_readers),
    Price.LINE,
    touches=Touches(adds=(vma_readers, mm_lock_if_whole)),
)
class ReleaseFaultLock(Answers[None]):
    """release_fault_lock: vma_end_read of the area that began at page `start`, or mmap_read_unlock."""

    mm: int
    start: int
    whole: bool


@Row(
    Where.MEMORY,
    Order.LOCKED,
    Place((areas, vma_readers), (vma_writer,)),
    Price.LINE,
    Answer.VALUE,
    waits=vma_readers,
)
class VmaStartWrite(Answers[tuple[int, ...]]):
    """vma_start_write of all areas in pages [start, end), those included that are going to begin there; where
    these begin. Not enabled while a fault holds one."""

    mm: int
    start: int
    end: int


@Row(Where.MEMORY, Order.LOCKED, writes(vma_writer), Price.LINE)
class VmaEndWriteAll(Answers[None]):
    """vma_end_write_all, of the areas that VmaStartWrite has told."""

    mm: int
    starts: tuple[int, ...]


@Row(Where.MEMORY, Order.LOCKED, writes(areas), Price.FOLIO, Answer.VALUE, carries=(areas,))
class VmaInsert(Answers[bool]):
    """mmap: add an area of pages [start, end); false if it overlaps another. Its first page is page `pgoff`
    of the file."""

    mm: int
    start: int
    end: int
    flags: int
    file: int
    pgoff: int


@Row(Where.MEMORY, Order.LOCKED, writes(areas), Price.FOLIO, Answer.VALUE, carries=(areas,))
class VmaRemove(Answers[tuple[tuple[int, ...], ...]]):
    """munmap's area tree part: forget the areas inside [start, end), cut at its borders; what they were."""

    mm: int
    start: int
    end: int


@Row(Where.MEMORY, Order.LOCKED, writes(areas), Price.FOLIO, Answer.VALUE, carries=(areas,))
class VmaProtect(Answers[int]):
    """mprotect's area tree part: set flags of areas inside [start, end); how many pages."""

    mm: int
    start: int
    end: int
    flags: int


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(areas),
    Price.SCAN,
    Answer.VALUE,
    carries=(entry_range,),
    touches=Touches((any_pte,)),
)
class MappedRange(Answers[tuple[tuple[int, int], ...]]):
    """(vpn, entry) of the non-empty entries in [start, end): the walk over a range's page tables."""

    mm: int
    start: int
    end: int


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(areas),
    Price.ENTRY,
    Answer.VALUE,
    carries=(entry_range,),
    touches=Touches((any_pte,)),
)
class PmdRange(Answers[tuple[tuple[int, int], ...]]):
    """pmd_offset over pages [start, end): (first page, entry) of the PMDs that are not none; the entry is 0
    for one that holds a page table, however empty."""

    mm: int
    start: int
    end: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(areas),
    Price.FOLIO,
    Answer.VALUE,
    carries=(areas,),
    touches=Touches(writes=(areas, any_pte, table_pages)),
)
class FreePgtables(Answers[tuple[tuple[int, int, int], ...]]):
    """free_pgd_range over pages [start, end), where no area is any more: (first page, order, upper entry) of
    the tables that go, small ones first; a table maps 2**order pages. Those that areas on either side use
    stay. The upper entry is 0 for what is no thing of its own.

    Nothing races with its steps: without an area nobody maps, and no folio is known to be mapped there."""

    mm: int
    start: int
    end: int


@Row(
    Where.MEMORY,
    Order.WALK,
    reads(pte),
    Price.ENGINE,
    Answer.ENTRY,
    second_half=True,
    touches=Touches(writes=(written_through,), adds=(pte,)),
)
class Walk(Answers[int]):
    """The page walker: sets ACCESSED (and DIRTY on a write), answers the entry, or 0 for a page fault."""

    mm: int
    vpn: int
    write: bool


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(frame),
    Price.PAID,
    Answer.VALUE,
    location=frame,
    second_half=True,
    user_access=True,
)
class ReadFrame(Answers[int]):
    """The use of a translation by a load: content version of the frame."""

    mm: int
    vpn: int
    pfn: int


@Row(
    Where.MEMORY,
    Order.STORE,
    writes(frame),
    Price.PAID,
    location=frame,
    second_half=True,
    user_access=True,
    notation="writes frame {0.pfn}: version {0.value}",
)
class WriteFrame(Answers[None]):
    """The use of a translation by a store: `value` becomes the content version."""

    mm: int
    vpn: int
    pfn: int
    value: int
