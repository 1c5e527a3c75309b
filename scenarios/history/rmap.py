"""Bugs of flushes that reclaim puts off, and of those who come before it has flushed."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, WaitPte
from emulator.hardware.pte import ACCESSED, PRESENT, mk_pte
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, SLOW, Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import (
    AFTER_RETURN,
    MADE_WRITABLE,
    NO_PERMISSION,
    RANGE_REUSED,
    RECEIVED,
    RETURNED,
    WRONG_VERSION,
    never,
    sometimes,
)
from scenarios.litmus.locks import MPROTECT_RECLAIMED
from scenarios.litmus.pageout import DIRTY_PAGEOUT
from scenarios.litmus.starts import FILE, OTHER, PAGE, VERSION, file_page
from scenarios.litmus.steps import WRITTEN, call, cannot_read, finds, in_order, once_returned, returns, write
from scenarios.litmus.syscalls import PROT_NONE, mmap, mprotect, reclaim

FAR = PAGE + 0x200  # in another page table
PAIR = (1, 2)
SLOW_FRAME = 5
_MAPPED = mk_pte(1, PRESENT | ACCESSED)

MPROTECT_BESIDE_RECLAIM = Bug(
    name="mprotect-beside-reclaim",
    title="mprotect returns although reclaim owes the flush for what it has unmapped",
    kinds=("PT",),
    story="CPU 1 has the page cached. CPU 0 (reclaim) clears the entry and puts the flush into its "
    "batch. CPU 1's process calls mprotect: there is no entry, so there is no flush, and the call "
    "returns. CPU 1 goes on using the page. The same with munmap, mremap and madvise.",
    affected="v4.3 to v4.12",
    source="the commit, 3ea277194daaeaa84ce75180ec7c7a2075027a68",
    fix="3ea277194daa",
    test=MPROTECT_RECLAIMED,
    before="mistake:before-3ea277194daa",
)


async def _reclaims_both(cpu: PerCpu) -> None:
    """In one batch: one flush at its end."""
    for pfn in PAIR:
        await FolioIsolateLru(pfn)
    await shrink_file_folios(cpu, list(PAIR))


def _two_tables(setup: Setup) -> None:
    file_page(cached=(), stored=True)(setup)
    setup.area(FAR, 1, file=FILE, shared=True, pgoff=1)
    setup.on_disk(FILE, 1, VERSION)
    setup.in_page_cache(setup.page(FAR, exclusive=False, version=VERSION, cached=(0,)), FILE, 1)


BATCH_FORGOTTEN = Bug(
    name="batched-flush-forgotten",
    title="who flushes for a batch forgets what is unmapped meanwhile",
    kinds=("FL",),
    story="CPU 0 (mprotect) finds that the mm has unmaps whose flush is owed, and flushes. CPU 1 "
    "(reclaim) unmaps another page in the meantime, under another page-table lock, and says so. "
    "CPU 0 has flushed and clears the flag. When it takes the permission of that other page, "
    "nothing seems to be owed; its own thread goes on reading it.",
    affected="v4.13 to v5.16",
    source="the commit, 5ee2fa2f0636",
    fix="5ee2fa2f0636",
    test=Litmus(
        name="batched-flush-forgotten",
        question="A page is unmapped while somebody flushes for what was unmapped before: is it forgotten?",
        programs=(
            in_order(
                WaitPte(MM, PAGE, _MAPPED),
                call(mprotect, PAGE, PROT_NONE),
                call(mprotect, FAR, PROT_NONE),
                call(cannot_read, FAR),
            ),
            _reclaims_both,
        ),
        setup=_two_tables,
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-5ee2fa2f0636", NO_PERMISSION, RETURNED),
        ),
        drain=False,
        frugal=False,
        speculated=(FAR,),
        fast=2,
    ),
    before="mistake:before-5ee2fa2f0636",
)

PAGEOUT_BEFORE_FLUSH = Bug(
    name="pageout-before-flush",
    title="a dirty page is written out while CPUs still write to it without a fault",
    kinds=("WO",),
    story="CPU 0 (reclaim) unmaps a dirty page and puts the flush off to the end of its batch. It writes"
    " the page out. CPU 1 writes through the entry that it has cached after that, and nobody "
    "writes this out. The flush before I/O came in the same series as the batch; a series of 2025 "
    "that moves it was held off on the list because nobody could see whether the order still "
    "holds.",
    affected="no release; what 72b252aed506 (v4.3) does by itself",
    source="the commit, d950c9477d51f0cefc2ed3cf76e695d46af0d9c1; the thread of Vinay Banakar's series, "
    "March 2025",
    fix="d950c9477d51",
    test=DIRTY_PAGEOUT,
    before="mistake:pageout-without-flush",
)

OTHER_FILE = 2


def _two_files(setup: Setup) -> None:
    file_page(PAGE, cached=(1,), stored=True)(setup)
    setup.on_disk(OTHER_FILE, 0, WRITTEN)
    # In the same page table, which is not freed therefore.
    setup.area(OTHER, 1)


MAPPED_OVER = Bug(
    name="luf-mapped-over",
    title="a file is mapped over pages whose flush a proposal has put off",
    kinds=("FR",),
    story="CPU 1 has a clean page of a file cached. CPU 0 reclaims it: the entry is gone, the page is "
    "out of the cache, its frame is free, and the flush is put off until somebody gets the frame. "
    "CPU 0 maps another file over the same address. CPU 1 reads: which file?",
    affected="LUF v10 (not merged)",
    source="Dave Hansen's answer to v10, 2024 (id 42728589899)",
    fix="LUF v12",
    test=Litmus(
        name="luf-mapped-over",
        question="Reclaim has freed a page that CPUs still have cached: may another file be mapped there?",
        programs=(
            in_order(reclaim, call(mmap, PAGE, file=OTHER_FILE, shared=True, fixed=True), returns),
            once_returned(call(finds, WRITTEN)),
        ),
        setup=_two_files,
        expected=(never("immediate", RECEIVED, AFTER_RETURN), sometimes("mistake:luf-v10", RANGE_REUSED)),
        drain=False,
        frugal=False,
    ),
    before="mistake:luf-v10",
)


def _in_the_slow_node(setup: Setup) -> None:
    """So that a page that is read in gets another frame."""
    for at in (PAGE, FAR):
        setup.area(at, 1, file=FILE, shared=True)
    pfn = setup.page(PAGE, SLOW, exclusive=False, version=VERSION, cached=(1,))
    setup.in_page_cache(pfn, FILE, 0)
    setup.on_disk(FILE, 0, VERSION)
    assert pfn == SLOW_FRAME


FILE_CHANGED = Bug(
    name="luf-file-changed",
    title="a file is written while CPUs still read a page of it whose flush a proposal has put off",
    kinds=("FR",),
    story="As luf-mapped-over. CPU 0 has reclaimed the page, without a flush, and writes to the file, at"
    " another address: the page is read anew into another frame and written. CPU 1 is told so, "
    "reads the old frame and finds what was there before. (v12 answers with flushes in "
    "write_begin, truncation, folio_mkclean, remove_mapping and faults.)",
    affected="LUF v10 (not merged)",
    source="the same mail; patch 20/25 of v12 (id 23609351269)",
    fix="LUF v12, patch 20/25",
    test=Litmus(
        name="luf-file-changed",
        question="Reclaim has freed a page that CPUs still have cached: may the file be written?",
        programs=(
            in_order(call(reclaim, SLOW_FRAME), call(write, FAR), returns),
            once_returned(call(finds, WRITTEN)),
        ),
        setup=_in_the_slow_node,
        expected=(
            never("immediate", RECEIVED, AFTER_RETURN),
            sometimes("mistake:luf-v10", MADE_WRITABLE, WRONG_VERSION),
        ),
        drain=False,
        frugal=False,
    ),
    before="mistake:luf-v10",
)
