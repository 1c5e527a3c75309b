"""Bugs of mremap."""

from __future__ import annotations

from emulator.machine.litmus import Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, never, sometimes
from scenarios.litmus.mremap import NEW, TRUNCATE
from scenarios.litmus.pageout import WRITTEN_OUT
from scenarios.litmus.starts import PAGE, file_page
from scenarios.litmus.steps import call
from scenarios.litmus.syscalls import mremap, msync

FLUSHED_LATE = Bug(
    name="mremap-flushed-late",
    title="mremap flushes the old address when the page can be freed at the new one already",
    kinds=("FR",),
    story="CPU 0 (mremap) moves an entry to its new address and drops both page-table locks; the flush "
    "of the old address comes later. CPU 1 (ftruncate) finds the entry at the new address, flushes"
    " that address and frees the page. CPU 2, which has the old address cached, reads a frame that"
    " is somebody else's by then.",
    affected="before v4.19",
    source="the CVE's record; the commit, eb66ae030829605d61fbef1909ce310e29f78821",
    fix="eb66ae030829",
    cve="CVE-2018-18281",
    test=TRUNCATE,
    before="mistake:mremap-flush-late",
)

BESIDE_WRITEBACK = Bug(
    name="mremap-beside-writeback",
    title="mremap moves a dirty page, which is cleaned while it is written at its old address",
    kinds=("WO", "FR"),
    story="CPU 0 (mremap) moves a dirty entry and will flush the old address when everything has moved. "
    "CPU 1 (msync) finds the entry at its new address, cleans it, flushes that address and writes "
    "the page out. CPU 1's thread writes through the dirty entry of the old address, and nobody "
    "writes that out.",
    affected="before v4.9",
    source="the article of Jann Horn (projectzero.google, January 2019), which tells it beside "
    "CVE-2018-18281",
    fix="5d1904204c99",
    test=Litmus(
        name="mremap-beside-writeback",
        question="A dirty page moves and is written out at its new address: is it written at the old one?",
        programs=(call(mremap, PAGE, NEW), msync),
        setup=file_page(PAGE, written=True, stored=True, cached=(1,)),
        expected=(never("immediate", RECEIVED), sometimes("mistake:before-5d1904204c99", WRITTEN_OUT)),
        frugal=False,
        drain=False,
    ),
    before="mistake:before-5d1904204c99",
)
