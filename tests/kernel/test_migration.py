"""Migration and kswapd: content is kept, batches flush once, and nobody sleeps through a wake-up."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte, Load, NrFree, NrLru
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmzone import wakeup_kswapd
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.sched import cond_resched
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.kernel.vmscan import FILE as FILE_LISTS
from emulator.kernel.vmscan import shrink_active_list, shrink_inactive_list
from emulator.memory.zone import Watermarks
from tests.kernel.small_machine import FILE, HEAP, PAGES, SmallMachine, Thread, after, demote, mark, promote

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])


@PROCESSORS
def test_content_goes_along_while_another_cpu_writes(architecture: str) -> None:
    for seed in range(150):

        async def mover(cpu: PerCpu) -> None:
            await after("begun")
            for _ in range(4):
                await demote(cpu, HEAP, HEAP + 1)
                await promote(cpu, HEAP, HEAP + 1)

        async def writer(cpu: PerCpu) -> None:
            await user_write(cpu, HEAP, 1)
            await mark("begun")
            for version in range(2, 10):
                await user_write(cpu, HEAP + version % 2, version)
                assert await user_read(cpu, HEAP + version % 2) == version

        machine = SmallMachine(Thread(0, mover), Thread(1, writer), architecture=architecture).run(seed)
        assert not machine.violations, seed


@pytest.mark.parametrize(("batch", "flushes"), [(512, 1), (4, 2), (1, 8)])
def test_one_flush_for_each_batch(batch: int, flushes: int) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(8):
            await user_read(cpu, FILE + page)
        await after("cached")
        assert await demote(cpu, *(FILE + page for page in range(8))) == 8
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), migrate_batch=batch).run()
    assert not machine.violations
    assert machine.vmstat("pgmigrate_success") == 8


def test_no_room_at_the_destination_in_the_middle_of_a_batch() -> None:
    """What was unmapped by then moves, the rest stays; nothing is lost."""

    async def body(cpu: PerCpu) -> None:
        for page in range(PAGES):
            await user_read(cpu, FILE + page)
            await user_write(cpu, HEAP + page, page)
        assert await demote(cpu, *(HEAP + page for page in range(PAGES))) == 3
        for page in range(PAGES):
            assert await user_read(cpu, HEAP + page) == page
        assert cpu.vmstat["pgmigrate_fail"] == PAGES - 3, "one page stays below the min watermark"

    machine = SmallMachine(Thread(0, body), slow=4).run()
    assert not machine.violations


def test_reclaim_demotes_only_what_was_not_used_since_the_last_look() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(8):
            await user_read(cpu, FILE + page)
        # All are young: the first look spares them and takes the accessed bits.
        assert await shrink_inactive_list(cpu, 0, 8, FILE_LISTS) == (0, 8)
        assert await NrLru(0, FILE_LISTS) == (0, 8)
        # x86 does not flush for that: only a walk sets the bit again.
        await flush_tlb_mm_range(cpu, 1, 0, TLB_FLUSH_ALL)
        for page in (1, 4):
            await user_read(cpu, FILE + page)
        assert await shrink_inactive_list(cpu, 0, 8, FILE_LISTS) == (6, 8)
        # Used in both rounds: active from here on.
        assert await NrLru(0, FILE_LISTS) == (2, 0)
        await shrink_active_list(cpu, 0, 8, FILE_LISTS)
        assert await NrLru(0, FILE_LISTS) == (0, 2)
        nodes = [cpu.parameters.nid(pte_pfn(await GetPte(1, FILE + page))) for page in range(8)]
        assert nodes == [1, 0, 1, 1, 0, 1, 1, 1]

    assert not SmallMachine(Thread(0, body)).run().violations


@PROCESSORS
def test_kswapd_stops_at_its_watermark_and_comes_back_when_called(architecture: str) -> None:
    """It aims one step above high: 16 pages here. Batches of two."""

    async def body(cpu: PerCpu) -> None:
        for base in (FILE, HEAP):
            for page in range(12):
                await user_read(cpu, base + page)
            await wakeup_kswapd(cpu, 0)
            while await NrFree(0) < 16 or not await Load("kswapd_waiting.0"):
                await cond_resched(cpu)
            # The first 12 pages leave 22 free: nothing to do.
            assert await NrFree(0) in ((22,) if base == FILE else (16, 17))

    for seed in range(0, 90):
        machine = SmallMachine(
            Thread(0, body),
            fast=34,
            marks=Watermarks(4, 8, 12),
            architecture=architecture,
            swap_cluster_max=2,
        ).run(seed)
        assert not machine.violations
        assert machine.vmstat("kswapd_wakeups") >= 1


@PROCESSORS
def test_kswapd_is_never_left_asleep(architecture: str) -> None:
    """More is mapped than the fast tier holds, in bursts, with kswapd going to sleep between them."""
    for seed in range(200):

        async def body(cpu: PerCpu) -> None:
            base = (FILE, HEAP)[cpu.number]
            for page in range(PAGES):
                await user_read(cpu, base + page)
            await mark(f"done{cpu.number}")

        machine = SmallMachine(
            Thread(0, body),
            Thread(1, body),
            fast=24,
            slow=10,
            marks=Watermarks(2, 4, 6),
            architecture=architecture,
            swap_cluster_max=2,
        ).run(seed)  # a thread of control left asleep is a deadlock here
        assert not machine.violations
        assert machine.vmstat("kswapd_wakeups")


def test_kswapd_wakes_where_its_waker_runs() -> None:
    """One at a time: whoever demotes is the waker's CPU, and no other is interrupted for it."""

    async def body(cpu: PerCpu) -> None:
        while cpu.number and not await Load("test.done0"):
            await cond_resched(cpu)
        for page in range(12):
            await user_read(cpu, (FILE, HEAP)[cpu.number] + page)
        await wakeup_kswapd(cpu, 0)
        while not await Load("kswapd_waiting.0"):
            await cond_resched(cpu)
        await mark(f"done{cpu.number}")

    machine = SmallMachine(
        Thread(0, body), Thread(1, body), fast=20, marks=Watermarks(4, 8, 12), swap_cluster_max=2
    ).run()
    assert not machine.violations
    demoted = [kernel.vmstat.get("pgdemote_kswapd", 0) for kernel in machine.kernels]
    assert min(demoted) > 0, demoted


