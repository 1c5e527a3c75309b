"""Kind `allocation_latency`: who pays for flushes that are put off until a frame is used again?

Michal Hocko's question about LUF: an innocent task asks for a page and has to flush for another process
first. One process goes through a file larger than memory, so that reclaim unmaps its pages and may put
flushes off; the other one, which shares nothing with it, maps anonymous memory, writes it and unmaps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import Thread, UserSpace
from emulator.kernel.user import Chunks
from emulator.memory.page_table import Vma
from scenarios.workloads.file_reclaim import FileReclaim, stretch_problems
from scenarios.workloads.mapped_anew import MOST_PAGES, MappedAnew, keep, kept, loops_of
from scenarios.workloads.settings import Workload
from scenarios.workloads.users import Users

READERS, ALLOCATORS = 1, 2


class AllocationLatency(FileReclaim):
    """`[allocation_latency]`: every other thread is of a process that reads a file, as under
    [file_reclaim].

    The others are of a second process, and share `loops` of mapping, writing and unmapping `pages`.
    """

    loops: int = Field(default=256, ge=1, le=10**9)
    pages: int = Field(default=64, ge=1, le=MOST_PAGES)


class AllocationLatencyWorkload(Workload):
    """What its threads do stands under [allocation_latency]."""

    scaled: ClassVar[tuple[str, ...]] = ("file_pages", "stretches", "loops")
    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu"})
    threads_instead: ClassVar[str] = "allocation_latency says itself what its threads access"
    parameters: ClassVar[Mapping[str, Any]] = {"fault_locks": True}

    kind: Literal["allocation_latency"]
    allocation_latency: AllocationLatency = AllocationLatency()

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return AllocationLatencyUserSpace(self, cpus, seed)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        yield from stretch_problems("allocation_latency", self.allocation_latency)

    def check(self, cpus: int) -> None:
        super().check(cpus)
        threads = cpus * self.threads.per_cpu
        if threads < 2:
            raise self.problem("threads.per_cpu", "one thread is no two processes; 2, or more CPUs")
        if problem := self.too_large(threads // 2 * (self.allocation_latency.pages + 1)):
            raise self.problem("allocation_latency.pages", f"{threads // 2} threads map {problem}")


@dataclass(frozen=True)
class AllocationLatencyUserSpace(Users):
    """Two processes, whose threads take turns."""

    workload: AllocationLatencyWorkload

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        file = self.workload.allocation_latency.area(READERS)
        return {READERS: (file,), ALLOCATORS: tuple(kept(one) for one in range(self._allocators()))}

    def _allocators(self) -> int:
        return self.thread_count() // 2

    def threads(self, cpu: int) -> list[Thread]:
        return [
            Thread(ALLOCATORS if number % 2 else READERS, partial(self.chunks, number))
            for number in self.numbers(cpu)
        ]

    def expected_accesses(self) -> int:
        settings = self.workload.allocation_latency
        return settings.accesses() + self._allocators() + settings.loops * settings.pages

    def chunks(self, thread: int) -> Chunks:
        number = thread // 2
        if thread % 2:
            return self._loops(number)
        readers = self.thread_count() - self._allocators()
        return self.workload.allocation_latency.reads(f"{self.seed}/0", number, readers)

    def _loops(self, number: int) -> Chunks:
        settings = self.workload.allocation_latency
        memory = MappedAnew(number, settings.pages)
        yield keep(number)
        for _ in loops_of(settings.loops, number, self._allocators()):
            yield memory.mmap()
            yield memory.touches(True)
            yield memory.munmap()
