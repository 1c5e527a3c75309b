"""What the threads of a workload access: a drifting hot set, or a recorded trace.

Accesses come in chunks of plain integers (vpn << 1 | is_write), made from the seed alone, so that
every policy sees the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.kernel.boot import Thread
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from scenarios.traces.format import FETCH, WRITE, read_trace
from scenarios.workload import Workload

CHUNK = 1000
TABLE_FILE = 1
TABLE_BASE = 0x10000
HEAP_BASE = 0x8000000
PRIVATE_WRITABLE = VM_READ | VM_WRITE


@dataclass(frozen=True)
class TieringUserSpace:
    """Threads over a private mapping of one file (the table) and an anonymous heap per process."""

    workload: Workload
    cpus: int
    seed: int

    @property
    def sample_every(self) -> int:
        """Of the accesses of a thread, one in so many is checked in memory."""
        return self.workload.checks.sample_every

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        """mm 1, 2, ...: the table, then the heap."""
        threads = self.workload.threads
        found = []
        if threads.table_pages:
            found.append(Vma(TABLE_BASE, TABLE_BASE + threads.table_pages, PRIVATE_WRITABLE, TABLE_FILE))
        if threads.heap_pages:
            found.append(Vma(HEAP_BASE, HEAP_BASE + threads.heap_pages, PRIVATE_WRITABLE, 0))
        return {mm: tuple(found) for mm in range(1, threads.processes + 1)}

    def thread_count(self) -> int:
        """All threads of all CPUs."""
        return self.cpus * self.workload.threads.per_cpu

    def threads(self, cpu: int) -> list[Thread]:
        """This CPU's threads, dealt out to the processes in turn."""
        settings = self.workload.threads
        numbers = range(cpu * settings.per_cpu, (cpu + 1) * settings.per_cpu)
        return [Thread(1 + number % settings.processes, self._chunks(number)) for number in numbers]

    def _chunks(self, number: int) -> _TieringChunks:
        return _TieringChunks(self.workload, self.seed, number)


@dataclass(frozen=True)
class _TieringChunks:
    workload: Workload
    seed: int
    thread: int

    def __call__(self) -> Iterator[Sequence[int]]:
        settings = self.workload.threads
        rng = random.Random(f"{self.seed}/{self.thread}")
        table, heap = settings.table_pages, settings.heap_pages
        heap_share = settings.heap_share if table and heap else float(bool(heap))
        uniform, pick = rng.random, rng.randrange
        made = 0
        while made < settings.accesses:
            size = min(CHUNK, settings.accesses - made, settings.drift_every)
            window = made // settings.drift_every * settings.drift_pages
            chunk = []
            for _ in range(size):
                in_heap = uniform() < heap_share
                pages = heap if in_heap else table
                hot = min(settings.hot_pages, pages)
                page = (window + pick(hot)) % pages if uniform() < settings.hot_share else pick(pages)
                if in_heap:
                    chunk.append((HEAP_BASE + page) << 1 | (uniform() < settings.write_share))
                else:
                    chunk.append((TABLE_BASE + page) << 1)
            made += size
            yield chunk


@dataclass(frozen=True)
class ReplayUserSpace:
    """Every thread repeats a recorded program's page accesses, each from another place in the trace.

    The recorded program's pages form one anonymous area per gap-free stretch of its address space.
    """

    workload: Workload
    cpus: int
    seed: int
    trace: Path

    @property
    def sample_every(self) -> int:
        """Of the accesses of a thread, one in so many is checked in memory."""
        return self.workload.checks.sample_every

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        """The same areas for every process."""
        pages = sorted({page for block in read_trace(self.trace).blocks() for page in block.pages})
        found: list[Vma] = []
        for page in pages:
            if found and found[-1].end == page:
                found[-1] = found[-1]._replace(end=page + 1)
            else:
                found.append(Vma(page, page + 1, PRIVATE_WRITABLE, 0))
        return {mm: tuple(found) for mm in range(1, self.workload.threads.processes + 1)}

    def thread_count(self) -> int:
        """All threads of all CPUs."""
        return self.cpus * self.workload.threads.per_cpu

    def threads(self, cpu: int) -> list[Thread]:
        """This CPU's threads, dealt out to the processes in turn."""
        settings = self.workload.threads
        numbers = range(cpu * settings.per_cpu, (cpu + 1) * settings.per_cpu)
        return [Thread(1 + number % settings.processes, self._chunks(number)) for number in numbers]

    def _chunks(self, number: int) -> _ReplayChunks:
        return _ReplayChunks(self, number)


@dataclass(frozen=True)
class _ReplayChunks:
    user: ReplayUserSpace
    thread: int

    def __call__(self) -> Iterator[Sequence[int]]:
        replay = self.user.workload.replay
        limit = replay.accesses_per_thread
        made = 0
        for chunk in self._rotated():
            if limit is not None and made + len(chunk) >= limit:
                yield chunk[: limit - made]
                return
            made += len(chunk)
            yield chunk

    def _rotated(self) -> Iterable[Sequence[int]]:
        # Threads start at different blocks: in step they would all fault on the same pages together.
        trace = read_trace(self.user.trace)
        count = trace.block_count
        first = (self.user.seed + self.thread) % count if count else 0
        for low, high in ((first, count), (0, first)):
            for number, block in enumerate(trace.blocks()):
                if low <= number < high:
                    yield from self._accesses(block.pages, block.kinds, block.counts)

    def _accesses(
        self, pages: Sequence[int], kinds: Sequence[int], counts: Sequence[int]
    ) -> Iterator[Sequence[int]]:
        replay = self.user.workload.replay
        chunk: list[int] = []
        for page, kind, count in zip(pages, kinds, counts, strict=True):
            if (kind == FETCH and not replay.instruction_fetches) or (kind == WRITE and not replay.writes):
                continue
            chunk += [page << 1 | (kind == WRITE)] * count
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
