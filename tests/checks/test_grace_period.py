"""The grace-period rule: each way of reusing too early is reported, and nothing else is.

First traces told by hand, then the kernel: mainline must trip nothing under any schedule, and the known
holes of the postings must be seen even if nobody steps into them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from small_machine import HEAP, SmallMachine, Thread, after, demote, mark, random_body

from emulator.checks.grace_period import (
    COPIED,
    OWED,
    RANGE,
    REFILLED,
    REUSED,
    SHARED,
    WRITABLE,
    WRITTEN_OUT,
    GracePeriod,
    relevant,
)
from emulator.checks.sides import Sides
from emulator.hardware.cpu import IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    AllocPages,
    AtomicAdd,
    AtomicAnd,
    AtomicOr,
    CmpxchgPte,
    Cycle,
    FilemapAdd,
    FilemapRemove,
    FlushTlb,
    FlushTlbOne,
    FolioCopy,
    FolioIsolateLru,
    FolioMigrateMapping,
    FolioPut,
    FolioPutbackLru,
    FolioZero,
    LlistAdd,
    Load,
    LoadCr3,
    MappedRange,
    Operation,
    ReadFrame,
    SendIpi,
    SetPte,
    SmpMb,
    SmpRmb,
    Store,
    TryToMigratePte,
    VmaInsert,
    VmaRemove,
    WaitAcks,
    Walk,
    WriteFrame,
    WritePage,
    XchgPte,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import DIRTY, EXCLUSIVE, PRESENT, PROTNONE, RW, make_migration_entry, mk_pte
from emulator.kernel import sched, smp
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmu_gather import unmap_page_range
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu, cpumask_word, is_lazy_word, tlb_gen_word
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Litmus, LitmusMachine, Setup
from emulator.memory.page_table import VM_READ, VM_WRITE
from emulator.policies.catalogue import find_policy
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3

ARCHES = pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
VPN = 0x10
RO = mk_pte(1, PRESENT)
WRITABLE_1 = mk_pte(1, PRESENT | RW | DIRTY)


class Trace:
    """Tells a GracePeriod of two CPUs that both run mm 1, one operation after another."""

    def __init__(self, plain_orders: bool = True, mask: int = 0b11) -> None:
        self.check = GracePeriod(2, plain_orders, {1: mask}, lambda pfn: pfn // 100)
        self.numbers = 0

    def step(self, cpu: int, operation: Operation, answer: Any = None, issued: bool = False) -> None:
        self.check.happened(Transition(Kind.STEP, cpu), operation, issued, answer)

    def unmap(self, cpu: int = 0, entry: int = RO) -> None:
        self.step(cpu, TryToMigratePte(1, VPN, 1), entry)

    def move(self, cpu: int = 0, entry: int = RO, flags: int = PRESENT) -> None:
        """Copy to frame 101 and map that."""
        self.step(cpu, FolioCopy(1, 101))
        self.step(cpu, FolioMigrateMapping(1, 101, 0), True)
        left = make_migration_entry(entry)
        self.step(cpu, CmpxchgPte(1, VPN, left, mk_pte(101, flags)), left)

    def shootdown(self, sender: int = 0, *flushes: Operation) -> None:
        """Flush here and on the other CPU, and wait for it."""
        for operation in flushes or (FlushTlb(),):
            self.step(sender, operation)
        target = 1 - sender
        self.numbers += 1
        number = self.numbers
        self.step(sender, SendIpi((target,), "flush_tlb_func", (1,), True), number)
        batch = (IpiRequest(sender, number, "flush_tlb_func", (1,), True, 0),)
        self.check.happened(Transition(Kind.INTERRUPT, target), None, False, batch)
        for operation in flushes or (FlushTlb(),):
            self.step(target, operation)
        self.step(target, AckIpi(sender, number))
        self.step(sender, WaitAcks(number))

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.check.violations]


def reuse(trace: Trace, cpu: int = 0) -> None:
    trace.step(cpu, FolioPut(1), True)
    trace.step(cpu, AllocPages(0, 0, 0, 0), 1)
    assert not trace.rules, "handing a frame out is not using it"
    trace.step(cpu, FolioZero(1))


@pytest.mark.parametrize("plain_orders", [True, False])
@pytest.mark.parametrize("flushed", [True, False])
def test_a_frame_is_used_again(flushed: bool, plain_orders: bool) -> None:
    trace = Trace(plain_orders)
    trace.unmap()
    if flushed:
        trace.shootdown()
    trace.move()
    reuse(trace)
    assert trace.rules == ([] if flushed else [REUSED])
    # Whatever it was, it is over.
    trace.step(1, FolioZero(1))
    assert len(trace.rules) == (not flushed)
    assert not trace.check.facts.retired


@pytest.mark.parametrize("use", ["zero", "copy", "map"])
def test_every_first_use_counts(use: str) -> None:
    trace = Trace()
    trace.unmap()
    trace.step(1, FolioPut(1), True)
    trace.step(1, AllocPages(0, 2, 0, 0), 0)
    operation = {
        "zero": FolioZero(0),
        "copy": FolioCopy(7, 1),
        "map": CmpxchgPte(2, 9, 0, mk_pte(1, PRESENT)),
    }[use]
    trace.step(1, operation, 0 if use == "map" else None)
    assert trace.rules == [REUSED]


def test_a_policy_may_flush_between_allocation_and_use() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, FolioPut(1), True)
    trace.step(1, AllocPages(0, 0, 0, 0), 1)
    trace.shootdown(1)
    trace.step(1, FolioZero(1))
    assert not trace.rules


def test_the_reuser_must_know_of_the_flush() -> None:
    trace = Trace()
    trace.unmap()
    # CPU 1 flushes because it was asked to, but CPU 0 does not wait for it.
    trace.step(0, FlushTlb())
    trace.step(0, SendIpi((1,), "f", (), True), 1)
    batch = (IpiRequest(0, 1, "f", (), True, 0),)
    trace.check.happened(Transition(Kind.INTERRUPT, 1), None, False, batch)
    trace.step(1, FlushTlb())
    reuse(trace)
    assert trace.rules == [REUSED]


def test_a_flush_that_knows_nothing_of_the_retirement_does_not_count() -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(1, FlushTlb())
    trace.step(1, AtomicAdd("x", 1), 1)
    trace.step(0, AtomicAdd("x", 1), 2)
    reuse(trace)
    assert trace.rules == [REUSED]


@pytest.mark.parametrize("vpn", [VPN, VPN + 1])
def test_a_single_page_flush_is_of_that_page(vpn: int) -> None:
    trace = Trace()
    trace.unmap()
    trace.shootdown(0, FlushTlbOne(vpn))
    reuse(trace)
    assert trace.rules == ([] if vpn == VPN else [REUSED])


@pytest.mark.parametrize(
    ("leaving", "known"),
    [
        ((AtomicAnd(cpumask_word(1), 0b01),), True),
        ((Store(is_lazy_word(1), 1),), True),
        ((LoadCr3(1, 2, True),), False),  # it does not know why it flushes
        ((LoadCr3(2, 2, True),), False),
    ],
)
def test_who_stops_using_the_address_space_need_not_flush(leaving: Sequence[Operation], known: bool) -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FlushTlb())
    for operation in leaving:
        trace.step(1, operation, 3)
    trace.step(0, Load(cpumask_word(1)), 1)
    trace.step(0, Load(is_lazy_word(1)), 1)
    reuse(trace)
    assert trace.rules == ([] if known else [REUSED])


@pytest.mark.parametrize("barrier", [True, False])
@pytest.mark.parametrize("access", [ReadFrame(1, VPN, 1), WriteFrame(1, VPN, 1, 3)])
def test_going_lazy_is_told_by_a_plain_store(access: Operation, barrier: bool) -> None:
    """Where plain stores order nothing it may overtake the last accesses, if no barrier keeps them back."""
    trace = Trace(plain_orders=False)
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(1, access, 0)
    if barrier:
        trace.step(1, SmpMb())
    trace.step(1, Store(is_lazy_word(1), 1), issued=True)
    trace.check.happened(Transition(Kind.PERFORM, 1), Store(is_lazy_word(1), 1), False, None)
    trace.step(0, Load(is_lazy_word(1)), 1)
    trace.step(0, SmpRmb())
    reuse(trace)
    assert trace.rules == ([] if barrier else [REUSED])


@pytest.mark.parametrize("told", [True, False])
def test_coming_back_it_owes_what_the_generation_does_not_tell(told: bool) -> None:
    trace = Trace(mask=0b01)
    trace.unmap()
    trace.step(0, FlushTlb())
    if told:
        trace.step(0, AtomicAdd(tlb_gen_word(1), 1), 2)
    trace.step(1, AtomicOr(cpumask_word(1), 2), 1)
    trace.step(1, Load(tlb_gen_word(1)), 2)
    reuse(trace)
    assert trace.rules == ([] if told else [REUSED])


def test_what_a_generation_does_not_tell_is_part_of_the_state() -> None:
    """Everybody knows of the retirement, so nothing new can be learnt of it; but who comes back is judged by
    what the generation tells."""
    states = []
    for told in (True, False):
        trace = Trace(mask=0b01)
        trace.unmap()
        if told:
            trace.step(0, AtomicAdd(tlb_gen_word(1), 1), 2)
        trace.step(0, AtomicAdd("x", 1), 1)
        trace.step(1, AtomicAdd("x", 1), 2)
        states.append(trace.check.state())
    assert states[0] != states[1]


@pytest.mark.parametrize("entry", [RO, WRITABLE_1])
@pytest.mark.parametrize("done", ["nothing", "flushed here", "flushed everywhere"])
def test_a_flush_is_owed_at_the_end(entry: int, done: str) -> None:
    trace = Trace()
    trace.unmap(entry=entry)
    if done == "flushed here":
        trace.step(0, FlushTlb())
    elif done == "flushed everywhere":
        trace.shootdown()
    trace.check.finish()
    assert trace.rules == ([] if done == "flushed everywhere" else [OWED])


def test_nobody_need_know_of_a_flush_that_was_done() -> None:
    trace = Trace(mask=0b10)
    trace.unmap()
    trace.step(0, AtomicAdd("x", 1), 1)
    trace.step(1, AtomicAdd("x", 1), 2)
    trace.step(1, FlushTlb())
    trace.check.finish()
    assert trace.rules == []


@pytest.mark.parametrize("word", [tlb_gen_word(1), "migrc_gen"])
@pytest.mark.parametrize("barrier", [True, False])
def test_a_generation_read_without_a_barrier(word: str, barrier: bool) -> None:
    """The value of tlb_gen decides whether to flush; MIGRC's is only noted, and needs the barrier."""
    trace = Trace(plain_orders=False)
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(0, AtomicAdd(word, 1), 2)
    trace.step(1, Load(word), 2)
    if barrier:
        trace.step(1, SmpMb())
    trace.step(1, FlushTlb())
    trace.step(1, AtomicAdd("note", 1), 1)
    trace.step(0, AtomicAdd("note", 1), 2)
    reuse(trace)
    assert trace.rules == ([] if barrier or word == tlb_gen_word(1) else [REUSED])


