"""When the inactive list is short: by Linux's ratio, which goes by the size of the memory that is meant."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PF_KSWAPD, KernelParameters, PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.kernel.vmscan import inactive_is_low, shrink_inactive_list, shrink_node
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import FILE, HEAP, PAGES, SmallMachine, Thread

GIB = 1 << 18
MARKS = Watermarks(1, 1, 1)


def cpu_of(memory_scale: int) -> PerCpu:
    parameters = KernelParameters(1, (MARKS, MARKS), (1, 2, 3), memory_scale=memory_scale)
    return PerCpu(0, parameters, Immediate())


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
        assert await shrink_inactive_list(cpu, 0, 8) == 0
        cpu.current.flags |= PF_KSWAPD if daemon else 0
        assert await shrink_inactive_list(cpu, 0, 8) == 4
        cpu.current.flags = 0
        for page in range(4):
            assert await user_read(cpu, HEAP + page) == 7
            await user_read(cpu, FILE + page)

    machine = SmallMachine(Thread(0, body), fast=32, slow=1, marks=Watermarks(1, 1, 1)).run()
    assert not machine.violations
    assert machine.vmstat("pgsteal_file") == 4
    assert machine.vmstat("pgdemote_kswapd") == machine.vmstat("pgdemote_direct") == 0
