"""What is wrong with MIGRC as posted, each as the shortest interleaving that shows it.

These are findings about the patches, reproduced on purpose: a stale translation is used after the
page has changed, or to change it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.checks.coherence import FREE, LOST_WRITE, OVERWRITTEN
from emulator.hardware.operations import LlistAdd, ReadFrame, SendIpi
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from tests.kernel.small_machine import FILE, HEAP, SmallMachine, Thread, after, demote, mark

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])


async def reader(cpu: PerCpu) -> None:
    """Caches the translation early and uses it late."""
    await user_read(cpu, HEAP)
    await mark("cached")
    await after("written")
    await user_read(cpu, HEAP)


async def bystander(cpu: PerCpu) -> None:
    """Keeps the mm loaded on another CPU: only then is the flush of a migration put off to a batch."""
    await user_read(cpu, HEAP + 7)
    await mark("bystander")
    await after("written")


async def demoter(cpu: PerCpu) -> None:
    await after("cached")
    assert await demote(cpu, HEAP) == 1
    await mark("demoted")


async def writer(cpu: PerCpu) -> None:
    await after("cached")
    await user_write(cpu, HEAP, 77)
    await mark("written")


@PROCESSORS
def test_v3_marked_but_not_yet_hung(architecture: str) -> None:
    """Mapped at its destination, its request still private: a writer finds nothing to flush.

    CPU 0 demotes             CPU 1 writes                      CPU 2 has the source cached
    map dst read-only
                              flag set: clear it, flush: empty
                              make dst writable, write
                                                                read src
    hang the request
    """
    machine = SmallMachine(
        Thread(0, demoter),
        Thread(1, writer),
        Thread(2, reader),
        cpus=3,
        architecture=architecture,
        policy=POLICIES["migrc:v3"],
    )
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.at(0, LlistAdd))
    machine.drive(1, machine.marked("written"))
    machine.drive(2, machine.at(2, ReadFrame))
    machine.run()
    assert OVERWRITTEN in machine.rules


@PROCESSORS
@pytest.mark.parametrize("policy", ["migrc:v3", "migrc:rfc2"])
def test_an_empty_list_does_not_mean_that_the_flush_is_done(policy: str, architecture: str) -> None:
    """One writer has taken the list and is about to flush; another finds it empty and goes on. (Two pages of
    two page tables: a fault holds the lock of its own while it flushes.)

    CPU 0                     CPU 1 writes                      CPU 2 has the source cached
    writes another page:
    take the list
                              nothing pending: write
                                                                read src
    send the IPIs
    """

    async def both(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        assert await demote(cpu, HEAP, FILE) == 2
        await mark("demoted")
        await user_write(cpu, FILE, 55)

    machine = SmallMachine(
        Thread(0, both), Thread(1, writer), Thread(2, reader), cpus=3, architecture=architecture,
        policy=POLICIES[policy],
    )  # fmt: skip
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.marked("demoted"))
    machine.drive(0, machine.at(0, SendIpi))
    machine.drive(1, machine.marked("written"))
    machine.drive(2, machine.at(2, ReadFrame))
    machine.run()
    assert OVERWRITTEN in machine.rules


@PROCESSORS
def test_rfc2_flushes_the_dirty_list_only_if_the_clean_one_was_empty(architecture: str) -> None:
    """`ret = ret || flush(dirty)`. No interleaving needed: another mm's clean page was deferred as well.

    CPU 0 writes to a page that waits on the dirty list; the clean list is not empty, so only that one is
    flushed, and CPU 1 keeps the dirty page's old translation.
    """

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

    async def other(cpu: PerCpu) -> None:
        await after("demoted")
        await after("bystander")
        await user_read(cpu, HEAP)
        await demote(cpu, HEAP, mm=2)
        await mark("other")

    async def late(cpu: PerCpu) -> None:
        await after("ready")
        await reader(cpu)

    machine = SmallMachine(
        Thread(0, body),
        Thread(1, late),
        Thread(2, other, mm=2),
        Thread(3, bystander, mm=2),
        cpus=4,
        architecture=architecture,
        policy=POLICIES["migrc:rfc2"],
    ).run()
    assert OVERWRITTEN in machine.rules


@PROCESSORS
@pytest.mark.parametrize(
    ("policy", "holds"), [("immediate", True), ("migrc:v3", True), ("migrc:rfc2", False)]
)
def test_dirty_writable_entry_cached_while_its_page_is_made_inaccessible(
    policy: str, holds: bool, architecture: str
) -> None:
    """The entry is PROT_NONE, dirty and not writable, but its flush has not been sent: a CPU still writes.

    CPU 0 scans               CPU 1 faults, promotes            CPU 2 has it writable and dirty
    entry = PROT_NONE
                              not writable: rfc2 defers
                              copy to dst
                                                                write src
    flush
    """

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

    async def late_writer(cpu: PerCpu) -> None:
        await after("demoted")
        await user_write(cpu, HEAP, 2)
        await mark("cached")
        await after("promoted")
        await user_write(cpu, HEAP, 3)
        await mark("late")

    machine = SmallMachine(
        Thread(0, scanner),
        Thread(1, promoter),
        Thread(2, late_writer),
        cpus=3,
        architecture=architecture,
        policy=POLICIES[policy],
    )
    machine.drive(0, machine.marked("demoted"))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.at(0, SendIpi))
    machine.drive(1, machine.marked("promoted"))
    machine.drive(2, machine.marked("late"))
    machine.run()
    assert (LOST_WRITE not in machine.rules) == holds
    if holds:
        assert not machine.violations


@PROCESSORS
@pytest.mark.parametrize("policy", [MigrcV3, MigrcRfc2])
@pytest.mark.parametrize(("bits", "holds"), [(3, False), (4, True), (32, True)])
def test_a_cpu_that_has_not_flushed_for_half_the_range_is_skipped(
    bits: int, holds: bool, policy: Callable[[int], Policy], architecture: str
) -> None:
    """Another process' migrations count as well: after four of them 3 bits take CPU 1 for flushed."""

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        await after("bystander")
        for page in range(1, 5):
            await user_read(cpu, HEAP + page)
            await demote(cpu, HEAP + page, mm=2)
        await demote(cpu, HEAP, mm=1)
        await cpu.policy.drain(cpu)
        await mark("written")

    machine = SmallMachine(
        Thread(0, mover, 2),
        Thread(1, reader),
        Thread(2, bystander, 2),
        cpus=3,
        architecture=architecture,
        policy=lambda: policy(bits),
    ).run()
    assert machine.rules == (set() if holds else {FREE})
