"""What the threads of a workload access: a drifting hot set, or a recorded trace.

Accesses come in chunks of plain integers (vpn << 1 | is_write), made from the seed alone, so that
every policy sees the same ones.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emulator.kernel.boot import Thread, UserSpace
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from scenarios.traces.format import FETCH, WRITE, Block, TraceError, read_trace
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload
from scenarios.workloads.xsbench import XsbenchUserSpace

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

    def expected_accesses(self) -> int:
        """What all threads will have accessed at the end."""
        return self.thread_count() * self.workload.threads.accesses

    def threads(self, cpu: int) -> list[Thread]:
        """This CPU's threads, dealt out to the processes in turn."""
        settings = self.workload.threads
        numbers = range(cpu * settings.per_cpu, (cpu + 1) * settings.per_cpu)
        return [Thread(1 + number % settings.processes, self._chunks(number)) for number in numbers]

    def _chunks(self, number: int) -> _TieringChunks:
        return _TieringChunks(self.workload, self.seed, number)


@dataclass(frozen=True)
class _TieringChunks:
    """`randrange` is written out: drawing accesses would be half of a timed run's time."""

    workload: Workload
    seed: int
    thread: int

    def __call__(self) -> Iterator[Sequence[int]]:
        settings = self.workload.threads
        rng = random.Random(f"{self.seed}/{self.thread}")
        table, heap = settings.table_pages, settings.heap_pages
        heap_share = settings.heap_share if table and heap else float(bool(heap))
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


@dataclass(frozen=True)
class ReplayUserSpace:
    """Every thread repeats a recorded program's page accesses, each from another place in the trace.

    The recorded program's pages form one anonymous area per gap-free stretch of its address space. The
    whole trace (its file, not its accesses) travels to the actors: they may be on other nodes.
    """

    workload: Workload
    cpus: int
    seed: int
    blocks: tuple[Block, ...]
    stretches: tuple[Vma, ...]

    @classmethod
    def from_trace(cls, workload: Workload, cpus: int, seed: int, path: Path) -> ReplayUserSpace:
        """Read the trace. Raises TraceError if the file is none, or is damaged."""
        replay = workload.replay
        blocks = []
        for block in read_trace(path).blocks():
            kept = [
                run
                for run in zip(block.pages, block.kinds, block.counts, strict=True)
                if (replay.instruction_fetches or run[1] != FETCH) and (replay.writes or run[1] != WRITE)
            ]
            if kept:
                pages, kinds, counts = zip(*kept, strict=True)
                blocks.append(Block(array("Q", pages), array("B", kinds), array("I", counts)))
        if not blocks:
            raise TraceError(f"{path}: no access is left to replay; allow writes or instruction fetches")
        stretches: list[Vma] = []
        for page in sorted({page for block in blocks for page in block.pages}):
            if stretches and stretches[-1].end == page:
                stretches[-1] = stretches[-1]._replace(end=page + 1)
            else:
                stretches.append(Vma(page, page + 1, PRIVATE_WRITABLE, 0))
        return cls(workload, cpus, seed, tuple(blocks), tuple(stretches))

    @property
    def sample_every(self) -> int:
        """Of the accesses of a thread, one in so many is checked in memory."""
        return self.workload.checks.sample_every

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        """The same areas for every process."""
        return dict.fromkeys(range(1, self.workload.threads.processes + 1), self.stretches)

    def thread_count(self) -> int:
        """All threads of all CPUs."""
        return self.cpus * self.workload.threads.per_cpu

    def expected_accesses(self) -> int:
        """What all threads will have accessed at the end."""
        whole = sum(sum(block.counts) for block in self.blocks)
        limit = self.workload.replay.accesses_per_thread
        return self.thread_count() * (whole if limit is None else min(limit, whole))

    def threads(self, cpu: int) -> list[Thread]:
        """This CPU's threads, dealt out to the processes in turn."""
        settings = self.workload.threads
        numbers = range(cpu * settings.per_cpu, (cpu + 1) * settings.per_cpu)
        return [Thread(1 + number % settings.processes, _ReplayChunks(self, number)) for number in numbers]


@dataclass(frozen=True)
class _ReplayChunks:
    user: ReplayUserSpace
    thread: int

    def __call__(self) -> Iterator[Sequence[int]]:
        limit = self.user.workload.replay.accesses_per_thread
        made = 0
        for chunk in self._chunks():
            if limit is not None and made + len(chunk) >= limit:
                yield chunk[: limit - made]
                return
            made += len(chunk)
            yield chunk

    def _chunks(self) -> Iterator[Sequence[int]]:
        # Threads start at different places: in step they would all fault on the same pages together.
        blocks = self.user.blocks
        rng = random.Random(f"{self.user.seed}/{self.thread}")
        first = rng.randrange(len(blocks))
        start = rng.randrange(len(blocks[first].pages))
        yield from self._runs(blocks[first], start, len(blocks[first].pages))
        for number in range(1, len(blocks)):
            block = blocks[(first + number) % len(blocks)]
            yield from self._runs(block, 0, len(block.pages))
        yield from self._runs(blocks[first], 0, start)

    def _runs(self, block: Block, low: int, high: int) -> Iterator[Sequence[int]]:
        chunk: list[int] = []
        for page, kind, count in zip(
            block.pages[low:high], block.kinds[low:high], block.counts[low:high], strict=True
        ):
            access = page << 1 | (kind == WRITE)
            while count:
                part = min(count, CHUNK)
                chunk += [access] * part
                count -= part
                if len(chunk) >= CHUNK:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk


def user_space(workload: Workload, cpus: int, seed: int, trace: Path | None) -> UserSpace:
    """The programs of the workload. Raises UsageProblem if the trace is none."""
    if workload.kind == "xsbench":
        return XsbenchUserSpace(workload, cpus, seed)
    if trace is None:
        return TieringUserSpace(workload, cpus, seed)
    try:
        user = ReplayUserSpace.from_trace(workload, cpus, seed, trace.resolve())
    except TraceError as problem:
        raise UsageProblem(str(problem)) from None
    except OSError as problem:
        raise UsageProblem(f"{trace}: {problem.strerror}; a trace made by migrc trace import") from None
    pages = sum(area.end - area.start for areas in user.areas().values() for area in areas)
    room = workload.memory.fast_pages + workload.memory.slow_pages
    if pages > room * 7 // 8:
        raise UsageProblem(
            f"{trace}: {pages} pages in {workload.threads.processes} process(es), but the tiers "
            f"hold {room}; make memory.slow_pages {pages * 8 // 7 + 1 - workload.memory.fast_pages} or more"
        )
    return user