@pytest.mark.parametrize("flushed", [True, False])
def test_the_destination_becomes_writable(flushed: bool) -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    if flushed:
        trace.shootdown()
    new = mk_pte(101, PRESENT | RW | DIRTY)
    # Another mapping of the page counts as well.
    trace.step(1, CmpxchgPte(2, 99, mk_pte(101, PRESENT), new), mk_pte(101, PRESENT))
    assert trace.rules == ([] if flushed else [WRITABLE])


def test_the_page_is_followed_from_copy_to_copy() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, TryToMigratePte(1, VPN, 101), mk_pte(101, PRESENT))
    trace.step(0, FolioCopy(101, 2))
    trace.step(0, FolioMigrateMapping(101, 2, 0), True)
    left = make_migration_entry(mk_pte(101, PRESENT))
    trace.step(0, CmpxchgPte(1, VPN, left, mk_pte(2, PRESENT | RW)), left)
    assert trace.rules == [WRITABLE, WRITABLE]


def test_a_frame_that_goes_out_again_is_not_the_page_any_more() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, XchgPte(1, VPN, 0), mk_pte(101, PRESENT))
    trace.step(0, FolioPut(101), True)
    trace.step(0, AllocPages(1, 0, 0, 0), 101)
    trace.step(0, FolioZero(101))
    trace.step(0, CmpxchgPte(1, VPN, 0, mk_pte(101, PRESENT)), 0)
    assert trace.rules == [REUSED, RANGE]


