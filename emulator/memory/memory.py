"""The gate to everything that CPUs share: one operation in, one answer out.

Deterministic and synchronous. Which operation comes next is decided elsewhere; an operation that
cannot be carried out now (a held lock, a word that has not its value yet) answers `BLOCKED` and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from emulator.hardware.operations import TABLE, Operation, describe, handlers_of
from emulator.hardware.operations.places import invalidations, lock, mm_lock, page_table_lock, vma_readers
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import Folios, Tier
from emulator.memory.page_table import PageTables
from emulator.memory.table_pages import TablePages
from emulator.memory.vma_locks import VmaLocks
from emulator.memory.words import Words

_WAITS = {kind: row.waits for kind, row in TABLE.items() if row.waits is not None}


class Memory:
    """Shared state of one machine with the given memory tiers (node 0 is the fast one).

    A huge entry of its page tables covers 2**hpage_order pages; 0 if there are none. Frames are numbered
    from `start` on; `cpus` of them keep page lists (see Folios). With `walker_caches` page-table pages are
    things (see TablePages). With `fault_locks` faults hold locks (see VmaLocks); without, page tables refuse
    what these would have kept out.
    """

    kind_of_words: ClassVar[type[Words]] = Words

    def __init__(
        self,
        tiers: Sequence[Tier],
        hpage_order: int = 0,
        start: int = 1,
        cpus: int = 0,
        memory_scale: int = 1,
        walker_caches: bool = False,
        fault_locks: bool = False,
    ) -> None:
        self.words = self.kind_of_words()
        self.folios = Folios(tiers, start, cpus, memory_scale, hpage_order)
        kind = TablePages if walker_caches else PageTables
        self.page_tables = kind(self.folios, self.words, hpage_order)
        self.page_tables.asks_areas = not fault_locks
        self.vma_locks = VmaLocks(self.page_tables, self.words)
        self._handlers = {
            **handlers_of(self.words),
            **handlers_of(self.folios),
            **self.page_tables.handlers(),
            **handlers_of(self.vma_locks),
        }

    def handler(self, kind: type[Any]) -> Callable[[int, Any], Any]:
        """What carries out operations of this class, as `execute` does."""
        return self._handlers.get(kind, self.execute)

    def execute(self, cpu: int, operation: Operation) -> Any:
        """Carry out one memory operation of `cpu`; its answer, or `BLOCKED`."""
        handler = self._handlers.get(type(operation))
        if handler is None:
            raise TypeError(f"{describe(operation)} is not a memory operation")
        return handler(cpu, operation)

    def state(self) -> tuple[Any, ...]:
        """All that decides how memory will answer, as a hashable value."""
        return self.words.state(), self.folios.state(), self.page_tables.state()

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered, of this memory or of one with the same tiers."""
        words, folios, page_tables = state
        self.words.restore(words)
        self.folios.restore(folios)
        self.page_tables.restore(page_tables)

    def results(self) -> dict[str, Any]:
        """What is worth reporting at the end: free pages by node."""
        return {"nr_free": [self.folios.nr_free(zone.node) for zone in self.folios.zones]}

    def enabled(self, cpu: int, operation: Any) -> bool:
        """`execute` would not answer `BLOCKED` now. Only waiting operations are ever disabled."""
        waits = _WAITS.get(type(operation))
        if waits is None:
            return True
        if waits is lock:
            return self.words.free_for(operation)
        if waits is page_table_lock:
            return not self.page_tables.locked_out(cpu, operation.mm, operation.vpn)
        if waits is mm_lock or waits is vma_readers:
            return self.vma_locks.enabled(operation)
        if waits is invalidations:
            return self.words.invalidation_enabled(operation)
        return self.execute(cpu, operation) is not BLOCKED
