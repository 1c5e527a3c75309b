"""The runtime switch is turned off while requests are pending: no more deferral, and nothing gets lost."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, Litmus, Setup
from emulator.policies.migrc_v3 import MigrcV3
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    OTHER,
    PAGE,
    REUSED,
    STALE,
    VERSION,
    WRITE_FAULTS,
    move,
    never,
    read,
    reuse,
    sometimes,
)


def _two_pages(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.page(OTHER, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)
        setup.cache(cpu, OTHER)


async def _mover(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await move(cpu, 2)
    await reuse(cpu, FAST)


async def _switches_off(cpu: PerCpu) -> None:
    assert isinstance(cpu.policy, MigrcV3)
    await cpu.policy.set_enabled(cpu, False)
    await read(cpu)
    await read(cpu, OTHER)


# CPU 0                             CPU 1 has both pages cached
# demote 1, deferred
#                                   turn it off
# demote 2: flushed at once
# needs memory: what is pending
# has to be flushed all the same
#                                   read both
SWITCH = Litmus(
    name="switched-off-while-pending",
    question="Is everything flushed and freed when the switch is turned off while requests are pending?",
    programs=(_mover, _switches_off),
    setup=_two_pages,
    expected=(never("migrc:v3", DEFERRED, REUSED, STALE),),
    fast=2,
    slow=3,
    only=MigrcV3,
)


async def _mover_and_writer(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await user_write(cpu, PAGE, 11)


async def _switches_off_and_reads(cpu: PerCpu) -> None:
    assert isinstance(cpu.policy, MigrcV3)
    await cpu.policy.set_enabled(cpu, False)
    await read(cpu)


# CPU 0                             CPU 1 has the page cached
# demote, deferred
#                                   turn it off
# fault: off, but still pending
# flush
#                                   read the source, until the interrupt comes
# write
SWITCH_AND_WRITE = Litmus(
    name="switched-off-before-write",
    question="Does a write fault still flush for what is pending when the switch has been turned off?",
    programs=(_mover_and_writer, _switches_off_and_reads),
    setup=_two_pages,
    expected=(
        never("migrc:v3", DEFERRED, STALE, WRITE_FAULTS),
        sometimes("mistake:switched-off-forgets"),
    ),
    fast=2,
    slow=3,
    only=MigrcV3,
)

TESTS = (SWITCH, SWITCH_AND_WRITE)
