"""The memory that operations are called on, by the kind's name: how it looks, and who uses which pages.

As in the recordings the pages lie in page tables that other pages keep in use, so that no table is freed: the
first is no table's first, and both neighbours are written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emulator.hardware.pte import PMD_ORDER
from emulator.kernel.fork import dup_mmap
from emulator.kernel.ksm import try_to_merge_two_pages
from emulator.kernel.mlock import do_mlock
from emulator.kernel.mmap import do_mmap
from emulator.kernel.mmu_gather import exit_mmap, zap_page_range_single
from emulator.kernel.mprotect import PROT_NONE, PROT_READ, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE, Vma

MM: Final = 1
OTHER: Final = 2  # runs on CPU 2 in configuration mix
CALLER: Final = 3  # a process of its own that calls on behalf of MM
CHILD: Final = 4
AWAY: Final = 5  # runs on CPU 3 where memory is mapped elsewhere, too
PID: Final = 100
"""The task of a CPU; others have the numbers behind it."""
ROUNDS: Final = 10
"""How often processes that take turns do so."""
ROUNDS_DONE: Final = "linux.rounds_done"
FILE: Final = 1
TMPFS: Final = -1
READ_WRITE: Final = VM_READ | VM_WRITE

HUGE: Final = 1 << PMD_ORDER
GIB: Final = 1 << 18
START: Final = GIB + 16
ELSEWHERE: Final = 2 * GIB + 16
ALONE: Final = 0x1001000
"""64 GiB and 16 MiB, in pages: there is nothing else in the same table of any level."""


class Area(NamedTuple):
    """Pages from `start` on; `file` 0 is anonymous."""

    start: int
    pages: int
    file: int = 0

    @property
    def end(self) -> int:
        """The page after its last."""
        return self.start + self.pages

    @property
    def i_mmap(self) -> tuple[tuple[int, int], ...]:
        """Where its file is mapped, wherever that is: its own and the other process'."""
        return ((MM, self.start), (AWAY, self.start))


Step = Callable[[PerCpu, Area], Awaitable[Any]]
"""A part of a program, told the CPU that runs it and the memory."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of memory, by all that it is called. CPU 0 runs `set_up`, then each other thread `touch` on
    its CPU, then CPU 0 `prepare`.

    `area` makes the memory of the number in an operation's name; what is called, is called on the `part` of
    it. `elsewhere` is what a process of its own runs on CPU 3 before it spins there. `settings` are kernel
    parameters that the recording had, such as huge pages.
    """

    names: tuple[str, ...]
    set_up: Step
    touch: Step
    prepare: Step
    area: Callable[[int], Area]
    part: Callable[[Area], Area] = lambda area: area
    elsewhere: Step | None = None
    settings: tuple[tuple[str, Any], ...] = ()


async def nothing(cpu: PerCpu, area: Area) -> None:
    """Neither maps nor touches anything."""


async def map_pages(cpu: PerCpu, area: Area, flags: int = READ_WRITE) -> None:
    """An area of the process that runs."""
    if not await do_mmap(cpu, cpu.current.mm, area.start, area.end, flags, area.file):
        raise ValueError(f"pages {area.start:#x} to {area.end - 1:#x} are mapped already")


async def write_pages(cpu: PerCpu, area: Area, step: int = 1) -> None:
    """A thread writes to each page, or to one in so many."""
    for vpn in range(area.start, area.end, step):
        await user_write(cpu, vpn, cpu.new_version())


async def read_pages(cpu: PerCpu, area: Area, step: int = 1) -> None:
    """A thread reads each page."""
    for vpn in range(area.start, area.end, step):
        await user_read(cpu, vpn)


async def write_alike(cpu: PerCpu, area: Area) -> None:
    """The same content for all pages."""
    for vpn in range(area.start, area.end):
        await user_write(cpu, vpn, 1)


async def _written(cpu: PerCpu, area: Area) -> None:
    await map_pages(cpu, area)
    await write_pages(cpu, area)


async def _neighbours(cpu: PerCpu, area: Area) -> None:
    """What keeps the page tables in use."""
    for vpn in (area.start - 1, area.end):
        await _written(cpu, Area(vpn, 1))


