"""Coherence where one frame is copied more than once.

A migration beside a copy-on-write, two children, a migration tried again, a destination that moves on: each
order of events is given by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emulator.checks import coherence
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import parse_schedule, replay
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FolioCopy,
    FolioPut,
    FolioZero,
    Operation,
    ReadFrame,
    SetPte,
    Store,
    TryToMigratePte,
    WaitFor,
    WriteFrame,
    XchgPte,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import PRESENT, RW, make_migration_entry, mk_pte
from emulator.kernel.fork import dup_mmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Litmus, LitmusMachine, Setup
from emulator.machine.referee import Referee
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from emulator.policies.immediate import Immediate
from scenarios.history import TESTS
from scenarios.litmus import LITMUS
from scenarios.mistakes.before_fixes import LosesTheDirtyBit

PAGE = 0x10
PARENT, CHILD, BROTHER = 1, 2, 3
MOVER, COPIER = 0, 1
SRC, DST, COPY, OTHER = 1, 2, 3, 4


class Machine:
    """Memory of six frames with the check beside it. Frame 1 holds version 7 and is the parent's page."""

    def __init__(self, free_copies: bool = False) -> None:
        self.memory = Memory((Tier(6, Watermarks(0, 0, 0)),))
        self.check = coherence.Coherence(self.memory, free_copies)
        assert {self.step(AllocPages(0, 0, 0, 0)) for _ in range(6)} > {SRC, DST, COPY, OTHER}
        self.step(SetPte(PARENT, PAGE, mk_pte(SRC, PRESENT)))
        self.memory.folios.content[SRC] = 7

    def step(self, operation: Operation, cpu: int = MOVER) -> Any:
        # What frees and what maps is given by hand; reference counts are another check's.
        answer = self.memory.execute(cpu, operation)
        self.check.observe(cpu, operation, answer)
        return answer

    def unmap(self, src: int, mm: int = PARENT) -> int:
        return make_migration_entry(self.step(TryToMigratePte(mm, PAGE, src)))

    def arrive(self, left: int, dst: int, mm: int = PARENT, flags: int = PRESENT) -> None:
        assert self.step(CmpxchgPte(mm, PAGE, left, mk_pte(dst, flags))) == left

    def move(self, src: int, dst: int, mm: int = PARENT) -> None:
        left = self.unmap(src, mm)
        self.step(FolioCopy(src, dst))
        self.arrive(left, dst, mm)

    def copy_on_write(self, mm: int, src: int, dst: int) -> None:
        self.step(FolioCopy(src, dst), COPIER)
        self.step(XchgPte(mm, PAGE, 0), COPIER)
        self.step(SetPte(mm, PAGE, mk_pte(dst, PRESENT | RW)), COPIER)

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.check.violations]


@pytest.fixture(params=[False, True], ids=["kept", "freed at once"])
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(request.param)


@pytest.mark.parametrize("when", ["before the copy", "after the copy", "after the move"])
def test_a_child_copies_what_a_migration_copies_too(machine: Machine, when: str) -> None:
    """The child's copy is not the parent's new place: the parent's stale read is in order."""
    machine.step(SetPte(CHILD, PAGE, mk_pte(SRC, PRESENT)))
    left = machine.unmap(SRC)
    if when == "before the copy":
        machine.copy_on_write(CHILD, SRC, COPY)
    machine.step(FolioCopy(SRC, DST))
    if when == "after the copy":
        machine.copy_on_write(CHILD, SRC, COPY)
    machine.arrive(left, DST)
    if when == "after the move":
        machine.copy_on_write(CHILD, SRC, COPY)
    machine.step(WriteFrame(CHILD, PAGE, COPY, 13))
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    machine.step(ReadFrame(PARENT, PAGE, DST))
    machine.step(ReadFrame(CHILD, PAGE, COPY))
    assert machine.rules == []
    machine.step(ReadFrame(CHILD, PAGE, SRC))
    assert machine.rules == [coherence.OVERWRITTEN]
    # Its brother's frame was never the page's, the same version or not.
    machine.step(ReadFrame(PARENT, PAGE, COPY))
    assert machine.rules == [coherence.OVERWRITTEN, coherence.FOREIGN]


