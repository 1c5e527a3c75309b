"""LUF v10 and v11: what was posted, with what mends it beside it."""

from __future__ import annotations

import pytest

from emulator.checks.heed import Heed
from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import FolioGet, FolioPutTestzero, FolioRefcount, Lock, TryLock, Unlock
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.machine.litmus import Litmus, LitmusMachine
from emulator.policies.luf import LufV12Required
from emulator.policies.luf_v10 import LufV10, LufV11
from scenarios.litmus import LITMUS


def broken(test: Litmus, policy: type[Policy], architecture: str = "sc") -> str:
    machine = LitmusMachine(test, ARCHITECTURES[architecture], policy)
    machine.heed = Heed(test.rules, test.ignore)
    tally = exhaust(LearnedMachine(machine), max_states=30_000)
    assert tally.complete or tally.violation is not None
    return tally.violation.rule if tally.violation is not None else ""


class FlushesForWhatItKeeps(LufV10):
    """As v12 does."""

    async def reclaim_failed(self, cpu: PerCpu, pfn: int) -> None:
        await super().reclaim_failed(cpu, pfn)
        await try_to_unmap_flush(cpu)


class AsksInWriteFaults(LufV11):
    """v10's flush in do_wp_page, left where it was."""

    before_writable = LufV10.before_writable


class KeepsTheGeneration(LufV10):
    """Whoever drops the last reference."""

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        pass


class WaitsForItsTlbis(LufV12Required):
    """On arm64 as elsewhere: a batch is not done by itself."""

    async def put_off(self, cpu: PerCpu) -> int:
        cpu.current.tlb_ubc.fold(self.task(cpu).tlb_ubc_luf)
        return 0


@pytest.mark.parametrize(
    ("test", "architecture", "posted", "mended"),
    [
        ("reclaimed-kept-freed-later", "sc", LufV10, FlushesForWhatItKeeps),
        ("write-fault-pending", "sc", LufV11, AsksInWriteFaults),
        ("gup-read-pending", "x86", LufV10, KeepsTheGeneration),
        ("reclaimed-frame-reused", "arm64", LufV12Required, WaitsForItsTlbis),
    ],
)
def test_what_is_wrong_as_posted(
    test: str, architecture: str, posted: type[Policy], mended: type[Policy]
) -> None:
    assert broken(LITMUS[test], posted, architecture)
    assert broken(LITMUS[test], mended, architecture) == ""


def test_a_lock_that_somebody_has_is_not_waited_for() -> None:
    memory = LitmusMachine(LITMUS["write-fault-pending"], ARCHITECTURES["sc"], LufV10).memory()
    assert memory.execute(0, TryLock("luf"))
    assert not memory.execute(1, TryLock("luf"))
    assert not memory.enabled(1, Lock("luf"))
    memory.execute(0, Unlock("luf"))
    assert memory.execute(1, TryLock("luf"))


def test_who_drops_the_last_reference_is_told() -> None:
    memory = LitmusMachine(LITMUS["write-fault-pending"], ARCHITECTURES["sc"], LufV10).memory()
    memory.execute(0, FolioGet(1))
    assert [memory.execute(0, FolioPutTestzero(1)) for _ in range(2)] == [False, True]
    assert memory.execute(0, FolioRefcount(1)) == 0
