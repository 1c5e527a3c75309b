"""Generations of page tables: a gather whose flush somebody else has done goes without one."""

from __future__ import annotations

import pytest

from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.litmus import LitmusMachine
from emulator.policies.table_generations import SKIPPED, GenerationsRepaired
from scenarios.litmus import LITMUS


@pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
def test_a_flush_that_somebody_else_has_done_is_left_out(architecture: str) -> None:
    machine = LitmusMachine(LITMUS["flushed-by-another"], ARCHITECTURES[architecture], GenerationsRepaired)
    explorer = LearnedMachine(machine)
    tally = exhaust(explorer, max_states=10_000)
    assert tally.complete and tally.violation is None
    assert SKIPPED in explorer.reached
