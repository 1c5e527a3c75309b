"""Bugs of faults and of taking pages away (mm/memory.c)."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus.locks import MUNMAP_WRITEBACK

RMAP_REMOVED_EARLY = Bug(
    name="rmap-removed-early",
    title="munmap takes a dirty page of a file out of the reverse map before it flushes for it",
    kinds=("WO",),
    story="CPU 0 (munmap) clears a dirty entry of a shared file page, marks the page dirty, takes the "
    "mapping out of the reverse map, and will flush later. CPU 1 (reclaim, writeback) writes the "
    "page out and never meets that mapping. CPU 2 writes through the dirty entry that it still "
    "has; nobody writes that out.",
    affected="before v6.2",
    source="the commit, 5df397dec7c4c08c23bd14f162f1228836faa4ce",
    fix="5df397dec7c4",
    test=MUNMAP_WRITEBACK,
    before="mistake:rmap-before-flush",
)
