"""Anonymous memory that a thread maps, uses and gives up: where it lies, and the system calls for it.

Every thread has page tables of its own for that, each kept by an area of one page that stays, as those of
programs are by whatever lies beside: else every munmap would free one, and interrupt everybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from emulator.hardware.pte import PMD_ORDER
from emulator.kernel.madvise import do_madvise, madvise_dontneed
from emulator.kernel.mmap import do_mmap, do_munmap, mmap_region
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import SystemCall
from emulator.memory.page_table import Vma
from scenarios.workloads.users import PRIVATE_WRITABLE

BASE = 0x40000000
TABLE = 1 << PMD_ORDER
MOST_PAGES = TABLE - 1


class MappedAnew:
    """`pages` of one thread, at one place after the other of its page table; `start` is the first one's."""

    def __init__(self, thread: int, pages: int) -> None:
        self.pages = pages
        self.start = 0
        first = kept(thread).end
        self._places = range(first, first + MOST_PAGES - pages + 1, pages)
        self._next = 0

    def mmap(self) -> SystemCall:
        """Map the pages where nothing is; the mmu may keep places for a while."""
        return SystemCall(self._mmap)

    async def _mmap(self, cpu: PerCpu, mm: int) -> None:
        for _ in self._places:
            self._advance()
            if await do_mmap(cpu, mm, self.start, self.start + self.pages, PRIVATE_WRITABLE):
                return
        await mmap_region(cpu, mm, self.start, self.start + self.pages, PRIVATE_WRITABLE)

    def _advance(self) -> None:
        self.start = self._places[self._next]
        self._next = (self._next + 1) % len(self._places)

    def munmap(self) -> SystemCall:
        """Unmap all of them."""
        return SystemCall(self._munmap)

    async def _munmap(self, cpu: PerCpu, mm: int) -> None:
        await do_munmap(cpu, mm, self.start, self.start + self.pages)

    def dontneed(self, page: int) -> SystemCall:
        """MADV_DONTNEED for one of them."""

        async def call(cpu: PerCpu, mm: int) -> None:
            at = self.start + page
            await do_madvise(cpu, mm, at, at + 1, madvise_dontneed)

        return SystemCall(call)

    def touches(self, write: bool) -> list[int]:
        """One access to each."""
        return [page << 1 | write for page in range(self.start, self.start + self.pages)]


def kept(thread: int) -> Vma:
    """The area that keeps the page table of a thread."""
    start = BASE + thread * TABLE
    return Vma(start, start + 1, PRIVATE_WRITABLE, 0)


def keep(thread: int) -> list[int]:
    """The access that makes the page table, first of all."""
    return [kept(thread).start << 1 | 1]


def loops_of(loops: int, number: int, threads: int) -> Iterator[int]:
    """Which of so many loops are those of one of the threads that share them."""
    return iter(range(number, loops, threads))