def test_a_migration_that_failed_leaves_nothing_to_wait_for() -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FolioCopy(1, 101))
    trace.step(0, FolioMigrateMapping(1, 101, 0), False)
    left = make_migration_entry(RO)
    trace.step(0, CmpxchgPte(1, VPN, left, RO), left)
    assert not trace.check.facts.retired
    trace.step(0, CmpxchgPte(1, VPN, RO, WRITABLE_1), RO)
    assert not trace.rules


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("entry", [RO, mk_pte(1, PRESENT | RW), WRITABLE_1])
def test_copying_what_may_still_be_written(entry: int, moves: bool, flushed: bool) -> None:
    trace = Trace()
    trace.unmap(0, entry)
    if flushed:
        trace.shootdown()
    trace.step(0, FolioCopy(1, 101))
    trace.step(0, FolioMigrateMapping(1, 101, 0), moves)
    # An entry that is not dirty cannot be written through without another walk.
    assert trace.rules == ([COPIED] if entry == WRITABLE_1 and moves and not flushed else [])


def test_a_hint_takes_the_right_to_write_away() -> None:
    trace = Trace()
    hint = mk_pte(1, PROTNONE | DIRTY)
    trace.step(0, CmpxchgPte(1, VPN, WRITABLE_1, hint), WRITABLE_1)
    trace.unmap(1, hint)
    trace.move(1, hint)
    assert trace.rules == [COPIED]