@pytest.mark.parametrize("batched", [True, False])
def test_before_batching_every_page_is_flushed_for_by_itself(batched: bool) -> None:
    """v6.1: a range of one page for each, nothing full; since v6.3 one full flush for all."""

    async def reader(cpu: PerCpu) -> None:
        for page in range(6):
            await user_read(cpu, FILE + page)
        await mark("read")
        await after("moved")

    async def mover(cpu: PerCpu) -> None:
        for page in range(6):
            await user_read(cpu, FILE + page)
        await after("read")
        before = cpu.counted("nr_tlb_remote_flush")
        await demote(cpu, *range(FILE, FILE + 6))
        assert cpu.counted("nr_tlb_remote_flush") - before == (1 if batched else 6)
        await mark("moved")

    machine = SmallMachine(Thread(0, mover), Thread(1, reader), migrate_batched=batched).run()
    assert not machine.violations
    assert machine.vmstat("nr_tlb_local_flush_one") == (0 if batched else 6)


def test_memory_that_is_given_up_comes_back() -> None:
    async def body(cpu: PerCpu) -> None:
        before = await NrFree(0), await NrFree(1)
        await user_write(cpu, HEAP, 3)
        assert await demote(cpu, HEAP) == 1
        assert (await NrFree(0), await NrFree(1)) == (before[0], before[1] - 1)
        assert await promote(cpu, HEAP) == 1
        assert (await NrFree(0), await NrFree(1)) == (before[0] - 1, before[1])
        assert pte_pfn(await GetPte(1, HEAP)) <= 64

    assert not SmallMachine(Thread(0, body)).run().violations


def test_a_destination_may_enter_the_slow_path_where_policies_give_up_what_is_pending() -> None:
    class Asked(Policy):
        async def slowpath_enter(self, cpu: PerCpu) -> None:
            cpu.count("asked")

    async def body(cpu: PerCpu) -> None:
        for page in range(PAGES):
            await user_write(cpu, HEAP + page, page)
        await demote(cpu, *(HEAP + page for page in range(PAGES)))
        assert cpu.vmstat["asked"]

    assert not SmallMachine(Thread(0, body), slow=4, policy=Asked).run().violations
