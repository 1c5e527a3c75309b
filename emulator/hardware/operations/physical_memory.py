"""Operations on the allocator, folios, LRU lists and the page cache."""

from __future__ import annotations

from emulator.hardware.operations.places import (
    Place,
    Touches,
    access_times,
    all_referenced,
    allocated,
    any_freeness,
    any_lru,
    any_mapping,
    any_pte,
    any_references,
    any_rmap,
    any_slot,
    cached,
    destination_cached,
    destination_flags,
    destination_frame,
    destination_freeness,
    destination_references,
    flags,
    frame,
    freeness,
    maybe_freed,
    node_lru,
    pins,
    reads,
    referenced,
    references,
    rmap,
    slot,
    source_cached,
    source_flags,
    source_frame,
    source_freeness,
    source_references,
    source_rmap,
    split,
    table_pages,
    writes,
    zone,
)
from emulator.hardware.operations.table import Answer, Answers, Order, Price, Row, Where


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(zone),
    Price.ALLOCATE,
    Answer.FRAME,
    carries=(zone,),
    touches=Touches(writes=(zone,), outcome=allocated),
)
class AllocPages(Answers[int]):
    """rmqueue if the watermark holds with `extra_free` pages counted as free, from the CPU's page list if
    there are some: head frame (reference count 1), or -1."""

    node: int
    order: int
    mark: int
    extra_free: int


@Row(Where.MEMORY, Order.LOCKED, writes(zone), Price.ALLOCATE, carries=(zone,))
class DrainPages(Answers[None]):
    """drain_all_pages: all CPUs' page lists of the node go back to its zone."""

    node: int


@Row(Where.MEMORY, Order.LOCKED, writes(zone), Price.FOLIO, carries=(zone,))
class ZonePaid(Answers[None]):
    """What pages of the node with tags up to this owe is paid (zone->zone_ugen_done of LUF): they are had
    like any others."""

    node: int
    tag: int


@Row(Where.MEMORY, Order.LOAD, reads(zone), Price.FOLIO, Answer.VALUE, carries=(zone,))
class NrFree(Answers[int]):
    """zone_page_state(NR_FREE_PAGES): what is on CPUs' lists does not count."""

    node: int


@Row(Where.MEMORY, Order.LOCKED, writes(references), Price.FOLIO, carries=(references,))
class FolioGet(Answers[None]):
    """folio_get."""

    pfn: int


@Row(Where.MEMORY, Order.LOCKED, writes(references), Price.FOLIO, Answer.VALUE, carries=(references,))
class FolioTryGet(Answers[bool]):
    """folio_try_get: false if the count is 0."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(references),
    Price.FOLIO,
    carries=(references,),
    touches=Touches(writes=(references,), outcome=maybe_freed),
)
class FolioPut(Answers[None]):
    """folio_put: frees the folio, to the CPU's page list if CPUs have some, when the count reaches 0."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(references),
    Price.FOLIO,
    Answer.VALUE,
    carries=(references,),
    touches=Touches(writes=(references,), outcome=maybe_freed),
)
class FolioPutTestzero(Answers[bool]):
    """folio_put_testzero, and then as FolioPut: whether the reference was the last."""

    pfn: int


@Row(Where.MEMORY, Order.LOCKED, writes(references), Price.FOLIO, carries=(references,))
class FolioSetTag(Answers[None]):
    """page->private of a folio that is about to be freed: what is owed for its frames while they are free.

    The later of two is the larger one, and a block of the zone has its parts' latest. The low TAG_BITS are
    for who takes it off a CPU's list, and are lost in the zone.
    """

    pfn: int
    tag: int


@Row(Where.MEMORY, Order.LOCKED, writes(references), Price.FOLIO, Answer.VALUE, carries=(references,))
class FolioTakeTag(Answers[int]):
    """The tag with which a folio came from the allocator, 0 for none; it has none from then on."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(references, pins),
    Price.FOLIO,
    Answer.VALUE,
    carries=(references, pins),
    touches=Touches(writes=(any_references, pins)),
)
class FolioTryPin(Answers[bool]):
    """try_grab_folio with FOLL_PIN: a reference that is counted as a pin; false if the count is 0."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(references, pins),
    Price.FOLIO,
    carries=(references, pins),
    touches=Touches(writes=(any_references, pins), outcome=maybe_freed),
)
class FolioUnpin(Answers[None]):
    """gup_put_folio with FOLL_PIN: the pin and its reference go; frees the folio when that was the last."""

    pfn: int


