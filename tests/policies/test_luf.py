"""LUF v12: what narrow numbers do, who may not interrupt, and the one line that the posting lacks."""

from __future__ import annotations

import pytest

from emulator.checks.heed import Heed
from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import FolioPut
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.litmus import FAST, Forbidden, Litmus, LitmusMachine, Setup
from emulator.policies.luf import LufV12, LufV12Required
from scenarios.litmus import LITMUS
from scenarios.litmus.lazy_unmap import FRAME_REUSED
from scenarios.litmus.starts import FILE, PAGE, VERSION
from scenarios.litmus.steps import call, in_order, read_if_cached, reuse
from scenarios.litmus.syscalls import reclaim


class Narrow(LufV12Required):
    """Two bits for what a page keeps: keys go round every third time, stamps every fourth."""

    def __init__(self) -> None:
        super().__init__(bits=2)


def broken(test: Litmus, policy: type[Policy], architecture: str = "sc") -> str:
    machine = LitmusMachine(test, ARCHITECTURES[architecture], policy)
    machine.heed = Heed(test.rules, test.ignore)
    explorer = LearnedMachine(machine)
    tally = exhaust(explorer, max_states=30_000)
    assert tally.complete or tally.violation is not None
    return tally.violation.rule if tally.violation is not None else ""


@pytest.mark.parametrize("test", ["reclaimed-frame-reused", "two-allocators"])
def test_numbers_that_go_round_cost_flushes_but_let_nothing_through(test: str) -> None:
    assert broken(LITMUS[test], Narrow) == ""


def test_what_sixteen_bits_mean_is_never_earlier_than_it_was() -> None:
    luf = LufV12()
    assert luf.page_zone_ugen(0x20005, 0x20004) == 0x20004
    assert luf.page_zone_ugen(0x20005, 0x10006) == 0x10006
    assert luf.page_zone_ugen(0x30005, 0x10004) == 0x30004
    assert luf.page_zone_ugen(0x30005, 0) == 0
    assert luf.next_ugen(0xFFFF) == 0x10001
    assert luf.prev_ugen(0x10001) == 0xFFFF


async def _asks_twice(cpu: PerCpu) -> None:
    """The one frame of the node is owed for: it is had only by who may interrupt."""
    await reclaim(cpu)
    if await get_page_from_freelist(cpu, (FAST,), 0, 0, may_interrupt=False) >= 0:
        raise Forbidden("not refused", "who may not interrupt has got a page that is owed for")
    pfn = await get_page_from_freelist(cpu, (FAST,), 0, 0)
    if pfn < 0:
        raise Forbidden("lost", "what was refused is not there any more")
    await FolioPut(pfn)


@pytest.mark.parametrize("architecture", ["sc", "riscv"])
def test_who_may_not_interrupt_is_refused_what_is_owed_for(architecture: str) -> None:
    programs = (_asks_twice, in_order(call(read_if_cached), call(read_if_cached)))
    test = Litmus("refused", "", programs, FRAME_REUSED.setup, (), frugal=False, fast=1)
    assert broken(test, LufV12, architecture) == ""
    assert broken(test, Policy) == "not refused"


@pytest.mark.parametrize("test", ["mapped-over-reclaimed-unasked", "reclaimed-alias-written"])
def test_flush_required_is_all_that_is_missing(test: str) -> None:
    assert broken(LITMUS[test], LufV12)
    assert broken(LITMUS[test], LufV12Required) == ""


def test_a_diet_that_leaves_out_one_too_many_is_found() -> None:
    class Wrong(LufV12Required):
        async def diet(self, cpu: PerCpu, mask: int, ugen: int) -> int:
            return await super().diet(cpu, mask, ugen) & ~2

    assert broken(LITMUS["reclaimed-frame-reused"], Wrong)


def _two_pages(setup: Setup) -> None:
    """Pages of a file, one after the other, which CPU 1 has cached."""
    setup.area(PAGE, 2, writable=False, file=FILE, shared=True)
    for pgoff in (0, 1):
        pfn = setup.page(PAGE + pgoff, exclusive=False, version=VERSION, cached=(1,))
        setup.in_page_cache(pfn, FILE, pgoff)
        setup.on_disk(FILE, pgoff, VERSION)


@pytest.mark.parametrize("lists", [False, True])
def test_that_one_generation_of_a_zone_is_paid_for_says_nothing_of_the_next(lists: bool) -> None:
    steps = [step for pfn in (1, 2) for step in (call(reclaim, pfn), call(reuse, FAST))]
    programs = (in_order(*steps), in_order(call(read_if_cached, PAGE + 1), call(read_if_cached, PAGE + 1)))
    settings = (("per_cpu_pages", lists),)
    test = Litmus("twice", "", programs, _two_pages, (), frugal=False, fast=2, settings=settings)
    assert broken(test, LufV12) == ""
