"""A loop that threads share: every part is run once, and whoever is held up runs fewer."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import Store, WaitFor
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import ParallelFor, Sampling, run_accesses, run_parallel_for
from tests.kernel.small_machine import HEAP, SmallMachine, Thread


@pytest.mark.parametrize("seed", range(5))
def test_every_part_is_run_once(seed: int) -> None:
    taken: list[int] = []

    def accesses(part: int) -> list[list[int]]:
        taken.append(part)
        return [[(HEAP + part) << 1]] * (part % 3)

    async def body(cpu: PerCpu) -> None:
        await run_parallel_for(cpu, ParallelFor(12, 1, accesses), Sampling(2), ())

    machine = SmallMachine(*(Thread(cpu, body) for cpu in range(3)), cpus=3).run(seed)
    assert not machine.violations
    assert sorted(taken) == [*range(12)]
    assert sum(kernel.accesses for kernel in machine.kernels) == sum(part % 3 for part in range(12))


def test_who_is_held_up_runs_fewer() -> None:
    taken: list[tuple[int, int]] = []

    def loop(cpu: int) -> ParallelFor:
        def accesses(part: int) -> list[list[int]]:
            taken.append((cpu, part))
            return [[HEAP << 1]]

        return ParallelFor(10, 1, accesses)

    async def late(cpu: PerCpu) -> None:
        await WaitFor("go", 1)
        await run_parallel_for(cpu, loop(0), Sampling(1000), ())

    async def early(cpu: PerCpu) -> None:
        await run_parallel_for(cpu, loop(1), Sampling(1000), ())
        await Store("go", 1)

    assert not SmallMachine(Thread(0, late), Thread(1, early)).run().violations
    assert taken == [(1, part) for part in range(10)]


def test_samples_are_counted_across_parts() -> None:
    async def body(cpu: PerCpu) -> None:
        await run_parallel_for(cpu, ParallelFor(9, 2, lambda part: [[HEAP << 1] * 2]), Sampling(6), ())

    machine = SmallMachine(Thread(0, body)).run()
    assert machine.kernels[0].sampled_hits == 3


def test_the_scanner_is_paced_by_how_far_the_loop_has_come() -> None:
    """Not by what the thread that gets there has done itself, which is nothing here."""

    async def first(cpu: PerCpu) -> None:
        loop = ParallelFor(8, 50, lambda part: [[HEAP << 1]])
        await run_parallel_for(cpu, loop, Sampling(1000), ((HEAP, HEAP + 1),))
        await Store("go", 1)

    async def second(cpu: PerCpu) -> None:
        await WaitFor("go", 1)
        loop = ParallelFor(10, 50, lambda part: [[HEAP << 1]])
        await run_parallel_for(cpu, loop, Sampling(1000), ((HEAP, HEAP + 1),))

    machine = SmallMachine(
        Thread(0, first), Thread(1, second), numa_scan_pages=4, numa_scan_period_accesses=100
    ).run()
    # Parts 0 to 7 are times 0 to 350; one more was taken in vain, so part 9 is the other's, at 450.
    assert machine.kernels[0].vmstat["numa_scans"] == 3
    assert machine.kernels[1].vmstat["numa_scans"] == 1


def test_what_is_written_before_the_loop_takes_no_time_from_the_scanner() -> None:
    """Nothing may be marked then; the first scan comes one period into the loop."""

    async def body(cpu: PerCpu) -> None:
        await run_accesses(cpu, [[HEAP << 1 | 1]] * 1000, Sampling(1000), ())
        loop = ParallelFor(10, 50, lambda part: [[HEAP << 1]])
        await run_parallel_for(cpu, loop, Sampling(1000), ((HEAP, HEAP + 1),))

    machine = SmallMachine(Thread(0, body), numa_scan_pages=4, numa_scan_period_accesses=100).run()
    assert machine.vmstat("numa_scans") == 4
