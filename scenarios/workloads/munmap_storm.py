"""Kind `munmap_storm`: threads of one process that map, write and unmap, each memory of its own.

The case of LATR (ASPLOS 2018: munmap of pages while other cores run the process), and of INVLPGB's posting
(<20250226030129.530345-1-riel@surriel.com>, will-it-scale's tlb_flush2_threads, which also gives up each page
with MADV_DONTNEED): nobody else has seen the pages, and everybody is interrupted for them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import UserSpace
from emulator.kernel.user import Chunks
from emulator.memory.page_table import Vma
from scenarios.disk import Plain
from scenarios.workloads.mapped_anew import MOST_PAGES, MappedAnew, keep, kept, loops_of
from scenarios.workloads.settings import MAX_PAGES, Workload
from scenarios.workloads.users import CHUNK, PRIVATE_WRITABLE, Users

TABLE_BASE = 0x10000


class MunmapStorm(Plain):
    """`[munmap_storm]`: the first `mappers` threads, all if 0, share `loops` of mapping, writing and
    unmapping `pages`.

    What is mapped is read up to `uses` times. With `madvise` each page is given up alone once it is written,
    and written again, before munmap. The other threads read `reads` pages each, of a table of `table_pages`,
    meanwhile.
    """

    mappers: int = Field(default=0, ge=0, le=MAX_PAGES)
    loops: int = Field(default=1024, ge=1, le=10**9)
    pages: int = Field(default=16, ge=1, le=MOST_PAGES)
    uses: int = Field(default=1000, ge=0, le=10**9)
    madvise: bool = False
    table_pages: int = Field(default=64, ge=1, le=MAX_PAGES)
    reads: int = Field(default=100_000, ge=0, le=10**12)


class MunmapStormWorkload(Workload):
    """What its threads do stands under [munmap_storm]."""

    scaled: ClassVar[tuple[str, ...]] = ("loops", "table_pages", "reads")
    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu"})
    threads_instead: ClassVar[str] = "munmap_storm says itself what its threads access"
    parameters: ClassVar[Mapping[str, Any]] = {"fault_locks": True}

    kind: Literal["munmap_storm"]
    munmap_storm: MunmapStorm = MunmapStorm()

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return MunmapStormUserSpace(self, cpus, seed)

    def check(self, cpus: int) -> None:
        super().check(cpus)
        settings = self.munmap_storm
        mappers = settings.mappers or cpus * self.threads.per_cpu
        if problem := self.too_large(mappers * (settings.pages + 1) + settings.table_pages):
            raise self.problem("munmap_storm.pages", f"{mappers} threads map {problem}")


@dataclass(frozen=True)
class MunmapStormUserSpace(Users):
    """Threads of one process: those that map, then those that read."""

    workload: MunmapStormWorkload

    def mappers(self) -> int:
        return min(self.workload.munmap_storm.mappers or self.thread_count(), self.thread_count())

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        table = Vma(TABLE_BASE, TABLE_BASE + self.workload.munmap_storm.table_pages, PRIVATE_WRITABLE, 1)
        return {1: (table, *(kept(thread) for thread in range(self.mappers())))}

    def expected_accesses(self) -> int:
        settings = self.workload.munmap_storm
        mapped = settings.loops * (settings.pages * (2 if settings.madvise else 1) + settings.uses // 2)
        return self.mappers() + mapped + (self.thread_count() - self.mappers()) * settings.reads

    def chunks(self, thread: int) -> Chunks:
        return self._loops(thread) if thread < self.mappers() else self._reads(thread)

    def _loops(self, thread: int) -> Chunks:
        settings = self.workload.munmap_storm
        memory = MappedAnew(thread, settings.pages)
        rng = random.Random(f"{self.seed}/{thread}")
        yield keep(thread)
        for _ in loops_of(settings.loops, thread, self.mappers()):
            yield memory.mmap()
            if settings.madvise:
                for page, access in enumerate(memory.touches(True)):
                    yield [access]
                    yield memory.dontneed(page)
                    yield [access]
            else:
                yield memory.touches(True)
            for read in range(0, uses := rng.randint(0, settings.uses), settings.pages):
                yield memory.touches(False)[: uses - read]
            yield memory.munmap()

    def _reads(self, thread: int) -> Iterator[list[int]]:
        settings = self.workload.munmap_storm
        for made in range(0, settings.reads, CHUNK):
            numbers = range(made, min(made + CHUNK, settings.reads))
            yield [(TABLE_BASE + (thread + one) % settings.table_pages) << 1 for one in numbers]
