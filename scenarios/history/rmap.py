"""Bugs of flushes that reclaim puts off, and of those who come before it has flushed."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, WaitPte
from emulator.hardware.pte import ACCESSED, PRESENT, mk_pte
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import NO_PERMISSION, RECEIVED, never, sometimes
from scenarios.litmus.locks import MPROTECT_RECLAIMED
from scenarios.litmus.pageout import DIRTY_PAGEOUT
from scenarios.litmus.starts import FILE, PAGE, VERSION, file_page
from scenarios.litmus.steps import call, cannot_read, in_order
from scenarios.litmus.syscalls import PROT_NONE, mprotect

FAR = PAGE + 0x200  # in another page table
PAIR = (1, 2)
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
            sometimes("mistake:before-5ee2fa2f0636", NO_PERMISSION),
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