def test_a_hint_that_is_undone_is_none() -> None:
    trace = Trace()
    hint = mk_pte(1, PROTNONE | DIRTY)
    trace.step(0, CmpxchgPte(1, VPN, WRITABLE_1, hint), WRITABLE_1)
    trace.step(1, CmpxchgPte(1, VPN, hint, WRITABLE_1), hint)
    assert not trace.check.facts.retired


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("how", ["area", "entry", "store"])
def test_the_range_is_mapped_anew(how: str, flushed: bool) -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    if flushed:
        trace.shootdown()
    other = mk_pte(5, PRESENT)
    if how == "area":
        trace.step(0, VmaInsert(1, VPN - 1, VPN + 1, 0, 0), True)
    elif how == "entry":
        trace.step(0, CmpxchgPte(1, VPN, 0, other), 0)
    else:
        trace.step(0, SetPte(1, VPN, other), issued=True)
    assert trace.rules == ([] if flushed else [RANGE])


@pytest.mark.parametrize("known", [True, False])
def test_a_plain_store_retires_what_it_is_known_to_overwrite(known: bool) -> None:
    entries = {(1, VPN): RO} if known else {}
    check = GracePeriod(2, True, {1: 3}, lambda pfn: 0, entries)
    check.happened(Transition(Kind.STEP, 0), SetPte(1, VPN, 0), True, None)
    assert len(check.facts.retired) == known


def test_what_does_not_matter() -> None:
    assert relevant(None) and relevant(FlushTlb()) and relevant(MappedRange(1, 0, 1))
    assert not relevant(Cycle())


# --- the kernel ----------------------------------------------------------------------------------


def watch(machine: SmallMachine) -> GracePeriod:
    plain_orders = machine.cpus[0].window.architecture.plain_orders
    check = GracePeriod(len(machine.cpus), plain_orders, {}, machine.kernels[0].parameters.nid)
    machine.engine.watchers = (check,)
    return check