# ---- anonymous memory ----


async def _unpopulated(cpu: PerCpu, area: Area) -> None:
    await _neighbours(cpu, area)
    await map_pages(cpu, area)


async def _anonymous(cpu: PerCpu, area: Area) -> None:
    await _unpopulated(cpu, area)
    await write_pages(cpu, area)


async def _read(cpu: PerCpu, area: Area) -> None:
    await _unpopulated(cpu, area)
    await read_pages(cpu, area)


async def _alike(cpu: PerCpu, area: Area) -> None:
    await _unpopulated(cpu, area)
    await write_alike(cpu, area)


async def _locked(cpu: PerCpu, area: Area) -> None:
    await _anonymous(cpu, area)
    await do_mlock(cpu, MM, area.start, area.end)


async def _sparse(cpu: PerCpu, area: Area) -> None:
    await _unpopulated(cpu, area)
    await _write_sparse(cpu, area)


async def _write_sparse(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area, 2)


def _halves(area: Area) -> tuple[Area, Area]:
    half = area.pages // 2
    return Area(area.start, half), Area(area.start + half, area.pages - half)


async def _two_areas(cpu: PerCpu, area: Area) -> None:
    await _anonymous(cpu, area)
    await read_only(cpu, _halves(area)[1])


async def _touch_two(cpu: PerCpu, area: Area) -> None:
    first, second = _halves(area)
    await write_pages(cpu, first)
    await read_pages(cpu, second)


async def read_only(cpu: PerCpu, area: Area) -> None:
    """mprotect(PROT_READ)."""
    await do_mprotect_pkey(cpu, MM, area.start, area.end, PROT_READ)


async def inaccessible(cpu: PerCpu, area: Area) -> None:
    """mprotect(PROT_NONE)."""
    await do_mprotect_pkey(cpu, MM, area.start, area.end, PROT_NONE)


async def fork(cpu: PerCpu, area: Area) -> None:
    """dup_mmap of the area; the child runs nowhere."""
    await dup_mmap(cpu, MM, CHILD, ((area.start, area.end),))


async def _fork_and_exit(cpu: PerCpu, area: Area) -> None:
    await fork(cpu, area)
    await exit_mmap(cpu, CHILD, ((area.start, area.end),))


async def merge(cpu: PerCpu, area: Area) -> None:
    """ksmd finds that all pages are equal."""
    for vpn in range(area.start + 1, area.end):
        await try_to_merge_two_pages(cpu, MM, vpn, area.start)


# ---- files ----


async def shared_file(cpu: PerCpu, area: Area) -> None:
    """A file, mapped shared and read."""
    await _neighbours(cpu, area)
    await map_pages(cpu, area, READ_WRITE | VM_SHARED)
    await read_pages(cpu, area)


async def _written_file(cpu: PerCpu, area: Area) -> None:
    await shared_file(cpu, area)
    await write_pages(cpu, area)


async def _shared_anonymous(cpu: PerCpu, area: Area) -> None:
    await _neighbours(cpu, area)
    await map_pages(cpu, area, READ_WRITE | VM_SHARED)
    await write_pages(cpu, area)


async def _private_file(cpu: PerCpu, area: Area) -> None:
    await _neighbours(cpu, area)
    await map_pages(cpu, area)
    await read_pages(cpu, area)


async def _private_copies(cpu: PerCpu, area: Area) -> None:
    await _private_file(cpu, area)
    await write_pages(cpu, area)


async def _shared_elsewhere(cpu: PerCpu, area: Area) -> None:
    await map_pages(cpu, area, READ_WRITE | VM_SHARED)
    await read_pages(cpu, area)


# ---- huge pages, and a small one behind them in another PMD ----


async def _huge(cpu: PerCpu, area: Area) -> None:
    await map_pages(cpu, area)
    await _written(cpu, Area(area.end, 1))
    await _write_huge(cpu, area)


async def _huge_read(cpu: PerCpu, area: Area) -> None:
    await map_pages(cpu, area)
    await _written(cpu, Area(area.end, 1))
    await _read_huge(cpu, area)


