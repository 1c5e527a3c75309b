"""NUMA hint faults: which pages are hot, and what the entry of others is given back."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import Load, Store
from emulator.hardware.pte import pte_present, pte_protnone, pte_write
from emulator.kernel.fair import (
    NBP_THRESHOLD,
    PGPROMOTE_CANDIDATE,
    numa_promotion_adjust_threshold,
    numa_scan_seq_word,
    task_numa_fault,
)
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import FILE, HEAP, SHARED, SmallMachine, Thread, demote


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("page", "written", "writable"),
    [
        (HEAP, True, True),
        (HEAP, False, True),
        (FILE, True, True),
        (FILE, False, False),
        (SHARED, True, False),
    ],
    ids=["written", "only read", "copied from a file", "page of a file", "shared file"],
)
def test_an_exclusive_page_becomes_writable_again_where_it_is(
    page: int, written: bool, writable: bool, policy: str
) -> None:
    """Whether it is dirty does not matter (can_change_pte_writable); pages of a file fault once more."""

    async def body(cpu: PerCpu) -> None:
        await (user_write(cpu, page, 5) if written else user_read(cpu, page))
        await demote(cpu, page)
        assert await change_prot_numa(cpu, 1, page, page + 1) == 1
        assert pte_protnone(machine.entry(page))
        assert await user_read(cpu, page) == (5 if written else 0)
        assert pte_present(machine.entry(page)) and not pte_protnone(machine.entry(page))
        assert pte_write(machine.entry(page)) is writable

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy], numa_promotes=False)
    assert not machine.run().violations
    assert machine.vmstat("numa_hint_faults") == 1
    assert machine.vmstat("numa_pages_migrated") == 0
    assert machine.vmstat("numa_writable") == writable


def latencies(threshold: int, rate: int = 1 << 24) -> list[int]:
    """Pages that were promoted, of eight that were used 0, 10, ... 70 accesses after a scan."""

    async def body(cpu: PerCpu) -> None:
        pages = range(HEAP, HEAP + 8)
        for page in pages:
            await user_write(cpu, page, 1)
        await demote(cpu, *pages)
        cpu.now = 1000
        await change_prot_numa(cpu, 1, HEAP, HEAP + 8)
        for page in pages:
            assert await user_read(cpu, page) == 1
            cpu.now += 10

    machine = SmallMachine(
        Thread(0, body),
        numa_scan_pages=8,
        numa_scan_period_accesses=100,
        numa_hot_threshold_accesses=threshold,
        numa_promote_rate_pages=rate,
        numa_scan_period_max_accesses=10_000,
    ).run()
    assert not machine.violations
    return [machine.vmstat(name) for name in ("pgpromote_candidate", "pgpromote_success", "numa_writable")]


def test_what_is_used_soon_after_the_scan_is_hot() -> None:
    """What is not is given its write permission back where it is."""
    assert latencies(35) == [4, 4, 4]
    assert latencies(0) == [8, 8, 0], "a scan period"
    assert latencies(1) == [1, 1, 7]


def test_no_more_is_promoted_in_a_period_than_the_rate_limit_lets_pass() -> None:
    assert latencies(0, rate=4) == [8, 4, 4]


def thresholds(rate: int, times: int) -> list[int]:
    found: list[int] = []

    async def body(cpu: PerCpu) -> None:
        for _ in range(times):
            cpu.now += 301
            await Store(PGPROMOTE_CANDIDATE, await Load(PGPROMOTE_CANDIDATE) + 100)
            await numa_promotion_adjust_threshold(cpu)
            found.append(await Load(NBP_THRESHOLD))

    SmallMachine(
        Thread(0, body),
        numa_scan_pages=1,
        numa_scan_period_accesses=100,
        numa_scan_period_max_accesses=300,
        numa_hot_threshold_accesses=80,
        numa_promote_rate_pages=rate,
    ).run()
    return found


def test_the_threshold_goes_to_twice_its_setting_while_little_is_hot_and_down_to_an_eighth() -> None:
    assert thresholds(1000, 10) == [90, 100, 110, 120, 130, 140, 150, 160, 160, 160]
    assert thresholds(1, 9) == [70, 60, 50, 40, 30, 20, 10, 10, 10]
    assert thresholds(33, 2) == [80, 80], "as many as are wanted"


def test_the_scan_period_gets_longer_after_every_pass_up_to_its_maximum() -> None:
    periods = []

    async def body(cpu: PerCpu) -> None:
        for seq in (1, 1, 2, 3, 4):
            await Store(numa_scan_seq_word(1), seq)
            await task_numa_fault(cpu, 1, 16)
            periods.append(cpu.numa_scan_period)

    SmallMachine(
        Thread(0, body),
        numa_scan_pages=4,
        numa_scan_period_accesses=100,
        numa_scan_period_max_accesses=800,
    ).run()
    # 800 divided by four windows.
    assert periods == [130, 130, 169, 200, 200]