def test_two_children_copy_one_page(machine: Machine) -> None:
    for mm in (CHILD, BROTHER):
        machine.step(SetPte(mm, PAGE, mk_pte(SRC, PRESENT)))
    machine.copy_on_write(CHILD, SRC, COPY)
    machine.copy_on_write(BROTHER, SRC, OTHER)
    for mm in (CHILD, BROTHER):
        machine.step(ReadFrame(mm, PAGE, SRC))
    assert machine.rules == []
    machine.step(ReadFrame(CHILD, PAGE, OTHER))
    assert machine.rules == [coherence.FOREIGN]
    machine.step(WriteFrame(BROTHER, PAGE, OTHER, 14))
    machine.step(ReadFrame(CHILD, PAGE, SRC))
    machine.step(ReadFrame(BROTHER, PAGE, SRC))
    assert machine.rules == [coherence.FOREIGN, coherence.OVERWRITTEN]


def test_a_copy_for_a_write_takes_nothing_over(machine: Machine) -> None:
    """A writable translation may be used until the migration's own copy, whoever copies the page before."""
    machine.step(SetPte(CHILD, PAGE, mk_pte(SRC, PRESENT)))
    left = machine.unmap(SRC)
    machine.step(FolioCopy(SRC, COPY), COPIER)
    machine.step(WriteFrame(PARENT, PAGE, SRC, 8), COPIER)
    assert machine.rules == []
    machine.step(FolioCopy(SRC, DST))
    machine.step(WriteFrame(PARENT, PAGE, SRC, 9), COPIER)
    assert machine.rules == [coherence.LOST_WRITE]
    machine.arrive(left, DST)
    assert machine.rules == [coherence.LOST_WRITE, coherence.CONTENT]


def test_copied_again_after_a_migration_that_failed(machine: Machine) -> None:
    left = machine.unmap(SRC)
    machine.step(FolioCopy(SRC, DST))
    machine.arrive(left, SRC, flags=PRESENT | RW)
    machine.step(WriteFrame(PARENT, PAGE, SRC, 8))
    left = machine.unmap(SRC)
    machine.step(WriteFrame(PARENT, PAGE, SRC, 9))  # by what is cached still
    machine.step(FolioCopy(SRC, OTHER))
    machine.arrive(left, OTHER)
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    assert machine.rules == []
    # What the failed attempt copied is nobody's.
    machine.step(ReadFrame(PARENT, PAGE, DST))
    assert machine.rules == [coherence.FOREIGN]
    machine.step(WriteFrame(PARENT, PAGE, OTHER, 10))
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    assert machine.rules == [coherence.FOREIGN, coherence.OVERWRITTEN]


@pytest.mark.parametrize("reused", [False, True], ids=["kept", "the place between is reused"])
def test_a_destination_moves_on(machine: Machine, reused: bool) -> None:
    machine.move(SRC, DST)
    machine.copy_on_write(CHILD, DST, COPY)
    machine.move(DST, OTHER)
    if reused:
        machine.step(FolioZero(DST))
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    machine.step(ReadFrame(CHILD, PAGE, SRC))
    assert machine.rules == []
    machine.step(ReadFrame(PARENT, PAGE, DST))
    assert machine.rules == ([coherence.FOREIGN] if reused else [])
    machine.check.violations.clear()
    machine.step(FolioZero(SRC))
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    assert machine.rules == [coherence.FOREIGN]
    machine.check.violations.clear()
    machine.step(WriteFrame(PARENT, PAGE, DST, 8))
    assert machine.rules == [coherence.LOST_WRITE]


@pytest.mark.parametrize("reused", [False, True])
def test_zapped_while_it_moves_and_freed_before_its_flush(reused: bool) -> None:
    machine = Machine(free_copies=True)
    machine.unmap(SRC)
    machine.step(FolioCopy(SRC, DST))
    machine.step(XchgPte(PARENT, PAGE, 0), COPIER)  # munmap meets the migration entry
    machine.step(FolioPut(SRC))
    if reused:
        assert machine.step(AllocPages(0, 0, 0, 0)) == SRC
        machine.step(FolioZero(SRC))
        machine.step(FolioPut(SRC))
    # The flush of the munmap is still to come: until then the frame may be read as it was.
    machine.step(ReadFrame(PARENT, PAGE, SRC), COPIER)
    assert machine.rules == ([coherence.FREE] if reused else [])


def test_the_state_is_all_that_it_judges_by(machine: Machine) -> None:
    machine.step(SetPte(CHILD, PAGE, mk_pte(SRC, PRESENT)))
    machine.unmap(SRC)
    machine.copy_on_write(CHILD, SRC, COPY)
    kept = machine.check.state()
    other = coherence.Coherence(machine.memory, machine.check._free_copies)
    other.restore(kept)
    assert other.state() == kept
    machine.check = other
    machine.step(FolioCopy(SRC, DST))
    machine.step(WriteFrame(PARENT, PAGE, SRC, 9), COPIER)
    machine.step(ReadFrame(CHILD, PAGE, SRC))
    assert machine.rules == [coherence.LOST_WRITE, coherence.OVERWRITTEN]


