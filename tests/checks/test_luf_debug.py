"""LUF_DEBUG as a rule: a LUF that leaves a CPU out is caught by it, and would not be as posted."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.checks.heed import Heed
from emulator.checks.luf_debug import OWING, LufDebug
from emulator.checks.onlooker import Meeting
from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import FolioSetTag, Operation
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.litmus import LitmusMachine
from emulator.memory.memory import Memory
from emulator.policies.luf import LufV12
from emulator.policies.luf_clock import LufBatch
from scenarios.litmus import LITMUS
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.rules import heed, looked


class DietsTooMuch(LufV12):
    """Leaves a CPU out that has not flushed."""

    async def diet(self, cpu: PerCpu, mask: int, ugen: int) -> int:
        return await super().diet(cpu, mask, ugen) & ~2


class TakesUnpaid(LufV12):
    """Whatever a page of the zone owes is said to be paid."""

    async def luf_takeoff_check_and_fold(self, cpu: PerCpu, node: int, tag: int, may_interrupt: bool) -> bool:
        return True


class ForgetsAsPosted(LufDebug):
    """lufd_check_zone_pages: a page's note is cleared of what its zone owes, which is all of it then."""

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        super().observe(cpu, operation, answer)
        if isinstance(operation, FolioSetTag) and operation.pfn in self.owed:
            self.owed[operation.pfn] = LufBatch(0, LufBatch.of(self.owed[operation.pfn]).ugen).word

    def meets(self, cpu: int, operation: Any, answer: Any) -> Meeting:
        return super().meets(cpu, operation, answer)


class Debugged(LitmusMachine):
    """A machine whose LUF_DEBUG is another."""

    kind: type[LufDebug] = LufDebug

    def checks(self, memory: Memory) -> list[Any]:
        found = super().checks(memory)
        own = self.heeding([self.kind(memory, self.cpus)])
        return [*(one for one in found if not isinstance(one, LufDebug)), *own]


def broken(
    policy: type[Policy], kind: type[LufDebug] = LufDebug, test: str = "reclaimed-frame-reused"
) -> str:
    machine = Debugged(LITMUS[test], ARCHITECTURES["sc"], policy)
    machine.kind = kind
    machine.heed = Heed((OWING,))
    tally = exhaust(LearnedMachine(machine), max_states=20_000)
    assert tally.complete or tally.violation is not None
    return tally.violation.rule if tally.violation is not None else ""


@pytest.mark.parametrize("policy", [DietsTooMuch, TakesUnpaid])
def test_a_page_that_is_taken_unflushed_is_told(policy: type[Policy]) -> None:
    assert broken(policy) == OWING
    assert broken(policy, ForgetsAsPosted) == ""


def test_what_is_flushed_for_is_not() -> None:
    assert broken(LufV12) == ""
    assert broken(LufV12, test="reclaimed-kept-freed-later") == ""


@pytest.mark.parametrize(
    ("policy", "rules", "looks"), [(LufV12, (OWING,), True), (LufV12, (), False), (Policy, (OWING,), False)]
)
def test_it_is_looked_at_where_it_is_asked_for_and_the_policy_has_its_words(
    policy: type[Policy], rules: tuple[str, ...], looks: bool
) -> None:
    machine = LitmusMachine(LITMUS["reclaimed-frame-reused"], ARCHITECTURES["sc"], policy)
    machine.heed = Heed(rules)
    assert any(isinstance(one, LufDebug) for one in machine.checks(machine.memory())) == looks
    asked = heed([OWING], [], [])
    assert asked.asks(OWING)
    assert looked(asked, LitmusName("reclaimed-frame-reused")).at == (OWING,)
    # Where nobody looks at it, the test is left out.
    assert looked(asked, LitmusName("reclaimed-frame-reused"), debugged=False).at == ()