def test_marked_but_not_yet_hung() -> None:
    """As the posted hole, but nobody reads through the stale translation any more."""

    async def demoter(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        await mark("demoted")

    async def writer(cpu: PerCpu) -> None:
        await after("cached")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")

    machine = SmallMachine(
        Thread(0, demoter), Thread(1, writer), Thread(2, reader), cpus=3, policy=find_policy("migrc:v3")
    )
    check = watch(machine)
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.at(0, LlistAdd))
    machine.drive(1, machine.marked("written"))
    machine.run()
    assert not machine.rules
    assert [violation.rule for violation in check.violations] == [WRITABLE]


@pytest.mark.parametrize("policy", ["migrc:v3", "migrc:rfc2"])
def test_an_empty_list_does_not_mean_that_the_flush_is_done(policy: str) -> None:
    async def both(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        await mark("demoted")
        await user_write(cpu, HEAP, 55)

    async def writer(cpu: PerCpu) -> None:
        await after("demoted")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")

    machine = SmallMachine(
        Thread(0, both), Thread(1, writer), Thread(2, reader), cpus=3, policy=find_policy(policy)
    )
    check = watch(machine)
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.marked("demoted"))
    machine.drive(0, machine.at(0, SendIpi))
    machine.drive(1, machine.marked("written"))
    machine.run()
    assert not machine.rules
    assert [violation.rule for violation in check.violations] == [WRITABLE]


