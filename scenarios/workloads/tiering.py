"""Kind `tiering`: threads that share a table and have heaps, with a hot set that drifts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emulator.kernel.boot import UserSpace
from emulator.memory.page_table import Vma
from scenarios.workloads.compiled.draws import Hot, draws_of
from scenarios.workloads.settings import Workload
from scenarios.workloads.users import CHUNK, PRIVATE_WRITABLE, Users

TABLE_FILE = 1
TABLE_BASE = 0x10000
HEAP_BASE = 0x8000000


class TieringWorkload(Workload):
    """What its threads do stands under [threads]."""

    kind: Literal["tiering"]

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return TieringUserSpace(self, cpus, seed)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        threads = self.threads
        used = threads.table_pages + threads.processes * threads.heap_pages
        if problem := self.too_large(used):
            yield "threads.heap_pages", f"table and {threads.processes} heaps have {problem}"
        if threads.heap_share > 0 and not threads.heap_pages:
            yield (
                "threads.heap_share",
                f"{threads.heap_share} of accesses to a heap of 0 pages; 0, or heap_pages",
            )
        if threads.heap_share < 1 and not threads.table_pages:
            yield (
                "threads.heap_share",
                f"{threads.heap_share} leaves accesses to a table of 0 pages; 1, or table_pages",
            )
        largest = max(threads.table_pages, threads.heap_pages)
        if threads.hot_pages > largest:
            yield (
                "threads.hot_pages",
                f"{threads.hot_pages} hot pages in regions of at most {largest}; {largest} or fewer",
            )


@dataclass(frozen=True)
class TieringUserSpace(Users):
    """Threads over a private mapping of one file (the table) and an anonymous heap per process."""

    workload: TieringWorkload

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        """mm 1, 2, ...: the table, then the heap."""
        threads = self.workload.threads
        found = []
        if threads.table_pages:
            found.append(Vma(TABLE_BASE, TABLE_BASE + threads.table_pages, PRIVATE_WRITABLE, TABLE_FILE))
        if threads.heap_pages:
            found.append(Vma(HEAP_BASE, HEAP_BASE + threads.heap_pages, PRIVATE_WRITABLE, 0))
        return {mm: tuple(found) for mm in range(1, threads.processes + 1)}

    def expected_accesses(self) -> int:
        return self.thread_count() * self.workload.threads.accesses

    def chunks(self, thread: int) -> Iterator[Sequence[int]]:
        """Drawn in compiled code, where that can be: it would be half of a timed run's time."""
        draws = draws_of(f"{self.seed}/{thread}")
        if draws is None:
            yield from self.drawn_here(thread)
            return
        settings = self.workload.threads
        table, heap, hot = settings.table_pages, settings.heap_pages, settings.hot_pages
        regions = (TABLE_BASE, table, min(hot, table), HEAP_BASE, heap, min(hot, heap))
        drawn_from = Hot(*regions, self._heap_share(), settings.hot_share, settings.write_share)
        made = 0
        while made < settings.accesses:
            size = min(CHUNK, settings.accesses - made, settings.drift_every)
            window = made // settings.drift_every * settings.drift_pages
            made += size
            yield draws.hot(drawn_from, window, size)

    def _heap_share(self) -> float:
        threads = self.workload.threads
        both = threads.table_pages and threads.heap_pages
        return threads.heap_share if both else float(bool(threads.heap_pages))

    def drawn_here(self, thread: int) -> Iterator[Sequence[int]]:
        """The same, drawn in Python. `randrange` is written out."""
        settings = self.workload.threads
        rng = random.Random(f"{self.seed}/{thread}")
        table, heap = settings.table_pages, settings.heap_pages
        heap_share = self._heap_share()
        hot_share, write_share = settings.hot_share, settings.write_share
        uniform, bits = rng.random, rng.getrandbits
        table_hot, heap_hot = min(settings.hot_pages, table), min(settings.hot_pages, heap)
        table_bits, table_hot_bits = table.bit_length(), table_hot.bit_length()
        heap_bits, heap_hot_bits = heap.bit_length(), heap_hot.bit_length()
        made = 0
        while made < settings.accesses:
            size = min(CHUNK, settings.accesses - made, settings.drift_every)
            window = made // settings.drift_every * settings.drift_pages
            chunk: list[int] = []
            add = chunk.append
            for _ in range(size):
                if uniform() < heap_share:
                    if uniform() < hot_share:
                        page = bits(heap_hot_bits)
                        while page >= heap_hot:
                            page = bits(heap_hot_bits)
                        page = (window + page) % heap
                    else:
                        page = bits(heap_bits)
                        while page >= heap:
                            page = bits(heap_bits)
                    add((HEAP_BASE + page) << 1 | (uniform() < write_share))
                else:
                    if uniform() < hot_share:
                        page = bits(table_hot_bits)
                        while page >= table_hot:
                            page = bits(table_hot_bits)
                        page = (window + page) % table
                    else:
                        page = bits(table_bits)
                        while page >= table:
                            page = bits(table_bits)
                    add((TABLE_BASE + page) << 1)
            made += size
            yield chunk