@Row(Where.MEMORY, Order.LOAD, reads(pins), Price.FOLIO, Answer.VALUE, carries=(pins,))
class FolioMaybeDmaPinned(Answers[bool]):
    """folio_maybe_dma_pinned: somebody has pinned it, and may read or write it at any time."""

    pfn: int


@Row(Where.MEMORY, Order.LOAD, reads(references), Price.FOLIO, Answer.VALUE, carries=(references,))
class FolioRefcount(Answers[int]):
    """folio_ref_count."""

    pfn: int


@Row(Where.MEMORY, Order.LOAD, reads(flags), Price.FOLIO, Answer.VALUE, carries=(flags,))
class FolioTestFlag(Answers[bool]):
    """folio_test_*."""

    pfn: int
    flag: int


@Row(Where.MEMORY, Order.LOCKED, writes(flags), Price.FOLIO, carries=(flags,))
class FolioSetFlag(Answers[None]):
    """folio_set_*."""

    pfn: int
    flag: int


@Row(Where.MEMORY, Order.LOCKED, writes(flags), Price.FOLIO, carries=(flags,))
class FolioClearFlag(Answers[None]):
    """folio_clear_*."""

    pfn: int
    flag: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(access_times),
    Price.FOLIOS,
    Answer.VALUE,
    touches=Touches((any_freeness,), (access_times,)),
)
class FolioXchgAccessTime(Answers[int]):
    """folio_xchg_access_time of each folio: when the scanner marked it or it was used; what the first had."""

    pfns: tuple[int, ...]
    time: int


@Row(Where.MEMORY, Order.LOAD, reads(references), Price.FOLIO, Answer.VALUE)
class FolioOrder(Answers[int]):
    """folio_order: the folio has 2**order pages; 0 for a free frame."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(references),
    Price.SPLIT,
    Answer.VALUE,
    carries=(references,),
    touches=Touches(
        writes=(references, flags, freeness, any_pte, any_mapping, any_rmap, table_pages), outcome=split
    ),
)
class SplitHugePage(Answers[bool]):
    """folio_ref_freeze and __split_huge_page: false if the huge folio has not `refs` references or is mapped.

    Else each of its pages is a folio of order 0 with that many, on no LRU list, and the migration entries
    that name it are one for each page."""

    pfn: int
    refs: int


@Row(Where.MEMORY, Order.LOCKED, reads(rmap), Price.RMAP, Answer.VALUE, carries=(rmap,))
class FolioRmap(Answers[tuple[tuple[int, int], ...]]):
    """rmap_walk: every (mm, vpn) whose entry names the folio."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.STORE,
    Place(reads=(source_frame,), writes=(destination_frame,)),
    Price.COPY,
    touches=Touches((source_frame, source_freeness, destination_freeness), (destination_frame,)),
)
class FolioCopy(Answers[None]):
    """folio_copy: the content version goes along."""

    src: int
    dst: int


@Row(Where.MEMORY, Order.LOAD, reads(source_frame, destination_frame), Price.COPY, Answer.VALUE)
class PagesIdentical(Answers[bool]):
    """pages_identical: the two frames have the same content version."""

    src: int
    dst: int


@Row(Where.MEMORY, Order.STORE, writes(frame), Price.ZERO, touches=Touches((freeness,), (frame,)))
class FolioZero(Answers[None]):
    """clear_highpage: content version 0."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(slot),
    Price.FOLIO,
    Answer.VALUE,
    carries=(slot,),
    touches=Touches(writes=(slot,), outcome=referenced),
)
class FilemapGet(Answers[int]):
    """filemap_get_folio: the cached frame with a reference taken, or -1."""

    file: int
    pgoff: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(slot, references),
    Price.FOLIO,
    Answer.VALUE,
    carries=(slot,),
    touches=Touches((freeness,), (slot, references, frame, cached), outcome=referenced),
)
class FilemapAdd(Answers[int]):
    """filemap_add_folio: -1, or the frame that was there first (with a reference taken). The cache
    holds a reference. What the file has there is read in the same step: the folio stays locked until then."""

    file: int
    pgoff: int
    pfn: int


@Row(Where.MEMORY, Order.LOAD, reads(references), Price.FOLIO, Answer.VALUE)
class FolioMapping(Answers[tuple[int, ...]]):
    """folio_mapping and the folio's index: (file, pgoff), or () if it is in no page cache."""

    pfn: int


