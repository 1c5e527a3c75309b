"""A call that has returned has taken what it took: told when it drops mmap_lock, and for that only."""

from __future__ import annotations

import pytest

from emulator.checks import grace_period
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.instead import instead_of
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.machine.litmus import Body, Litmus, LitmusMachine
from emulator.machine.referee import Referee
from emulator.policies.immediate import Immediate
from scenarios.litmus.answers import never
from scenarios.litmus.starts import OTHER, PAGE, Start, file_page, pages
from scenarios.litmus.steps import bystander, call, in_order
from scenarios.litmus.syscalls import (
    MADV_DONTNEED,
    PROT_NONE,
    PROT_READ,
    READ_WRITE,
    madvise,
    mprotect,
    munmap,
    reclaim,
)


class FlushesNothing(Immediate):
    """A gather that only ends."""

    async def flush_zapped(self, *arguments: object) -> None:  # type: ignore[override]
        pass

    async def flush_changed(self, *arguments: object) -> None:  # type: ignore[override]
        pass


class LeavesReclaimOwing(Immediate):
    """Reclaim's flush does not come, and nobody asks for it."""

    @instead_of(flush_tlb_batched_pending)
    async def asks_nobody(self, cpu: PerCpu, mm: int) -> None:
        pass

    async def unmap_flush_begin(self, cpu: PerCpu) -> None:
        cpu.current.tlb_ubc.clear()


def broken(policy: type[Policy], program: Body, setup: Start) -> set[str]:
    """The rules that one run breaks, of one CPU that calls and one that has everything cached."""
    test = Litmus("t", "?", (program, bystander), setup, (never("immediate"),), drain=False, frugal=False)
    referee = Referee(LitmusMachine(test, ARCHITECTURES["sc"], policy))
    search(referee, find_strategy("random")(), 1, Limits(1), lambda: False)
    return {violation.rule for violation in referee.violations()}


WRITTEN = pages(PAGE, OTHER, written=True)


@pytest.mark.parametrize(
    "program",
    [
        call(munmap, PAGE),
        call(mprotect, PAGE, PROT_NONE),
        call(mprotect, PAGE, PROT_READ),
        call(madvise, PAGE, MADV_DONTNEED),
    ],
)
def test_what_a_call_has_taken_is_flushed_when_it_returns(program: Body) -> None:
    assert broken(FlushesNothing, program, WRITTEN) == {grace_period.RETURNED}
    assert not broken(Immediate, program, WRITTEN)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (call(mprotect, PAGE, PROT_NONE), True),
        (call(mprotect, PAGE, PROT_READ), False),  # a clean page can be read only
        (call(mprotect, PAGE, READ_WRITE), False),
        (call(munmap, PAGE), True),
    ],
)
def test_what_others_had_taken_before_counts_as_far_as_the_call_takes_it(program: Body, told: bool) -> None:
    start = file_page(PAGE, PAGE + 2, stored=True)
    found = broken(LeavesReclaimOwing, in_order(reclaim, program), start)
    assert (grace_period.RETURNED in found) == told


def test_a_call_on_other_pages_is_another_matter() -> None:
    start = file_page(PAGE, PAGE + 2, stored=True)
    assert grace_period.RETURNED not in broken(
        LeavesReclaimOwing, in_order(reclaim, call(munmap, PAGE + 2)), start
    )
