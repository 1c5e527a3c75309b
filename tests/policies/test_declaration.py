"""What a policy declares: its pending pages, its words at rest, its page flags, its state of a task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.checks.accounting import UNFINISHED
from emulator.hardware.operations import AtomicAdd, FolioPut, NrFree, Store
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PF_KSWAPD, PerCpu
from emulator.kernel.policy import MR_DEMOTION, MR_NUMA_MISPLACED, Policy
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.kernel.user import user_read
from emulator.measure.pending import PendingPeak
from emulator.policies.migrc import migrates_for_tiering
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from emulator.policies.migrc_v9 import MigrcV9
from tests.kernel.small_machine import FILE, SmallMachine, Thread, after, demote, mark

PAGES = 3


class Counts(Policy):
    """A user's own, with words of its own."""

    words_at_rest = ("mine.",)
    pending_words = ("mine.",)

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        await AtomicAdd("mine.0", 2)
        await Store("yours.0", 7)

    async def drain(self, cpu: PerCpu) -> None:
        await AtomicAdd("mine.0", -2 * PAGES)


class ForgetsToCountDown(Counts):
    async def drain(self, cpu: PerCpu) -> None:
        """Nothing."""


async def hand_out_all(cpu: PerCpu) -> None:
    for pfn in [await get_page_from_freelist(cpu, (0,), 0, 0) for _ in range(await NrFree(0))]:
        await FolioPut(pfn)


async def flush_for_somebody_else(cpu: PerCpu) -> None:
    """As an unmap batch would that has met the same CPUs."""
    cpu.current.tlb_ubc.cpumask = 0b11
    cpu.current.tlb_ubc.nr_flush_required = 1
    await try_to_unmap_flush(cpu)


async def drain(cpu: PerCpu) -> None:
    await cpu.policy.drain(cpu)


@pytest.mark.parametrize(
    ("policy", "settle", "peak"),
    [
        (Policy, drain, 0),
        (MigrcV3, drain, PAGES),
        (MigrcRfc2, drain, PAGES),
        (MigrcV9, drain, PAGES),
        (MigrcV9, hand_out_all, PAGES),
        (MigrcV9, flush_for_somebody_else, PAGES),
        (Counts, drain, 2 * PAGES),
    ],
)
def test_pending_pages_are_seen(
    policy: Callable[[], Policy], settle: Callable[[PerCpu], object], peak: int
) -> None:
    seen = []

    async def body(cpu: PerCpu) -> None:
        await after("cached")
        for page in range(PAGES):
            assert await demote(cpu, FILE + page) == 1
            seen.append(meter.pending)
        await settle(cpu)  # type: ignore[misc]
        seen.append(meter.pending)
        if policy is Counts:
            await AtomicAdd("mine.0", 2 * PAGES)
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        for page in range(PAGES):
            await user_read(cpu, FILE + page)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=policy, architecture="sc")
    meter = PendingPeak(machine.memory, policy())
    machine.engine.shared.checks = (*machine.engine.shared.checks, meter)
    assert not machine.run().violations
    assert seen == [(page + 1) * peak // PAGES for page in range(PAGES)] + [0]
    assert meter.results() == {"pending_peak": peak}


@pytest.mark.parametrize(("policy", "left"), [(Counts, []), (ForgetsToCountDown, ["mine.0 is 6, not 0"])])
def test_words_that_are_not_at_rest_are_told(policy: Callable[[], Policy], left: list[str]) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(PAGES):
            await user_read(cpu, FILE + page)
            await demote(cpu, FILE + page)

    found = SmallMachine(Thread(0, body), policy=policy).run().violations
    assert [(one.rule, one.text) for one in found] == [(UNFINISHED, text) for text in left]


@pytest.mark.parametrize(
    ("flags", "reason", "deferred"),
    [(0, MR_DEMOTION, False), (PF_KSWAPD, MR_DEMOTION, True), (0, MR_NUMA_MISPLACED, True)],
)
def test_kswapd_is_told_by_its_flag(flags: int, reason: str, deferred: bool) -> None:
    (cpu, _) = SmallMachine(policy=MigrcV3).kernels
    cpu.current.flags = flags
    assert migrates_for_tiering(cpu, reason) is deferred
