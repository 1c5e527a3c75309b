"""The one addition that closes three holes of v9: flush wherever a mapping becomes writable.

The postings look in do_wp_page only. Hint faults, mprotect and do_shared_fault make entries writable as well.
To v3 it is no more than a part: where two CPUs find that they have to flush, "empty is not done" is left.
"""

from __future__ import annotations

import pytest

from emulator.explore.compiled.runs import exhaust, search
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits
from emulator.explore.strategies import find_strategy
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.litmus import LitmusMachine
from emulator.policies.migrc_v3 import MigrcV3
from emulator.policies.migrc_v9 import MigrcV9
from scenarios.litmus import LITMUS

HOLES = pytest.mark.parametrize(
    "test", ["hint-restores-write", "mprotect-message-passing", "shared-fault-pending"]
)
X86 = ARCHITECTURES["x86"]


class V3Everywhere(MigrcV3):
    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        await self.before_writable(cpu, pfn)


class V9Everywhere(MigrcV9):
    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        await self.before_writable(cpu, pfn)


@HOLES
@pytest.mark.parametrize("policy", [MigrcV3, MigrcV9])
def test_the_posting_is_unsafe(policy: type[Policy], test: str) -> None:
    explorer = LearnedMachine(LitmusMachine(LITMUS[test], X86, policy))
    tally = search(explorer, find_strategy("portfolio")(), 0, Limits(2000), lambda: False)
    assert tally.violation is not None
    assert tally.violation.rule == "grace period: destination made writable"


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        (V9Everywhere, "hint-restores-write"),
        (V9Everywhere, "mprotect-message-passing"),
        (V9Everywhere, "shared-fault-pending"),
        (V3Everywhere, "shared-fault-pending"),
    ],
)
def test_asking_there_closes_it(policy: type[Policy], test: str) -> None:
    explorer = LearnedMachine(LitmusMachine(LITMUS[test], X86, policy))
    tally = search(explorer, find_strategy("portfolio")(), 0, Limits(600), lambda: False)
    assert tally.violation is None
    assert exhaust(explorer, max_states=15_000).violation is None
    assert "migrc_deferred" in explorer.reached
