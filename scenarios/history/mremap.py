"""Bugs of mremap."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus.mremap import TRUNCATE

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
