"""TLB flushing: who is interrupted, how much is dropped, and where the counters tick."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import (
    FlushTlb,
    FlushTlbOne,
    GetPte,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
)
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.percpu import TLB_NR_DYN_ASIDS, PerCpu, is_lazy_word, tlb_gen_word
from emulator.kernel.sched import cond_resched, schedule, wait_event, wake_up_process
from emulator.kernel.tlb import (
    FlushTlbInfo,
    flush_tlb_func,
    flush_tlb_mm_range,
)
from emulator.kernel.user import user_read, user_write
from emulator.machine.builder import parameters_of
from emulator.memory.folios import Tier
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import AREAS, FILE, HEAP, Body, SmallMachine, Thread, after, demote, mark

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])


def flusher(pages: int) -> Body:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await after("cached")
        await flush_tlb_mm_range(cpu, 1, HEAP, HEAP + pages)
        await mark("flushed")

    return body


async def bystander(cpu: PerCpu) -> None:
    await user_read(cpu, HEAP)
    await user_read(cpu, FILE)
    await mark("cached")
    await after("flushed")
    await mark("over")


@PROCESSORS
@pytest.mark.parametrize(("pages", "kept"), [(1, True), (33, True), (34, False)])
def test_up_to_the_ceiling_single_pages_go_above_it_everything(
    pages: int, kept: bool, architecture: str
) -> None:
    machine = SmallMachine(Thread(0, flusher(pages)), Thread(1, bystander), architecture=architecture)
    machine.drive(1, machine.marked("cached"))
    machine.drive(0, machine.marked("flushed"))
    cached = {vpn for _, vpn, _ in machine.cpus[1].tlb.entries()}
    assert cached == ({FILE} if kept else set())
    local, remote = (kernel.vmstat for kernel in machine.kernels)
    assert local["nr_tlb_remote_flush"] == 1
    assert remote["nr_tlb_remote_flush_received"] == machine.kernels[1].tlb_interrupts == 1
    assert local.get("nr_tlb_local_flush_one", 0) == (pages if kept else 0)
    assert local.get("nr_tlb_local_flush_all", 0) == (0 if kept else 1)
    # A remote CPU's own flush is no local one.
    assert "nr_tlb_local_flush_one" not in remote and "nr_tlb_local_flush_all" not in remote
    assert not machine.run().violations


def test_alone_on_the_machine_a_flush_is_local() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await flush_tlb_mm_range(cpu, 1, HEAP, HEAP + 2)
        assert cpu.vmstat["nr_tlb_local_flush_one"] == 2
        assert "nr_tlb_remote_flush" not in cpu.vmstat

    SmallMachine(Thread(0, body)).run()


def test_received_counts_even_if_the_handler_has_nothing_to_do() -> None:
    """Two flushes are under way; the first to arrive catches up with both, the second returns early."""

    async def first(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await after("cached")
        await flush_tlb_mm_range(cpu, 1, HEAP, HEAP + 1)
        await mark("flushed")

    async def second(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await after("cached")
        await flush_tlb_mm_range(cpu, 1, HEAP, HEAP + 1)
        await wait_event(cpu, "test.flushed", 1)

    for seed in range(20):
        machine = SmallMachine(Thread(0, first), Thread(1, second), Thread(2, bystander), cpus=3).run(seed)
        # Each of the two calls interrupts both other CPUs.
        assert machine.kernels[2].vmstat["nr_tlb_remote_flush_received"] >= 2
        assert machine.vmstat("nr_tlb_remote_flush") >= 2


@PROCESSORS
def test_a_lazy_cpu_is_not_interrupted_but_flushes_when_it_returns(architecture: str) -> None:
    """CPU 1's thread sleeps, and the idle task runs on its address space."""

    async def mover(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 4)
        await after("cached")
        await wait_lazy(cpu)
        received = machine.kernels[1].vmstat.get("nr_tlb_remote_flush_received", 0)
        assert await demote(cpu, HEAP) == 1
        assert machine.kernels[1].vmstat.get("nr_tlb_remote_flush_received", 0) == received
        await user_write(cpu, HEAP, 5)
        await mark("moved")
        await wake(cpu)

    async def wait_lazy(cpu: PerCpu) -> None:
        while not await Load(is_lazy_word(1)):
            pass

    async def wake(cpu: PerCpu) -> None:
        await wake_up_process(cpu, 1, sleeper_pid[0])

    sleeper_pid: list[int] = []

    async def sleeper(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) in (0, 4)
        sleeper_pid.append(cpu.current.pid)
        cpu.current.runnable = False
        await mark("cached")
        await schedule(cpu)
        assert await user_read(cpu, HEAP) == 5

    for seed in range(0, 90, 3):
        sleeper_pid.clear()
        machine = SmallMachine(Thread(0, mover), Thread(1, sleeper), architecture=architecture)
        assert not machine.run(seed).violations


