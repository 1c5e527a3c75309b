"""What programs of a few operations cost, to the ns, computed by hand from the default cost model."""

from dataclasses import fields
from typing import Any

import pytest

from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import (
    AtomicAdd,
    Cycle,
    FlushTlbOne,
    FolioCopy,
    FolioZero,
    Halt,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    SendIpi,
    SetPte,
    Store,
    Touch,
    Translate,
    Unlock,
    WaitAcks,
    WaitFor,
    Walk,
)
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, mk_pte
from emulator.hardware.tlb import TlbShape
from emulator.machine.progress import DEADLOCK
from emulator.measure.costs import Costs
from emulator.timed.engine import TimedEngine
from scenarios.workloads.settings import Costs as Section
from tests.timed.timed_lab import FIRST_SLOW, engine_of, run

PRESENT_PTE = PRESENT | RW | ACCESSED | DIRTY


def shootdown(*targets: int, after: int = 0) -> Any:
    """Send to all targets and wait."""

    async def program(cpu: Cpu) -> None:
        for _ in range(after):
            await Cycle()
        await WaitAcks(await SendIpi(targets, "flush", (), True))

    return program


async def idle(cpu: Cpu) -> None:
    await Halt()


def test_one_shootdown_between_two_cpus() -> None:
    result = run(shootdown(1), idle)
    # 120 to send, 500 on its way; 480 into the handler, 200 to flush, 50 for the line with the
    # acknowledgement.
    assert result.delivery.summary()["max"] == 120 + 500
    assert result.round_trip.summary()["max"] == 120 + 500 + 480 + 200 + 50
    # The target sees its handler through: 1 for the acknowledging store.
    assert result.handler.summary()["max"] == 480 + 200 + 1
    assert result.clocks_ns == [1350, 620 + 681]
    assert result.waited_ns == [1350, 0]
    assert result.handled_ns == [0, 681]
    assert result.shootdown_share == (1350 + 681) / (1350 + 1301)


def test_a_hop_makes_every_part_of_it_longer() -> None:
    result = run(shootdown(1), idle, costs=Costs(sockets=2))
    assert result.round_trip.summary()["max"] == (120 + 240) + (500 + 1300) + 480 + 200 + (50 + 100)


def test_targets_are_sent_to_one_after_the_other() -> None:
    result = run(shootdown(1, 2), idle, idle)
    assert result.clocks_ns[1:] == [620 + 681, 740 + 681]
    assert result.round_trip.summary()["max"] == 240 + 500 + 480 + 200 + 50


def test_a_queue_that_is_not_empty_gets_no_second_interrupt() -> None:
    result = run(shootdown(2), shootdown(2, after=300), idle)
    # CPU 1's call, made at 300, is served by the interrupt that CPU 0 sent: it arrives at 620.
    assert result.delivery.summary()["count"] == 2
    assert result.handler.summary()["count"] == 1
    assert result.clocks_ns[2] == 620 + 480 + 2 * (200 + 1)
    assert result.clocks_ns[1] == 620 + 480 + 201 + 200 + 50


@pytest.mark.parametrize(
    ("cpus", "sockets", "least", "most"),
    [(4, 1, 1_400, 1_800), (16, 2, 5_500, 7_000), (120, 8, 70_000, 90_000)],
)
def test_the_defaults_come_near_what_was_measured(cpus: int, sockets: int, least: int, most: int) -> None:
    """LATR: 1.6 us with few cores, 6 us with 16 on 2 sockets, 80 us with 120 on 8."""
    targets = tuple(range(1, cpus))
    result = run(shootdown(*targets), *[idle] * (cpus - 1), costs=Costs(sockets=sockets))
    assert least <= result.clocks_ns[0] <= most


@pytest.mark.parametrize(("sockets", "hops", "measured"), [(2, 1, 2_700), (8, 4, 6_600)])
def test_one_interrupt_comes_near_what_was_measured(sockets: int, hops: int, measured: int) -> None:
    costs = Costs(sockets=sockets)
    assert costs.distance(0, hops, sockets) == hops
    took = costs.send(0, hops, sockets) + costs.deliver(0, hops, sockets) + costs.interrupt_ns
    assert abs(took - measured) < measured / 4


def test_sockets_are_a_ring() -> None:
    costs = Costs(sockets=4)
    assert [costs.distance(0, cpu, 8) for cpu in range(8)] == [0, 0, 1, 1, 2, 2, 1, 1]


def test_accesses_by_tier_and_by_tlb_level() -> None:
    async def program(cpu: Cpu) -> None:
        # One entry in each level: the second page puts the first out of the first level.
        cpu.tlb.insert(1, 16, mk_pte(5, PRESENT_PTE))
        cpu.tlb.insert(1, 32, mk_pte(FIRST_SLOW, PRESENT_PTE))
        accesses = [32 << 1, 32 << 1, 16 << 1]
        assert await Touch(accesses, 0, 3) == 3

    machine = engine_of(program)
    machine.cpus[0].tlb.__init__(TlbShape(1, 1, 16, 2))  # type: ignore[misc]
    machine.cpus[0].frames.clear()
    machine.cpus[0].boot(program(machine.cpus[0]))
    # Slow: 1 + 250 * 50/1000 = 13.5 each. Fast: 1 + 100 * 50/1000 = 6, and 3 for the second level.
    assert machine.run().clocks_ns == [13 + 14 + 6 + 3]


