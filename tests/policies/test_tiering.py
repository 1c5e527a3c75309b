"""TPP and Nomad: what a hint fault does, when kswapd is woken, and where shadows go when memory is short."""

from __future__ import annotations

import pytest

from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import GetPte, Load
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmzone import KSWAPD_WAITING
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.litmus import FAST, MM, SLOW, Body, Litmus, LitmusMachine, Setup
from emulator.policies.immediate import Immediate
from emulator.policies.nomad import COMMITTED, NR_SHADOWS, RELEASED, Nomad
from emulator.policies.tpp import ACTIVATED, Tpp
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import reuse, scan_and_fault
from scenarios.litmus.transactions import promote

WAITING = f"{KSWAPD_WAITING}.{FAST}"


def start(setup: Setup) -> None:
    """A page in the slow tier; the fast tier's kswapd sleeps."""
    pages(PAGE, node=SLOW)(setup)
    setup.word(WAITING, 1)


def reached(policy: type[Policy], program: Body, slow: int = 2) -> set[str]:
    """What one CPU counts that runs this."""
    test = Litmus("tiering", "?", (program,), start, (), frugal=False, fast=4, slow=slow)
    explorer = LearnedMachine(LitmusMachine(test, ARCHITECTURES["sc"], policy))
    tally = exhaust(explorer, max_states=5_000)
    found = tally.violation
    if found is not None:
        return {found.rule}
    assert tally.complete
    return set(explorer.reached)


async def _counts_where(cpu: PerCpu, after: str) -> None:
    tier = "fast" if cpu.parameters.nid(pte_pfn(await GetPte(MM, PAGE))) == FAST else "slow"
    cpu.count(f"{after}_{tier}")


async def two_faults(cpu: PerCpu) -> None:
    await scan_and_fault(cpu)
    await _counts_where(cpu, "first")
    await scan_and_fault(cpu)
    await _counts_where(cpu, "second")


async def takes_a_page(cpu: PerCpu) -> None:
    await reuse(cpu, FAST)
    if not await Load(WAITING):
        cpu.count("woken")


async def promotes_and_needs_memory(cpu: PerCpu) -> None:
    await promote(cpu)
    if await Load(NR_SHADOWS):
        cpu.count("held")
    await reuse(cpu, SLOW)
    if not await Load(NR_SHADOWS):
        cpu.count("gone")


@pytest.mark.parametrize("policy", [Tpp, Nomad])
def test_what_is_met_once_stays_and_what_is_met_twice_is_promoted(policy: type[Policy]) -> None:
    found = reached(policy, two_faults)
    assert {ACTIVATED, "first_slow", "second_fast"} <= found
    assert not {"first_fast", "second_slow"} & found


def test_mainline_promotes_at_once() -> None:
    found = reached(Immediate, two_faults)
    assert "first_fast" in found and "first_slow" not in found


@pytest.mark.parametrize(("policy", "woken"), [(Tpp, True), (Immediate, False)])
def test_an_allocation_below_the_mark_of_demotion_wakes_kswapd(
    policy: type[Policy], woken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of the fast tier, so that one page less is below it; no mark of allocations is near.
    monkeypatch.setattr("emulator.policies.tpp.DEMOTE_SCALE_FACTOR", 10_000)
    assert ("woken" in reached(policy, takes_a_page)) is woken


def test_a_shadow_goes_where_the_slow_tier_is_short_of_memory() -> None:
    assert {COMMITTED, RELEASED, "held", "gone"} <= reached(Nomad, promotes_and_needs_memory, slow=1)