def test_rfc2_leaves_the_dirty_list() -> None:
    """It writes to a page on the dirty list after flushing the clean one only; no interleaving needed."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await demote(cpu, HEAP)
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        await user_read(cpu, HEAP)
        await mark("ready")
        await after("cached")
        await demote(cpu, HEAP)
        await mark("demoted")
        await after("other")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def late(cpu: PerCpu) -> None:
        await after("ready")
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")

    async def other(cpu: PerCpu) -> None:
        await after("demoted")
        await after("bystander")
        await user_read(cpu, HEAP)
        await demote(cpu, HEAP, mm=2)
        await mark("other")

    async def bystander(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 7)
        await mark("bystander")
        await after("written")

    machine = SmallMachine(
        Thread(0, body),
        Thread(1, late),
        Thread(2, other, mm=2),
        Thread(3, bystander, mm=2),
        cpus=4,
        policy=find_policy("migrc:rfc2"),
    )
    check = watch(machine)
    machine.run()
    assert not machine.rules
    assert [violation.rule for violation in check.violations] == [WRITABLE]


@pytest.mark.parametrize(
    ("policy", "holds"), [("immediate", True), ("migrc:v3", True), ("migrc:rfc2", False)]
)
def test_dirty_entry_made_inaccessible_while_its_flush_is_under_way(policy: str, holds: bool) -> None:
    async def scanner(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await demote(cpu, HEAP)
        await mark("demoted")
        await after("cached")
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)

    async def promoter(cpu: PerCpu) -> None:
        await after("cached")
        await user_read(cpu, HEAP)
        await mark("promoted")

    async def writer(cpu: PerCpu) -> None:
        await after("demoted")
        await user_write(cpu, HEAP, 2)
        await mark("cached")
        await after("promoted")

    machine = SmallMachine(
        Thread(0, scanner), Thread(1, promoter), Thread(2, writer), cpus=3, policy=find_policy(policy)
    )
    check = watch(machine)
    machine.drive(0, machine.marked("demoted"))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.at(0, SendIpi))
    machine.drive(1, machine.marked("promoted"))
    machine.run()
    assert not machine.rules
    assert [violation.rule for violation in check.violations] == ([] if holds else [COPIED])


@pytest.mark.parametrize("policy", [MigrcV3, MigrcRfc2])
@pytest.mark.parametrize(("bits", "holds"), [(3, False), (4, True)])
def test_a_counter_that_wraps(bits: int, holds: bool, policy: Callable[[int], Any]) -> None:
    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        await after("bystander")
        for page in range(1, 5):
            await user_read(cpu, HEAP + page)
            await demote(cpu, HEAP + page, mm=2)
        await demote(cpu, HEAP, mm=1)
        await cpu.policy.drain(cpu)
        # The frame that was freed last goes out first.
        await user_read(cpu, HEAP + 8)
        await mark("written")

    async def holder(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")

    async def bystander(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 7)
        await mark("bystander")
        await after("written")

    machine = SmallMachine(
        Thread(0, mover, 2), Thread(1, holder), Thread(2, bystander, 2), cpus=3, policy=lambda: policy(bits)
    )
    check = watch(machine)
    machine.run()
    assert not machine.rules
    assert [violation.rule for violation in check.violations] == ([] if holds else [REUSED])


# --- random schedules ----------------------------------------------------------------------------------


def one_page(writable: bool = False, node: int = 0) -> Callable[[Setup], None]:
    def setup(start: Setup) -> None:
        start.area(VPN, 4)
        start.page(VPN, node=node, writable=writable, dirty=writable)
        start.page(VPN + 1, writable=True, dirty=True)
        for cpu in range(start.cpus):
            start.cache(cpu, VPN)
            start.cache(cpu, VPN + 1)

    return setup


def two_files(start: Setup) -> None:
    start.area(VPN, 4, file=1)
    pfn = start.page(VPN, exclusive=False)
    start.in_page_cache(pfn, 1, 0)
    for cpu in range(start.cpus):
        start.cache(cpu, VPN)


async def demoter(cpu: PerCpu) -> None:
    if await FolioIsolateLru(1):
        _, failed = await migrate_pages(cpu, [1], SLOW, MR_NUMA_MISPLACED)
        for pfn in failed:
            await FolioPutbackLru(pfn, False)


async def scanner(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, VPN, VPN + 2)


async def reader(cpu: PerCpu) -> None:
    await user_read(cpu, VPN)
    await user_read(cpu, VPN + 1)


async def writer(cpu: PerCpu) -> None:
    await user_write(cpu, VPN, cpu.new_version())
    await user_write(cpu, VPN + 1, cpu.new_version())


async def remapper(cpu: PerCpu) -> None:
    await VmaRemove(MM, VPN + 1, VPN + 2)
    await unmap_page_range(cpu, MM, VPN + 1, VPN + 2)
    await VmaInsert(MM, VPN + 1, VPN + 2, VM_READ | VM_WRITE, 0)
    await user_write(cpu, VPN + 1, 5)


async def short_reader(cpu: PerCpu) -> None:
    await user_read(cpu, VPN)
    await user_read(cpu, VPN)


async def copier(cpu: PerCpu) -> None:
    await user_write(cpu, VPN, cpu.new_version())
    await user_read(cpu, VPN)


LITMUS = {
    "demotion": Litmus("demotion", "", (demoter, reader), one_page(), (), speculated=(VPN,)),
    "demotion of a dirty page": Litmus("dirty", "", (demoter, writer, reader), one_page(True), ()),
    "write fault": Litmus("write", "", (demoter, writer, writer), one_page(), (), speculated=(VPN,)),
    "promotion": Litmus("promotion", "", (scanner, reader, writer), one_page(True, SLOW), ()),
    "munmap": Litmus("munmap", "", (remapper, short_reader, demoter), one_page(), (), fast=3),
    "copy on write": Litmus("cow", "", (copier, copier, demoter), two_files, ()),
    "reuse": Litmus("reuse", "", (demoter, short_reader, remapper), one_page(), (), fast=2),
}
# What is wrong with the postings shows in these, and nowhere else.
HOLES = {("migrc:v3", WRITABLE), ("migrc:rfc2", WRITABLE), ("migrc:rfc2", COPIED)}


def start(name: str, architecture: str, policy: str) -> tuple[Any, GracePeriod]:
    machine = LitmusMachine(LITMUS[name], ARCHITECTURES[architecture], find_policy(policy))
    cpus = LITMUS[name].cpus
    entries = {(MM, vpn): pte for vpn, pte in machine.memory().page_tables.mm(MM).entries.items()}
    plain_orders = ARCHITECTURES[architecture].plain_orders
    check = GracePeriod(cpus, plain_orders, machine.masks(), machine.parameters.nid, entries)
    return machine.engine((check,)), check


def choose(engine: Any, rng: random.Random, order: list[int], chance: float) -> bool:
    possible = engine.transitions()
    if not possible:
        assert engine.finished(), engine.deadlock()
        return False
    if rng.random() < chance:
        rng.shuffle(order)
    first = min(order.index(transition.cpu) for transition in possible)
    engine.take(rng.choice([transition for transition in possible if transition.cpu == order[first]]))
    return True


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
@pytest.mark.parametrize("name", LITMUS)
@ARCHES
def test_random_schedules(architecture: str, name: str, policy: str) -> None:
    found = set()
    for seed in range(150 if policy == "immediate" else 60):
        rng = random.Random(seed)
        engine, check = start(name, architecture, policy)
        order = list(range(len(engine.cpus)))
        while choose(engine, rng, order, (1.0, 0.2, 0.05)[seed % 3]):
            pass
        # What coherence sees this sees too, in the same run.
        assert check.violations or not engine.observers[0].violations
        found |= {(policy, violation.rule) for violation in check.violations}
    assert found <= HOLES
    if policy == "immediate":
        assert not found


class Twice:
    """Two checks told the same; the second is thrown away and put back from its state now and then."""

    def __init__(self, first: GracePeriod, make: Callable[[], GracePeriod], rng: random.Random) -> None:
        self.first = first
        self.second = make()
        self.make = make
        self.rng = rng
        self.violations: list[Any] = []

    def happened(self, transition: Transition, operation: Any, issued: bool, answer: Any) -> None:
        if self.rng.random() < 0.1:
            state = self.second.state()
            hash(state)
            again = self.make()
            again.restore(state)
            assert again.state() == state
            again.violations = self.second.violations
            self.second = again
        for check in (self.first, self.second):
            check.happened(transition, operation, issued, answer)
        assert self.second.violations == self.first.violations
        assert self.second.state() == self.first.state()


@pytest.mark.parametrize("name", LITMUS)
@ARCHES
def test_going_on_from_a_state_judges_the_same(architecture: str, name: str) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        engine, check = start(name, architecture, ("migrc:rfc2", "migrc:v3")[seed % 2])
        engine.watchers = (Twice(check, lambda: start(name, architecture, "immediate")[1], rng),)
        order = list(range(len(engine.cpus)))
        while choose(engine, rng, order, 0.2):
            pass


ACTIONS = ("read", "write", "demote", "promote", "hint")


def busy_machine(seed: int, architecture: str) -> SmallMachine:
    """Threads of two address spaces share a CPU, so that it goes lazy, leaves and comes back."""
    cpus = 2 + seed % 2
    threads = [
        Thread(number % cpus, random_body(seed, 4, ACTIONS, 2), mm=1 + number // 2)
        for number in range(cpus + 1)
    ]
    return SmallMachine(*threads, cpus=cpus, architecture=architecture, fast=(8, 64)[seed % 2])


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_mainline_with_lazy_cpus(architecture: str) -> None:
    for seed in range(150):
        machine = busy_machine(seed, architecture)
        check = watch(machine)
        machine.run(seed)
        assert not check.violations


@pytest.mark.parametrize("with_barriers", [True, False])
def test_lazy_mode_needs_barriers_where_plain_accesses_order_nothing(
    with_barriers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x86 goes lazy by a plain store and skips by a plain load. Elsewhere the last accesses before have to be
    kept from passing the store, and the copying after from passing the load."""
    if not with_barriers:
        monkeypatch.setattr(sched, "SmpMb", Cycle)
        monkeypatch.setattr(smp, "SmpRmb", Cycle)
    for seed in range(150 if with_barriers else 3_000):
        machine = busy_machine(seed, "riscv")
        check = watch(machine)
        machine.run(seed)
        if check.violations:
            assert not with_barriers, (seed, check.violations[0])
            return
    assert with_barriers