def test_a_page_walk_and_a_fault() -> None:
    async def program(cpu: Cpu) -> None:
        await SetPte(1, 7, mk_pte(3, PRESENT_PTE))  # 30
        assert not await Translate(7, False)  # 0
        assert await Walk(1, 7, False)  # 100, and 6 for the access
        assert await Translate(7, False)  # 6: an access
        assert not await Walk(1, 8, False)  # 100 and 500

    assert run(program).clocks_ns == [30 + 106 + 6 + 600]


def test_copying_pays_for_both_ends_and_zeroing_for_one() -> None:
    async def program(cpu: Cpu) -> None:
        await FolioCopy(1, FIRST_SLOW)
        await FolioZero(2)
        await FlushTlbOne(1)

    assert run(program).clocks_ns == [640 + 1600 + 640 + 100]


def test_a_shared_word_costs_its_line() -> None:
    async def first(cpu: Cpu) -> None:
        await AtomicAdd("x", 1)  # nobody has it: a load's worth of nothing, 8
        await AtomicAdd("x", 1)  # still ours: 8
        await Store("go", 1)  # CPU 1 has read it: 8 + 50

    async def second(cpu: Cpu) -> None:
        await WaitFor("go", 1)  # woken at 16, reads: 2 + 50
        await AtomicAdd("x", 1)  # CPU 0 has it: 8 + 50
        await Load("x")  # 2

    result = run(first, second)
    # A look that finds nothing yet is free, and leaves no copy.
    assert result.clocks_ns == [16 + 8, 16 + 52 + 58 + 2]


def test_a_lock_is_handed_over_in_order_of_arrival() -> None:
    order: list[int] = []

    def contender(delay: int, holds: int) -> Any:
        async def program(cpu: Cpu) -> None:
            for _ in range(delay):
                await Cycle()
            await Lock("l")
            order.append(cpu.number)
            for _ in range(holds):
                await Cycle()
            await Unlock("l")
            # Coming back at once does not get ahead of those who wait.
            await Lock("l")
            order.append(cpu.number)
            await Unlock("l")

        return program

    result = run(contender(0, 1000), contender(20, 5), contender(10, 5))
    assert order[:3] == [0, 2, 1]
    # CPU 0: 8 to lock, 1000, unlock at 1008. CPU 2: 100 for the hand-over, 8 + 50 to lock, 5, unlock.
    assert sorted(order) == [0, 0, 1, 1, 2, 2]
    assert result.violations == []


def test_a_lock_that_is_waited_for_takes_the_time_of_the_hand_over() -> None:
    async def holder(cpu: Cpu) -> None:
        await Lock("l")  # 8
        for _ in range(10):
            await Cycle()
        await Unlock("l")  # at 18: 8

    async def waiter(cpu: Cpu) -> None:
        await Cycle()
        await Lock("l")  # 100 for the hand-over, 8 + 50 for the line
        await Unlock("l")  # 8

    assert run(holder, waiter).clocks_ns == [18 + 8, 18 + 100 + 58 + 8]


def test_interrupts_wait_until_they_are_on() -> None:
    async def busy(cpu: Cpu) -> None:
        await LocalIrqDisable()
        for _ in range(998):
            await Cycle()
        await LocalIrqEnable()
        await Cycle()

    result = run(shootdown(1), busy)
    assert result.delivery.summary()["max"] == 1000


def test_waiting_for_each_other_with_interrupts_off_is_a_deadlock() -> None:
    def program(other: int) -> Any:
        async def wait(cpu: Cpu) -> None:
            await LocalIrqDisable()
            await WaitAcks(await SendIpi((other,), "flush", (), True))

        return wait

    (found,) = run(program(1), program(0)).violations
    assert found.rule == DEADLOCK
    assert "CPU 0 with interrupts off at WaitAcks(1); CPU 1 with interrupts off at WaitAcks(1)" in found.text


def test_a_call_that_nobody_takes_is_a_deadlock() -> None:
    async def gone(cpu: Cpu) -> None:
        pass

    async def never(cpu: Cpu) -> None:
        await WaitFor("x", 1)

    (found,) = run(shootdown(1, after=5), gone).violations
    assert "CPU 0 waits for flush on CPU 1, whose program has ended" in found.text
    (found,) = run(never).violations
    assert found.text.endswith("CPU 0 at WaitFor(x, 1)")


def test_what_a_program_raises_comes_out() -> None:
    async def program(cpu: Cpu) -> None:
        await Cycle()
        raise RuntimeError("broken")

    machine: TimedEngine = engine_of(program)
    with pytest.raises(RuntimeError, match="broken"):
        machine.run()


def test_the_section_has_every_key_with_its_default_and_a_word_on_it() -> None:
    names = [one.name for one in fields(Costs)]
    assert list(Section.model_fields) == names
    assert Section().prices() == Costs()
    assert Section.__doc__ is not None
    assert [name for name in names if name not in Section.__doc__] == []