def test_fork_while_moving_as_it_was_found() -> None:
    """The child takes its copy between the copy of the migration and the check of references."""
    # Without the locks that faults hold, as it was then.
    test = replace(LITMUS["fork-while-moving"], settings=(("fault_locks", False),))
    machine = LitmusMachine(test, ARCHITECTURES["sc"], POLICIES["migrc:v3"])
    explorer = Referee(machine)
    assert replay(explorer, parse_schedule("0*6 1*24 i0 0*7 1*4 0*17 2*41 0*8 1*3")) is None


# --- a child that reads a stale frame indeed ----------------------------------------------------------


def _shared_page(setup: Setup) -> None:
    for cpu in (1, 2):
        setup.load(cpu, CHILD)
    setup.area(PAGE, 1)
    setup.page(PAGE, version=7)


async def _forks(cpu: PerCpu) -> None:
    await dup_mmap(cpu, MM, CHILD, ((PAGE, PAGE + 1),))
    await Store("forked", 1)
    await user_write(cpu, PAGE, 11)


async def _child_writes(cpu: PerCpu) -> None:
    await WaitFor("forked", 1)
    await user_write(cpu, PAGE, 13)


async def _child_reads_twice(cpu: PerCpu) -> None:
    await WaitFor("forked", 1)
    await user_read(cpu, PAGE)
    await user_read(cpu, PAGE)


CHILD_WITH_TWO_THREADS = Litmus(
    "two threads of a child", "?", (_forks, _child_writes, _child_reads_twice), _shared_page, (), frugal=False
)


@pytest.mark.parametrize("flushes", [True, False])
def test_a_childs_stale_frame_is_still_found(monkeypatch: pytest.MonkeyPatch, flushes: bool) -> None:
    """Copy-on-write without its flush: the child's other thread reads the parent's frame after the write."""

    async def forgets(*arguments: object) -> None:
        return

    if not flushes:
        monkeypatch.setattr(Policy, "flush_changed", forgets)
    machine = LitmusMachine(CHILD_WITH_TWO_THREADS, ARCHITECTURES["sc"], POLICIES["immediate"])
    # Judged by coherence alone: happens-before would speak first.
    monkeypatch.setattr(machine, "watchers", lambda memory=None: ())
    tally = search(LearnedMachine(machine), find_strategy("portfolio")(), 1, Limits(500), lambda: False)
    rule = tally.violation.rule if tally.violation else None
    assert rule == (None if flushes else coherence.OVERWRITTEN)
    if not flushes:
        assert replay(Referee(machine), tally.schedule) == tally.violation


def test_a_dirty_bit_that_is_lost_is_told_when_its_page_goes() -> None:
    test = TESTS["migrate-vma-dirty"]
    for policy, found in ((LosesTheDirtyBit, coherence.DROPPED), (Immediate, None)):
        machine = LitmusMachine(test, ARCHITECTURES["sc"], policy)
        broken = search(Referee(machine), find_strategy("random")(), 1, Limits(2), lambda: False).violation
        assert (broken.rule if broken else None) == found


def test_a_frame_that_was_freed_before_its_flush_may_be_read_and_not_written() -> None:
    machine = Machine(free_copies=True)
    machine.move(SRC, DST)
    machine.memory.folios.folios[SRC].rmap.clear()
    assert machine.step(FolioPut(SRC))
    machine.step(ReadFrame(PARENT, PAGE, SRC))
    assert not machine.rules
    machine.step(WriteFrame(PARENT, PAGE, SRC, 8))
    assert machine.rules[0] == coherence.FREE


@pytest.mark.parametrize("arrives", [True, False])
def test_what_was_written_to_a_frame_before_it_was_a_destination_excuses_nothing(arrives: bool) -> None:
    machine = Machine()
    machine.step(SetPte(CHILD, PAGE, mk_pte(DST, PRESENT | RW)))
    machine.step(WriteFrame(CHILD, PAGE, DST, 9))
    machine.step(XchgPte(CHILD, PAGE, 0))
    left = machine.unmap(SRC)
    machine.step(FolioCopy(SRC, DST))
    if not arrives:
        machine.memory.folios.content[DST] = 5
    machine.arrive(left, DST)
    assert machine.rules == ([] if arrives else [coherence.CONTENT])
