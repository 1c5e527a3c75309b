"""What drawn programs do besides (`drawn_programs`): with tables that are things, as a device, as a twin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from emulator.kernel.gup import get_user_pages_fast_only, kernel_read, unpin_user_page
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.secondary import device_read, read_if_translated
from emulator.kernel.user import user_read
from emulator.machine.litmus import MM
from scenarios.litmus.starts import PAGE

TABLE = 0x200  # a page in a table of its own, and how many pages that maps
BESIDE = ("tables", "tables of a guest", "device")
BESIDE_EVERY = 5  # one seed in so many

Action = Callable[[PerCpu, int], Awaitable[Any]]


async def _unmap_table(cpu: PerCpu, number: int) -> int:
    return await do_munmap(cpu, MM, TABLE, 2 * TABLE)


async def _move_table(cpu: PerCpu, number: int) -> int:
    return int(await mremap_to(cpu, MM, TABLE, 2 * TABLE, TABLE))


async def _read_table(cpu: PerCpu, number: int) -> int:
    return await user_read(cpu, TABLE)


async def _pin_table(cpu: PerCpu, number: int) -> int:
    pfn = await get_user_pages_fast_only(cpu, MM, TABLE, False)
    if pfn < 0:
        return 0
    await kernel_read(MM, TABLE, pfn)
    await unpin_user_page(pfn)
    return 1


async def _device_read(cpu: PerCpu, number: int) -> int:
    return await device_read(cpu, MM, PAGE + number % 2)


async def _device_translated(cpu: PerCpu, number: int) -> None:
    await read_if_translated(cpu, MM, PAGE + number % 2)


# Only where page-table pages are things: on a page that is alone in its table.
TABLES: dict[str, Action] = {
    "unmap table": _unmap_table,
    "move table": _move_table,
    "read table": _read_table,
    "pin table": _pin_table,
}
# Only of what translates beside the CPUs.
DEVICES: dict[str, Action] = {"device read": _device_read, "device translated": _device_translated}

SETTINGS: dict[str, Callable[[int], tuple[tuple[str, Any], ...]]] = {
    "": lambda last: (),
    "tables": lambda last: (("walker_caches", True),),
    "tables of a guest": lambda last: (("walker_caches", True), ("paravirt_flush", True)),
    "device": lambda last: (("devices", ((last, MM),)),),
}


Programs = tuple[tuple[str, bool, tuple[Any, ...]], ...]


def besides(
    random: Random, drawn: Programs, step: Callable[[str, int, int], Any]
) -> tuple[str, Programs, tuple[int, ...], tuple[int, ...]]:
    """Programs changed so that they have to do with tables, or the last one is a device's: what of BESIDE,
    they, the CPUs whose walkers know the table, and the pages that walkers may fetch. They get short."""
    beside = random.choice(BESIDE)
    programs = [(memory, tidy, list(steps)) for memory, tidy, steps in drawn]
    for at, (_, _, steps) in enumerate(programs):
        if beside == "device" and at == len(programs) - 1:
            steps[:] = [step(random.choice(tuple(DEVICES)), random.randrange(4), -1) for _ in range(2)]
        elif beside != "device":
            steps[1:] = []
            steps.insert(random.randrange(2), step(random.choice(tuple(TABLES)), 0, -1))
    return (
        beside,
        tuple([(memory, tidy, tuple(steps)) for memory, tidy, steps in programs]),
        tuple([cpu for cpu in range(len(programs)) if random.random() < 0.5]),
        (TABLE,) if beside != "device" and random.random() < 0.5 else (),
    )


def twins(
    programs: tuple[Any, ...], cached: tuple[tuple[int, int], ...]
) -> tuple[tuple[Any, ...], tuple[tuple[int, int], ...]]:
    """The last two CPUs run the same, from the same start; a third one is added if there are but two."""
    *others, last = programs
    programs = (*others[: len(others) - (len(others) > 1)], last, last)
    alike = (len(programs) - 2, len(programs) - 1)
    kept = [(cpu, page) for cpu, page in cached if cpu not in alike]
    pages = [page for cpu, page in cached if cpu == len(others)]
    return programs, (*kept, *[(cpu, page) for cpu in alike for page in pages])
