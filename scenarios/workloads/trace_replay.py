"""Kind `replay`: threads that repeat the page accesses of a recorded program."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import UserSpace
from emulator.memory.page_table import Vma
from scenarios.disk import Plain, file_problems
from scenarios.traces.format import FETCH, WRITE, Block, TraceError, read_trace
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload
from scenarios.workloads.users import CHUNK, PRIVATE_WRITABLE, Users


class Replay(Plain):
    """`[replay]`: which recorded page accesses the threads repeat.

    `trace` is relative to the workload's file; `--trace` goes before it. A thread stops after
    `accesses_per_thread` (absent: at the end of the trace). Without `instruction_fetches` or `writes` those
    accesses are left out.
    """

    trace: str | None = Field(default=None, min_length=1)
    accesses_per_thread: int | None = Field(default=None, ge=1, le=10**12)
    instruction_fetches: bool = True
    writes: bool = True


class ReplayWorkload(Workload):
    """Its accesses come from a trace."""

    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu", "processes"})
    threads_instead: ClassVar[str] = "a replay takes its accesses from the trace"

    kind: Literal["replay"]
    replay: Replay = Replay()

    def trace_file(self, option: Path | None) -> Path | None:
        """The trace to replay: `option` (from `--trace`), else `replay.trace`."""
        if option is not None:
            if not option.is_file():
                raise UsageProblem(f"--trace: {option}: no such file; a trace made by migrc trace import")
            return option
        if self.replay.trace is None:
            raise self.problem("replay.trace", "no trace to replay; name one here or with --trace FILE")
        trace = self._folder / self.replay.trace
        if not trace.is_file():
            raise self.problem("replay.trace", f"{trace}: no such file; a trace made by migrc trace import")
        return trace

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        """Its programs. UsageProblem if the trace is none, or too large."""
        path = trace or self.trace_file(None)
        assert path is not None
        with file_problems(str(path), "a trace made by migrc trace import"):
            user = ReplayUserSpace.from_trace(self, cpus, seed, path.resolve())
        pages = sum(area.end - area.start for areas in user.areas().values() for area in areas)
        if self.too_large(pages):
            memory = self.memory
            raise UsageProblem(
                f"{path}: {pages} pages in {self.threads.processes} process(es), but the tiers hold "
                f"{memory.fast_pages + memory.slow_pages}; make memory.slow_pages "
                f"{pages * 8 // 7 + 1 - memory.fast_pages} or more"
            )
        return user


@dataclass(frozen=True)
class ReplayUserSpace(Users):
    """Every thread repeats a recorded program's page accesses, each from another place in the trace.

    The recorded program's pages form one anonymous area per gap-free stretch of its address space. The
    whole trace (its file, not its accesses) travels to the actors: they may be on other nodes.
    """

    workload: ReplayWorkload
    blocks: tuple[Block, ...]
    stretches: tuple[Vma, ...]

    @classmethod
    def from_trace(cls, workload: ReplayWorkload, cpus: int, seed: int, path: Path) -> ReplayUserSpace:
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

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        return dict.fromkeys(range(1, self.workload.threads.processes + 1), self.stretches)

    def expected_accesses(self) -> int:
        whole = sum(sum(block.counts) for block in self.blocks)
        limit = self.workload.replay.accesses_per_thread
        return self.thread_count() * (whole if limit is None else min(limit, whole))

    def chunks(self, thread: int) -> Iterator[Sequence[int]]:
        limit = self.workload.replay.accesses_per_thread
        made = 0
        for chunk in self._whole(thread):
            if limit is not None and made + len(chunk) >= limit:
                yield chunk[: limit - made]
                return
            made += len(chunk)
            yield chunk

    def _whole(self, thread: int) -> Iterator[Sequence[int]]:
        # Threads start at different places: in step they would all fault on the same pages together.
        blocks = self.blocks
        rng = random.Random(f"{self.seed}/{thread}")
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
