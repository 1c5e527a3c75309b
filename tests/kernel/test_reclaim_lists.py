"""When the inactive list is short: by Linux's ratio, which goes by the size of the memory that is meant."""

from __future__ import annotations

import pytest

from emulator.hardware import operations
from emulator.hardware.operations import (
    AllocPages,
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    GetPte,
    NrFree,
    NrLru,
)
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PF_KSWAPD, KernelParameters, PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.kernel.vmscan import (
    ANON,
    DEF_PRIORITY,
    SLOW_NODE,
    Listed,
    balance_pgdat,
    get_scan_count,
    inactive_is_low,
    pgdat_balanced,
    shrink_inactive_list,
    shrink_node,
)
from emulator.kernel.vmscan import FILE as FILES
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import FILE, HEAP, PAGES, SmallMachine, Thread, demote

GIB = 1 << 18
MARKS = Watermarks(1, 1, 1)


def cpu_of(memory_scale: int) -> PerCpu:
    parameters = KernelParameters(1, (MARKS, MARKS), (1, 2, 3), memory_scale=memory_scale)
    return PerCpu(0, parameters, Immediate(), X86())


@pytest.mark.parametrize(
    ("total", "ratio"),
    [
        (1 << 10, 1),
        (GIB - 32, 1),
        # The table beside inactive_is_low in mm/vmscan.c: 3 at 1 GiB, 10 at 10 GiB, 31 at 100 GiB.
        (GIB, 3),
        (2 * GIB - 32, 3),
        (2 * GIB, 4),
        (10 * GIB, 10),
        (100 * GIB, 31),
    ],
)
@pytest.mark.parametrize("scale", [1, 32])
def test_the_ratio_grows_with_the_square_root_of_ten_times_the_size(
    total: int, ratio: int, scale: int
) -> None:
    pages = total // scale
    cpu = cpu_of(scale)
    enough = -(-pages // (ratio + 1))
    assert not inactive_is_low(cpu, pages - enough, enough)
    assert inactive_is_low(cpu, pages - enough + 1, enough - 1)


def test_lists_of_the_same_length_are_not_short() -> None:
    assert not inactive_is_low(cpu_of(1), 0, 0)
    assert not inactive_is_low(cpu_of(1), 7, 7)
    assert inactive_is_low(cpu_of(1), 8, 7)


@pytest.mark.parametrize(("memory_scale", "deactivated"), [(1, True), (GIB // PAGES, False)])
def test_reclaim_leaves_the_active_list_alone_while_the_other_is_long_enough(
    memory_scale: int, deactivated: bool
) -> None:
    """Ten active and six inactive pages: too few for a small memory, enough for the 1 GiB they stand for."""

    async def body(cpu: PerCpu) -> None:
        for vpn in range(HEAP, HEAP + PAGES):
            await user_write(cpu, vpn, 1)
        for vpn in range(HEAP, HEAP + 10):
            pfn = pte_pfn(await GetPte(1, vpn))
            assert await FolioIsolateLru(pfn)
            await FolioPutbackLru(pfn, True)
        # Everything was just written, so it is kept, and the lists stay as long as they are.
        await shrink_node(cpu, FAST_NODE, 0, 1)

    machine = SmallMachine(Thread(0, body), memory_scale=memory_scale)
    assert not machine.run().violations
    assert (machine.vmstat("pgdeactivate") > 0) is deactivated


@pytest.mark.parametrize("daemon", [False, True])
def test_pages_of_files_are_dropped_where_the_slow_tier_has_no_room(daemon: bool) -> None:
    """Anonymous ones stay; what is read again comes from the file."""

    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            await user_read(cpu, FILE + page)
            await user_write(cpu, HEAP + page, 7)
        # All are young: the first look spares them.
        for file in (ANON, FILES):
            assert await shrink_inactive_list(cpu, 0, 8, file) == (0, 4)
        cpu.current.flags |= PF_KSWAPD if daemon else 0
        assert await shrink_inactive_list(cpu, 0, 8, ANON) == (0, 4)
        assert await shrink_inactive_list(cpu, 0, 8, FILES) == (4, 4)
        cpu.current.flags = 0
        for page in range(4):
            assert await user_read(cpu, HEAP + page) == 7
            await user_read(cpu, FILE + page)

    machine = SmallMachine(Thread(0, body), fast=32, slow=1, marks=Watermarks(1, 1, 1)).run()
    assert not machine.violations
    assert machine.vmstat("pgsteal_file") == 4
    assert machine.vmstat("pgdemote_kswapd") == machine.vmstat("pgdemote_direct") == 0


def test_the_slow_tier_gives_up_pages_of_files_and_nothing_else() -> None:
    """Its kswapd has nowhere to demote to, and there is no swap: what is anonymous stays."""

    async def body(cpu: PerCpu) -> None:
        for page in range(12):
            await user_read(cpu, FILE + page)
            await user_write(cpu, HEAP + page, 7)
        assert await demote(cpu, *range(FILE, FILE + 12), *range(HEAP, HEAP + 12)) == 24
        assert not await pgdat_balanced(cpu, SLOW_NODE)
        for page in range(12):
            await operations.TestAndClearYoung(1, FILE + page)
        cpu.current.flags |= PF_KSWAPD
        reclaimed, _ = await balance_pgdat(cpu, SLOW_NODE, DEF_PRIORITY)
        cpu.current.flags = 0
        assert await pgdat_balanced(cpu, SLOW_NODE)
        assert 0 < reclaimed <= 12
        assert await NrLru(SLOW_NODE, ANON) == (0, 12)
        for page in range(12):
            assert await user_read(cpu, HEAP + page) == 7

    machine = SmallMachine(Thread(0, body), fast=64, slow=32, slow_marks=Watermarks(3, 6, 9)).run()
    assert not machine.violations
    assert machine.vmstat("pgsteal_file") > 0
    assert machine.vmstat("pgdemote_kswapd") == 0


@pytest.mark.parametrize(
    ("priority", "file", "free", "expected"),
    [
        # Hardly a page of a file, and less free than the high watermark: anonymous ones alone.
        (4, (0, 0), 10, ((32, 64), (0, 0))),
        # More free: swappiness of 60 in 200.
        (4, (0, 0), 100, ((9, 19), (0, 0))),
        # Plenty of inactive pages of files, which are looked at first, alone.
        (4, (0, 160), 10, ((0, 0), (0, 10))),
        # As many active ones: both kinds, files' pages more.
        (4, (320, 160), 100, ((9, 19), (14, 7))),
        (0, (320, 160), 100, ((512, 1024), (320, 160))),
    ],
)
def test_how_much_of_each_list_is_looked_at(
    priority: int, file: tuple[int, int], free: int, expected: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    async def body(cpu: PerCpu) -> None:
        while await NrFree(FAST_NODE) > free:
            held.append(await AllocPages(FAST_NODE, 0, 0, 0))
        counted = await get_scan_count(cpu, FAST_NODE, priority, Listed(512, 1024), Listed(*file))
        assert counted == expected
        for pfn in held:
            await FolioPut(pfn)

    held: list[int] = []
    machine = SmallMachine(Thread(0, body), fast=128, marks=Watermarks(5, 10, 50)).run()
    assert not machine.violations
