"""Bugs of soft-dirty tracking."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus.protection import CLEAR_REFS

SOFT_DIRTY_UNFLUSHED = Bug(
    name="soft-dirty-unflushed",
    title="soft-dirty tracking begins, and writes still go unnoticed",
    kinds=("MF",),
    story="CPU 0 writes 4 into /proc/PID/clear_refs: every entry loses its write permission, inside a "
    "gather. Nothing is put into that, and since v5.6 an empty gather flushes nothing. CPU 1 "
    "writes through what it has cached; no fault tells the tracker.",
    affected="v5.6 to v5.10",
    source="the commit, 912efa17e512",
    fix="912efa17e512",
    test=CLEAR_REFS,
    before="mistake:before-912efa17e512",
)