@Row(Where.MEMORY, Order.LOCKED, Place(reads=(frame,), writes=(slot,)), Price.FOLIO)
class WritePage(Answers[None]):
    """a_ops->writepage and its I/O: the file gets the frame's content version."""

    file: int
    pgoff: int
    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(slot, references),
    Price.FOLIO,
    Answer.VALUE,
    carries=(slot, references),
    touches=Touches(writes=(slot, references, flags, cached), outcome=maybe_freed),
)
class FilemapRemove(Answers[bool]):
    """Take a folio out of its page-cache slot, if it still is in it; the cache's reference goes.

    With `refs`, __remove_mapping: only if that is its count and it is not dirty. Without (0), the
    filemap_remove_folio of a truncation: whoever uses it, and what the file had there goes too; -1: that
    stays for RemoveBlock."""

    file: int
    pgoff: int
    pfn: int
    refs: int


@Row(Where.MEMORY, Order.LOCKED, writes(slot), Price.FOLIO, carries=(slot,))
class RemoveBlock(Answers[None]):
    """ext4_ext_remove_space, of one page: what is stored there goes. A page that is in the cache stays."""

    file: int
    pgoff: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    Place(reads=(source_rmap,), writes=(source_references, destination_references)),
    Price.FOLIO,
    Answer.VALUE,
    carries=(source_references, destination_references),
    touches=Touches(
        (source_flags, source_rmap),
        (
            source_references,
            destination_references,
            destination_flags,
            source_cached,
            destination_cached,
            any_slot,
        ),
    ),
)
class FolioMigrateMapping(Answers[bool]):
    """folio_migrate_mapping: false if the source has other references than the isolating one, its page
    cache's and `extra`; else the page-cache slot, if any, and its reference go over.

    False also if somebody has it mapped: then migrate_folio_unmap gives up (folio_mapped). A fork that the
    walk of its mappings did not see can have done that here; in Linux the walk's lock lets it miss none."""

    src: int
    dst: int
    extra: int


@Row(Where.MEMORY, Order.LOCKED, writes(any_lru), Price.FOLIO, touches=Touches(writes=(any_lru, references)))
class LruAdd(Answers[None]):
    """folio_add_lru."""

    pfn: int
    active: bool


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(any_lru),
    Price.FOLIO,
    Answer.VALUE,
    carries=(node_lru,),
    touches=Touches(writes=(any_lru,), outcome=all_referenced),
)
class IsolateLru(Answers[tuple[int, ...]]):
    """isolate_lru_folios: oldest first, until they have `nr` pages; a reference on each; of `file`s."""

    node: int
    active: bool
    nr: int
    file: bool


@Row(
    Where.MEMORY, Order.LOCKED, writes(any_lru, references), Price.FOLIO, Answer.VALUE, carries=(references,)
)
class FolioIsolateLru(Answers[bool]):
    """folio_isolate_lru: false if it was not on a list; takes a reference."""

    pfn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(any_lru, references),
    Price.FOLIO,
    carries=(references,),
    touches=Touches(writes=(any_lru, references), outcome=maybe_freed),
)
class FolioPutbackLru(Answers[None]):
    """folio_putback_lru: back on a list, the reference dropped."""

    pfn: int
    active: bool


@Row(Where.MEMORY, Order.LOAD, reads(any_lru), Price.FOLIO, Answer.VALUE, carries=(node_lru,))
class NrLru(Answers[tuple[int, int]]):
    """(active, inactive) pages of the node, anonymous or of files."""

    node: int
    file: bool