@PROCESSORS
def test_more_address_spaces_than_pcid_slots(architecture: str) -> None:
    """Nine processes take turns on one CPU: slots are reused, and never serve another process's pages."""
    turns = 4
    count = TLB_NR_DYN_ASIDS + 3

    def taker(number: int) -> Body:
        async def body(cpu: PerCpu) -> None:
            for turn in range(turns):
                await user_write(cpu, HEAP, 100 * number + turn)
                await cond_resched(cpu)
                assert await user_read(cpu, HEAP) == 100 * number + turn

        return body

    threads = [Thread(0, taker(number), 1 + number) for number in range(count)]
    machine = SmallMachine(*threads, cpus=2, architecture=architecture).run()
    assert not machine.violations
    assert machine.vmstat("tlb_flush_on_task_switch") > count


def test_unmapping_nothing_flushes_nothing() -> None:
    async def body(cpu: PerCpu) -> None:
        assert await zap_page_range_single(cpu, 1, AREAS[0], HEAP, HEAP + 4) == 0
        assert not {"nr_tlb_remote_flush", "nr_tlb_local_flush_one"} & cpu.vmstat.keys()
        await user_read(cpu, HEAP)
        assert await zap_page_range_single(cpu, 1, AREAS[0], HEAP, HEAP + 4) == 1
        assert await GetPte(1, HEAP) == 0

    assert not SmallMachine(Thread(0, body)).run().violations


@pytest.mark.parametrize(
    ("asked", "by_now", "flushed"),
    [(2, 2, FlushTlbOne(16)), (3, 3, FlushTlb()), (2, 3, FlushTlb())],
    ids=["the next change", "one before was missed", "one more has come"],
)
def test_one_range_is_flushed_only_where_it_is_all_that_was_missed(
    asked: int, by_now: int, flushed: object
) -> None:
    """flush_tlb_func: `new_tlb_gen` is one more than the slot's, and nothing has changed since."""
    tiers = (Tier(4, Watermarks(0, 0, 0)),)
    cpu = PerCpu(0, parameters_of(2, tiers), Immediate(), X86())
    cpu.tlbstate.loaded_mm, cpu.tlbstate.loaded_mm_asid = 1, 0
    cpu.tlbstate.ctxs[0].mm, cpu.tlbstate.ctxs[0].tlb_gen = 1, 1
    running = flush_tlb_func(cpu, FlushTlbInfo(1, 16, 17, asked, 1))
    assert running.send(None) == Load(tlb_gen_word(1))
    assert running.send(by_now) == flushed
    with pytest.raises(StopIteration):
        running.send(None)
    assert cpu.tlbstate.ctxs[0].tlb_gen == by_now


def test_slots_are_taken_in_turn_and_one_that_has_missed_something_is_flushed() -> None:
    cpu = PerCpu(0, parameters_of(2, (Tier(4, Watermarks(0, 0, 0)),)), Immediate(), X86())
    first = cpu.tlbstate.next_asid

    def chosen(mm: int, next_tlb_gen: int) -> tuple[int, bool]:
        with pytest.raises(StopIteration) as ended:
            X86().choose_new_asid(cpu, mm, next_tlb_gen, False).send(None)
        slot: tuple[int, bool] = ended.value.value
        return slot

    taken = [chosen(10 + number, 1) for number in range(TLB_NR_DYN_ASIDS + 1)]
    assert taken == [((first + number) % TLB_NR_DYN_ASIDS, True) for number in range(TLB_NR_DYN_ASIDS + 1)]
    cpu.tlbstate.ctxs[2].mm, cpu.tlbstate.ctxs[2].tlb_gen = 77, 3
    assert chosen(77, 4) == (2, True)
    assert chosen(77, 3) == (2, False)


def test_an_address_space_that_missed_nothing_comes_back_without_a_flush() -> None:
    """The slot knows what it was flushed for when it was loaded."""

    async def body(cpu: PerCpu) -> None:
        for mm in (2, 3):
            await flush_tlb_mm_range(cpu, mm, HEAP, HEAP + 1)
        for mm in (2, 3, 2, 3, 1):
            await LocalIrqDisable()
            await cpu.mmu.switch_mm_irqs_off(cpu, mm)
            await LocalIrqEnable()
        assert cpu.vmstat["tlb_flush_on_task_switch"] == begun + 2

    machine = SmallMachine(Thread(0, body))
    machine.drive(0, lambda: bool(machine.kernels[0].current.mm))
    begun = machine.kernels[0].vmstat.get("tlb_flush_on_task_switch", 0)
    assert not machine.run().violations
