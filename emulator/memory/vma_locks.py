"""Locks that keep page faults out while areas change: one for each area, or mmap_lock for all of an mm.

They stand among the other locks, by their names: readers are counted, a writer is a CPU.
"""

from __future__ import annotations

from typing import Any

from emulator.hardware import operations as ops
from emulator.hardware.pte import mmap_lock, vma_lock
from emulator.memory.blocked import BLOCKED
from emulator.memory.page_table import PageTables
from emulator.memory.words import Words


class VmaLocks:
    """The locks of all areas of these page tables."""

    def __init__(self, page_tables: PageTables, words: Words) -> None:
        self._page_tables = page_tables
        self._words = words

    def enabled(self, wanted: ops.LockVma | ops.VmaStartWrite) -> bool:
        """Nobody who excludes it has what it wants."""
        holders = self._words.holders
        if isinstance(wanted, ops.VmaStartWrite):
            return all(holders.get(vma_lock(wanted.mm, start), 0) >= 0 for start in self._starts(wanted))
        if holders.get(mmap_lock(wanted.mm), -1) < 0:
            return True
        area = () if wanted.whole else self._area(wanted)
        return bool(area) and holders.get(vma_lock(wanted.mm, area[0]), -1) < 0

    def _area(self, wanted: ops.LockVma) -> tuple[int, ...]:
        return self._page_tables.find_vma(wanted.mm, wanted.vpn)

    def _starts(self, wanted: ops.VmaStartWrite) -> tuple[int, ...]:
        """Where the areas begin that are in the range now, and those that splitting there makes."""
        mm, start, end = wanted
        areas = self._page_tables.mm(mm).areas
        there = {area.start for area in areas if area.start < end and start < area.end}
        split = {end} if any(area.start < end < area.end for area in areas) else set()
        return tuple(sorted({start} | there | split))

    def _lock_vma(self, cpu: int, operation: ops.LockVma) -> Any:
        if not self.enabled(operation):
            return BLOCKED
        area = self._area(operation)
        if area:
            mm, _, whole = operation
            name = mmap_lock(mm) if whole else vma_lock(mm, area[0])
            self._words.holders[name] = self._words.holders.get(name, 0) - 1
        return area

    def _release(self, cpu: int, operation: ops.ReleaseFaultLock) -> None:
        mm, start, whole = operation
        self._words.up_read(mmap_lock(mm) if whole else vma_lock(mm, start))

    def _start_write(self, cpu: int, operation: ops.VmaStartWrite) -> Any:
        if not self.enabled(operation):
            return BLOCKED
        starts = self._starts(operation)
        for start in starts:
            self._words.holders[vma_lock(operation.mm, start)] = cpu
        return starts

    def _end_write_all(self, cpu: int, operation: ops.VmaEndWriteAll) -> None:
        for start in operation.starts:
            del self._words.holders[vma_lock(operation.mm, start)]
