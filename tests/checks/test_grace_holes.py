"""The holes of the postings are reported in the kernel even if nobody steps into them.

Each test drives the small machine along one way; coherence sees nothing in it, the grace-period check does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator.checks.grace_period import (
    COPIED,
    REUSED,
    WRITABLE,
)
from emulator.hardware.operations import (
    LlistAdd,
    SendIpi,
)
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from tests.checks.grace_lab import watch
from tests.kernel.small_machine import FILE, HEAP, SmallMachine, Thread, after, demote, mark


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
        Thread(0, demoter), Thread(1, writer), Thread(2, reader), cpus=3, policy=POLICIES["migrc:v3"]
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
    """Two pages of two page tables: the fault on each holds its own lock."""

    async def both(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, HEAP, FILE) == 2
        await mark("demoted")
        await user_write(cpu, FILE, 55)

    async def writer(cpu: PerCpu) -> None:
        await after("demoted")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await user_read(cpu, FILE)
        await mark("cached")
        await after("written")

    machine = SmallMachine(
        Thread(0, both), Thread(1, writer), Thread(2, reader), cpus=3, policy=POLICIES[policy]
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
        policy=POLICIES["migrc:rfc2"],
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
        Thread(0, scanner), Thread(1, promoter), Thread(2, writer), cpus=3, policy=POLICIES[policy]
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
