"""Kind `file_reclaim`: read-only files larger than memory, which threads on all CPUs read over and over.

LUF's case (<20250220052027.58847-1-byungchul@sk.com>): llama.cpp maps a model with PROT_READ and MAP_SHARED,
and its threads share the rows of each matrix. What has been read goes cold, is demoted and dropped, and read
in again; no entry is ever writable.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import UserSpace
from emulator.kernel.user import Chunks
from emulator.memory.page_table import VM_READ, VM_SHARED, Vma
from scenarios.disk import Plain
from scenarios.workloads.settings import MAX_PAGES, Workload
from scenarios.workloads.users import Users

FILE_BASE = 0x10000
SHARED_READ_ONLY = VM_READ | VM_SHARED


class FileReclaim(Plain):
    """`[file_reclaim]`: each process has a file of `file_pages`, of which its threads read `stretches` in
    turn.

    A stretch is `stretch_pages` long, and each page is read `page_reads` times; the file begins anew where it
    ends. With each stretch come `stray_reads` of pages anywhere in the file.
    """

    file_pages: int = Field(default=8192, ge=1, le=MAX_PAGES)
    stretches: int = Field(default=1024, ge=1, le=10**9)
    stretch_pages: int = Field(default=16, ge=1, le=MAX_PAGES)
    page_reads: int = Field(default=64, ge=1, le=10**6)
    stray_reads: int = Field(default=1, ge=0, le=10**6)

    def area(self, file: int) -> Vma:
        """The file in the address space of its process."""
        return Vma(FILE_BASE, FILE_BASE + self.file_pages, SHARED_READ_ONLY, file)

    def accesses(self) -> int:
        """Of all threads of one process."""
        return self.stretches * (self.stretch_pages * self.page_reads + self.stray_reads)

    def reads(self, seed: str, thread: int, threads: int) -> Iterator[Sequence[int]]:
        """What one of the `threads` of a process reads; `seed` is that of the process."""
        start = random.Random(seed).randrange(self.file_pages)
        rng = random.Random(f"{seed}/{thread}")
        for stretch in range(thread, self.stretches, threads):
            chunk: list[int] = []
            for page in range(self.stretch_pages):
                at = (start + stretch * self.stretch_pages + page) % self.file_pages
                chunk += [(FILE_BASE + at) << 1] * self.page_reads
            chunk += [(FILE_BASE + rng.randrange(self.file_pages)) << 1 for _ in range(self.stray_reads)]
            yield chunk


class FileReclaimWorkload(Workload):
    """What its threads do stands under [file_reclaim]."""

    scaled: ClassVar[tuple[str, ...]] = ("file_pages", "stretches")
    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu", "processes"})
    threads_instead: ClassVar[str] = "file_reclaim says itself what its threads access"

    kind: Literal["file_reclaim"]
    file_reclaim: FileReclaim = FileReclaim()

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return FileReclaimUserSpace(self, cpus, seed)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        yield from stretch_problems("file_reclaim", self.file_reclaim)


def stretch_problems(section: str, settings: FileReclaim) -> Iterator[tuple[str, str]]:
    """Pairs of key and problem."""
    if settings.stretch_pages > settings.file_pages:
        yield (
            f"{section}.stretch_pages",
            f"stretches of {settings.stretch_pages} pages in a file of {settings.file_pages}; "
            f"{settings.file_pages} or fewer, or more file_pages",
        )


@dataclass(frozen=True)
class FileReclaimUserSpace(Users):
    """Processes that read one file each."""

    workload: FileReclaimWorkload

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        settings = self.workload.file_reclaim
        return {mm: (settings.area(mm),) for mm in range(1, self.workload.threads.processes + 1)}

    def expected_accesses(self) -> int:
        return self.workload.threads.processes * self.workload.file_reclaim.accesses()

    def chunks(self, thread: int) -> Chunks:
        number, process = divmod(thread, self.workload.threads.processes)
        threads = len(range(process, self.thread_count(), self.workload.threads.processes))
        return self.workload.file_reclaim.reads(f"{self.seed}/{process}", number, threads)
