"""Kind `write_syscall`: write(2), with what a policy wants to know of it, while reclaim puts flushes off.

LUF v11 took a global lock in every write(2), v12 looks into the file's batch. Dave Hansen's answer to v11
(<fab1dd64-c652-4160-93b4-7b483a8874da@intel.com>) was what will-it-scale's write1 makes of that: threads that
write a page at a time into files of their own. Reads of a mapped file larger than memory beside it give the
policy something to put off.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from emulator.kernel.boot import UserSpace
from emulator.kernel.filemap import ext4_buffered_write_iter
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import Chunks, SystemCall
from emulator.memory.page_table import Vma
from scenarios.disk import Plain
from scenarios.workloads.file_reclaim import FILE_BASE, SHARED_READ_ONLY
from scenarios.workloads.settings import MAX_PAGES, Workload
from scenarios.workloads.users import PRIVATE_WRITABLE, Users

BUFFERS = 0x8000000
TABLE_FILE = 1
FIRST_FILE = 2


class WriteSyscall(Plain):
    """`[write_syscall]`: all threads together make `writes` of a page, each thread into a file of its own of
    `file_pages`, from the first page on and over again.

    Before each a thread reads its buffer, and `reads` pages in a row of a mapped file of `table_pages`. With
    `into_table` it is that file which is written, where the thread has read last.
    """

    writes: int = Field(default=4096, ge=1, le=10**9)
    file_pages: int = Field(default=8, ge=1, le=MAX_PAGES)
    table_pages: int = Field(default=4096, ge=1, le=MAX_PAGES)
    reads: int = Field(default=2, ge=0, le=10**6)
    into_table: bool = False


class WriteSyscallWorkload(Workload):
    """What its threads do stands under [write_syscall]."""

    scaled: ClassVar[tuple[str, ...]] = ("writes", "file_pages", "table_pages")
    threads_used: ClassVar[frozenset[str]] = frozenset({"per_cpu"})
    threads_instead: ClassVar[str] = "write_syscall says itself what its threads access"
    parameters: ClassVar[Mapping[str, Any]] = {"folio_locks": True}

    kind: Literal["write_syscall"]
    write_syscall: WriteSyscall = WriteSyscall()

    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        return WriteSyscallUserSpace(self, cpus, seed)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        settings = self.write_syscall
        if settings.into_table and not settings.reads:
            yield "write_syscall.into_table", "true, but no page is read to be written; false, or reads"


@dataclass(frozen=True)
class WriteSyscallUserSpace(Users):
    """Threads of one process."""

    workload: WriteSyscallWorkload

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        table = Vma(
            FILE_BASE, FILE_BASE + self.workload.write_syscall.table_pages, SHARED_READ_ONLY, TABLE_FILE
        )
        return {1: (table, Vma(BUFFERS, BUFFERS + self.thread_count(), PRIVATE_WRITABLE, 0))}

    def expected_accesses(self) -> int:
        return self.workload.write_syscall.writes * (self.workload.write_syscall.reads + 1)

    def chunks(self, thread: int) -> Chunks:
        settings = self.workload.write_syscall
        table, buffer = settings.table_pages, (BUFFERS + thread) << 1
        at = random.Random(f"{self.seed}/{thread}").randrange(table)
        for number in range(len(range(thread, settings.writes, self.thread_count()))):
            pages = [(at + one) % table for one in range(settings.reads)]
            at = (at + settings.reads) % table
            yield [buffer, *((FILE_BASE + page) << 1 for page in pages)]
            if settings.into_table:
                yield write(TABLE_FILE, pages[-1])
            else:
                yield write(FIRST_FILE + thread, number % settings.file_pages)


def write(file: int, pgoff: int) -> SystemCall:
    """write(2) of one page, with a content that no other write has."""

    async def call(cpu: PerCpu, mm: int) -> None:
        await ext4_buffered_write_iter(cpu, file, pgoff, cpu.new_version())

    return SystemCall(call)