async def _write_huge(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area, HUGE)


async def _read_huge(cpu: PerCpu, area: Area) -> None:
    await read_pages(cpu, area, HUGE)


async def _small(cpu: PerCpu, area: Area) -> None:
    """Small pages, because a page table was left where there had been a huge one."""
    await _huge(cpu, area)
    vma = Vma(area.start, area.end, READ_WRITE, 0)
    for start in range(area.start, area.end, HUGE):
        await zap_page_range_single(cpu, MM, vma, start, start + 1)
        await zap_page_range_single(cpu, MM, vma, start + 1, start + HUGE)
    await write_pages(cpu, area)


# ---- the kinds ----


def _at(start: int, file: int = 0) -> Callable[[int], Area]:
    return lambda number: Area(start, number, file)


def _across(border: int) -> Callable[[int], Area]:
    """Half of it in front of the border of a table."""
    return lambda number: Area(border - number // 2, number)


def _kind(
    names: str,
    set_up: Step = _anonymous,
    touch: Step = write_pages,
    prepare: Step = nothing,
    area: Callable[[int], Area] | None = None,
    settings: tuple[tuple[str, Any], ...] = (),
) -> Kind:
    return Kind(tuple(names.split()) or ("",), set_up, touch, prepare, area or _at(START), settings=settings)


def _of_file(names: str, set_up: Step, touch: Step, file: int = FILE, elsewhere: Step | None = None) -> Kind:
    return Kind(tuple(names.split()) or ("",), set_up, touch, nothing, _at(START, file), elsewhere=elsewhere)


def _thp(
    name: str,
    set_up: Step = _huge,
    touch: Step = _write_huge,
    prepare: Step = nothing,
    part: Callable[[Area], Area] = lambda area: area,
) -> Kind:
    settings = (("hpage_order", PMD_ORDER),)
    return Kind(
        (name,), set_up, touch, prepare, lambda number: Area(GIB, number * HUGE), part, settings=settings
    )


_KSM = (("ksm", True),)
_EVERY = (
    _kind(""),
    _kind("unpopulated unpop", _unpopulated, nothing),
    _kind("zero", _read, read_pages),
    _kind("tables", _written, area=_at(ALONE)),
    _kind("sparse", _sparse, _write_sparse),
    _kind("pmd", area=_across(GIB + HUGE)),
    _kind("pud", area=_across(3 * GIB)),
    _kind("two", _two_areas, _touch_two),
    _kind("locked", _locked),
    _kind("ro", prepare=read_only),
    _kind("none", prepare=inaccessible),
    _kind("forked", prepare=fork),
    _kind("reused", prepare=_fork_and_exit),
    _kind("mergeable", _alike, write_alike, settings=_KSM),
    _kind("merged", _alike, write_alike, merge, settings=_KSM),
    _of_file("file_clean clean", shared_file, read_pages),
    _of_file("file_dirty dirty file", _written_file, write_pages),
    _of_file("private", _private_copies, write_pages),
    _of_file("private_clean", _private_file, read_pages),
    _of_file("tmpfs", _written_file, write_pages, TMPFS),
    _of_file("tmpfs_clean", shared_file, read_pages, TMPFS),
    _of_file("shared", _shared_anonymous, write_pages, TMPFS),
    _of_file("elsewhere", shared_file, read_pages, TMPFS, _shared_elsewhere),
    _thp("thp"),
    _thp("thp_part", part=lambda area: Area(area.start + 16, 8)),
    _thp("thp_unaligned", part=lambda area: Area(area.start + HUGE // 2, area.pages - HUGE)),
    _thp("thp_zero", _huge_read, _read_huge),
    _thp("thp_ro", prepare=read_only),
    _thp("thp_none", prepare=inaccessible),
    _thp("thp_forked", prepare=fork),
    _thp("thp_forked_part", prepare=fork, part=lambda area: Area(area.start + 16, 8)),
    _thp("small", _small, write_pages),
)
KINDS: Final[dict[str, Kind]] = {name: kind for kind in _EVERY for name in kind.names}