# --- the page cache --------------------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("entry", [RO, WRITABLE_1], ids=["read-only", "writable"])
def test_a_page_is_written_out(entry: int, flushed: bool) -> None:
    """Whoever still has it writable may write after that; who has it read-only may not."""
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), entry)
    if flushed:
        trace.shootdown()
    trace.step(0, WritePage(7, 0, 1))
    assert trace.rules == ([] if flushed or entry == RO else [WRITTEN_OUT])
    trace.step(0, WritePage(7, 0, 1))
    assert len(trace.rules) <= 1, "one missing flush is reported once"


@pytest.mark.parametrize("flushed", [True, False])
def test_where_transitions_are_numbered_a_report_names_both_sides(flushed: bool) -> None:
    trace = Trace()
    number = 40
    trace.check.sides = Sides(2, lambda: number)
    trace.unmap()
    trace.step(0, FlushTlb())
    number = 41
    if flushed:
        # By luck: nobody has told CPU 0 of it.
        trace.step(1, FlushTlb())
    number = 50
    trace.step(0, CmpxchgPte(1, VPN, make_migration_entry(RO), 0), make_migration_entry(RO))
    trace.step(0, AllocPages(0, 0, 0, 0), 1)
    trace.step(0, FolioZero(1))
    (report,) = trace.check.violations
    last = "CPU 1 has last flushed in 41" if flushed else "CPU 1 has not flushed at all"
    assert report.text.endswith(f"(CPU 0 in transition 50, retired by TryToMigratePte in 40, {last})")


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("mm", [1, 2], ids=["the same mm", "another mm"])
@pytest.mark.parametrize("flags", [RW | DIRTY | EXCLUSIVE, RW | DIRTY, DIRTY | EXCLUSIVE])
def test_a_page_that_gets_shared_is_read_on_the_other_side(flags: int, mm: int, flushed: bool) -> None:
    """fork: only what was writable and one mm's alone may not be written behind the other's back."""
    trace = Trace()
    entry = mk_pte(1, PRESENT | flags)
    trace.step(0, CmpxchgPte(1, VPN, entry, entry & ~(RW | EXCLUSIVE)), entry)
    trace.step(0, SetPte(2, VPN, RO))
    if flushed:
        trace.shootdown()
    trace.step(0, Walk(mm, VPN, False), 0)
    assert not trace.rules, "a page fault reads nothing"
    trace.step(0, Walk(mm, VPN + 1, False), mk_pte(2, PRESENT))
    assert not trace.rules, "another frame"
    broken = flags == RW | DIRTY | EXCLUSIVE and mm == 2 and not flushed
    for _ in range(2):
        trace.step(0, Walk(mm, VPN, False), RO)
        assert trace.rules == ([SHARED] if broken else []), "once"


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("slot", [(7, 0), (7, 1)], ids=["its slot", "another"])
def test_a_truncated_page_s_slot_is_refilled(slot: tuple[int, int], flushed: bool) -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    if flushed:
        trace.shootdown()
    trace.step(0, FilemapRemove(7, 0, 1, 0), True)
    trace.step(1, FilemapAdd(*slot, 2), -1)
    assert trace.rules == ([] if flushed or slot != (7, 0) else [REFILLED])


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("flags", [PRESENT, PRESENT | RW], ids=["read-only", "writable"])
def test_a_reclaimed_page_is_read_in_again(flags: int, flushed: bool) -> None:
    """The old frame is a read copy of the new one until somebody may write there."""
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 2), True)
    trace.step(0, FilemapAdd(7, 0, 2), -1)
    if flushed:
        trace.shootdown()
    trace.step(0, CmpxchgPte(1, VPN, 0, mk_pte(2, flags)), 0)
    assert trace.rules == ([] if flushed or flags == PRESENT else [WRITABLE])


def test_a_folio_that_stays_in_the_cache_is_not_refilled() -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 2), False)
    trace.step(0, FilemapAdd(7, 0, 2), 1)
    trace.step(0, CmpxchgPte(1, VPN, 0, RO), 0)
    assert not trace.rules


def test_the_page_cache_s_part_of_the_state_is_put_back() -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, FilemapRemove(7, 0, 1, 0), True)
    kept = trace.check.state()
    trace.step(0, FilemapAdd(7, 0, 2), -1)
    assert trace.rules == [REFILLED]
    other = Trace()
    other.check.restore(kept)
    other.step(0, FilemapAdd(7, 0, 2), -1)
    assert other.rules == [REFILLED]
