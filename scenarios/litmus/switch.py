"""The runtime switch is turned off while requests are pending: no more deferral, and nothing gets lost."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, Litmus
from emulator.policies.migrc_v3 import MigrcV3
from scenarios.litmus.answers import DEFERRED, REUSED, STALE, WRITE_FAULTS, never, sometimes
from scenarios.litmus.starts import OTHER, PAGE, pages
from scenarios.litmus.steps import call, in_order, move, mover, read, reader, reuse


async def _switch_off(cpu: PerCpu) -> None:
    assert isinstance(cpu.policy, MigrcV3)
    await cpu.policy.set_enabled(cpu, False)


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
    programs=(
        in_order(mover, call(move, 2), call(reuse, FAST)),
        in_order(call(_switch_off), reader, call(read, OTHER)),
    ),
    setup=pages(PAGE, OTHER),
    expected=(never("migrc:v3", DEFERRED, REUSED, STALE),),
    fast=2,
    slow=3,
    only=MigrcV3,
)


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
    programs=(in_order(mover, call(user_write, PAGE, 11)), in_order(call(_switch_off), reader)),
    setup=pages(PAGE, OTHER),
    expected=(
        never("migrc:v3", DEFERRED, STALE, WRITE_FAULTS),
        sometimes("mistake:switched-off-forgets"),
    ),
    fast=2,
    slow=3,
    only=MigrcV3,
)
