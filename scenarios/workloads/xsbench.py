"""Lookups of macroscopic cross-sections in the shape of XSBench (Tramm et al., PHYSOR 2014), unionized grid.

One process. The first thread writes all tables, as the program's initialisation does; then the threads look
up energies drawn evenly. They share the lookups as the program's history-based loop does, `schedule(dynamic,
100)` over particles of 34 lookups: a thread that loses time to kswapd makes fewer.

A lookup reads some pages of the grids, which are small and hot, and one row of the index, which is nearly all
of the memory and about which nothing can be foreseen. Nothing is written any more. (`large`: 355 nuclides of
11,303 points; 4,012,565 rows of 355 4-byte indices; 17 million lookups.)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import Thread, UserSpace
from emulator.kernel.user import ParallelFor
from emulator.memory.page_table import Vma
from scenarios.disk import Plain
from scenarios.workloads.compiled.draws import Even, draws_of
from scenarios.workloads.settings import MAX_PAGES, Workload
from scenarios.workloads.users import CHUNK, PRIVATE_WRITABLE, Users

BASE = 0x8000000


class Xsbench(Plain):
    """`[xsbench]`: tables of `grid_pages`, read `grid_reads` times a lookup, and of `index_pages`, read once.

    There are `lookups` for each thread on average; a thread takes `lookups_at_once`, then the next so many.
    The program has about 70 page reads of its grids in each lookup; fewer make a run shorter and change
    neither faults nor migrations, since the grids stay in the fast tier.
    """

    grid_pages: int = Field(default=1024, ge=1, le=MAX_PAGES)
    index_pages: int = Field(default=8192, ge=1, le=MAX_PAGES)
    grid_reads: int = Field(default=9, ge=0, le=1000)
    lookups: int = Field(default=20_000, ge=1, le=10**12)
    lookups_at_once: int = Field(default=100, ge=1, le=10**9)


class XsbenchWorkload(Workload):
    """What its threads do stands under [xsbench]."""

    scaled: ClassVar[tuple[str, ...]] = ("grid_pages", "index_pages", "lookups", "lookups_at_once")
    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu"})
    threads_instead: ClassVar[str] = "xsbench says itself what its threads access"

    kind: Literal["xsbench"]
    xsbench: Xsbench = Xsbench()

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return XsbenchUserSpace(self, cpus, seed)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        if problem := self.too_large(self.xsbench.grid_pages + self.xsbench.index_pages):
            yield "xsbench.index_pages", f"the tables have {problem}"


@dataclass(frozen=True)
class XsbenchUserSpace(Users):
    """Threads that look up, over one anonymous area: the grids first, then the index."""

    workload: XsbenchWorkload

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        return {1: (Vma(BASE, BASE + self.pages(), PRIVATE_WRITABLE, 0),)}

    def pages(self) -> int:
        return self.workload.xsbench.grid_pages + self.workload.xsbench.index_pages

    def expected_accesses(self) -> int:
        """One write of each page, then all lookups."""
        return self.pages() + self.lookups() * (self.workload.xsbench.grid_reads + 1)

    def lookups(self) -> int:
        return self.thread_count() * self.workload.xsbench.lookups

    def threads(self, cpu: int) -> list[Thread]:
        """This CPU's threads; number 0 of all is the one that writes the tables."""
        settings = self.workload.xsbench
        parts = -(-self.lookups() // settings.lookups_at_once)
        each = settings.lookups_at_once * (settings.grid_reads + 1) // self.thread_count()
        loop = ParallelFor(parts, each, self._lookups)
        return [Thread(1, loop, partial(self._tables, number)) for number in self.numbers(cpu)]

    def _tables(self, thread: int) -> Iterable[Sequence[int]]:
        if thread:
            return
        for start in range(0, self.pages(), CHUNK):
            pages = range(start, min(start + CHUNK, self.pages()))
            yield [(BASE + page) << 1 | 1 for page in pages]

    def _lookups(self, part: int) -> Iterator[Sequence[int]]:
        settings = self.workload.xsbench
        draws = draws_of(f"{self.seed}/{part}")
        if draws is None:
            yield from self.drawn_here(part)
            return
        drawn_from = Even(BASE, settings.grid_pages, settings.index_pages, settings.grid_reads)
        for count in self._chunks_of(part):
            yield draws.even(drawn_from, count)

    def _chunks_of(self, part: int) -> Iterator[int]:
        """Lookups in each chunk."""
        settings = self.workload.xsbench
        at_once = settings.lookups_at_once
        left = min(at_once, self.lookups() - part * at_once)
        in_chunk = max(1, CHUNK // (settings.grid_reads + 1))
        while left > 0:
            yield min(in_chunk, left)
            left -= in_chunk

    def drawn_here(self, part: int) -> Iterator[Sequence[int]]:
        """The same, drawn in Python."""
        settings = self.workload.xsbench
        uniform = random.Random(f"{self.seed}/{part}").random
        reads = range(settings.grid_reads)
        grid, index = settings.grid_pages, settings.index_pages
        first_row = BASE + grid
        for count in self._chunks_of(part):
            chunk: list[int] = []
            for _ in range(count):
                # Energies are even over the grid, which lies in order of energy, and so are rows.
                chunk += [(BASE + int(uniform() * grid)) << 1 for _ in reads]
                chunk.append((first_row + int(uniform() * index)) << 1)
            yield chunk
