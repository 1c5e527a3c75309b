"""Huge pages in workloads, on the timed engine: they are faulted in, move as a whole, and nothing breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from emulator.policies.catalogue import POLICIES
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.workload_file import load_workload

Migrc = Callable[..., int]

FEWER = (
    "threads.accesses=30000",
    "threads.drift_every=1000",
    "kernel.numa_scan_period_accesses=500",
    "checks.sample_every=20",
)
# Tiers that hold little more than the threads map, and huge pages larger than what becomes free in one piece.
FULL = (
    "kernel.hpage_order=6",
    "memory.fast_pages=704",
    "memory.slow_pages=576",
    "threads.table_pages=128",
    "threads.heap_pages=992",
    "threads.heap_share=0.5",
    "threads.hot_pages=96",
    "threads.hot_share=0.99",
    "threads.drift_every=700",
    "threads.accesses=60000",
)


@pytest.fixture
def run(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The runs of a timed run's document, without the time that it took."""

    def timed(name: str, settings: tuple[str, ...], *arguments: str) -> list[dict[str, Any]]:
        options = [word for setting in settings for word in ("--set", setting)]
        assert migrc("run", name, "--engine", "timed", "--json", *arguments, *options) == 0
        runs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
        for one in runs:
            del one["wall_s"]
        return runs

    return timed


def test_the_shipped_workload_moves_them_in_both_directions(run: Callable[..., list[dict[str, Any]]]) -> None:
    policies = ("--policy", "immediate", "--policy", "migrc:v3", "--policy", "migrc:rfc2")
    for one in run("huge-pages", FEWER, "--cpus", "2", *policies):
        counts = one["vmstat"]
        assert one["violations"] == []
        assert counts["thp_fault_alloc"] and counts["thp_fault_fallback"]
        assert counts["numa_huge_pte_updates"]
        # Pages, so a huge one is 512; there are fewer small ones than that.
        assert counts["pgpromote_success"] + counts["pgdemote_kswapd"] == counts["pgmigrate_success"]
        assert counts["thp_migration_success"] > 2
        assert min(counts["pgpromote_success"], counts["pgdemote_kswapd"]) > 512
        assert bool(counts["migrc_deferred"]) is (one["policy"] != "immediate")


def test_the_same_seed_is_the_same_document(run: Callable[..., list[dict[str, Any]]]) -> None:
    settings = (*FEWER, "threads.accesses=10000")
    first, second = (run("huge-pages", settings, "--cpus", "3", "--seed", "4") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_of_four_pages_under_pressure(policy: str, run: Callable[..., list[dict[str, Any]]]) -> None:
    # Mostly anonymous memory: of a table, which is a file, reclaim takes the pages first.
    settings = (
        *("threads.accesses=30000", "threads.drift_every=2000", "checks.sample_every=20"),
        *("threads.table_pages=64", "threads.heap_pages=1280"),
    )
    (one,) = run("pressure-orders", settings, "--policy", policy)
    assert one["violations"] == []
    assert one["vmstat"]["thp_fault_fallback"]
    assert one["vmstat"]["thp_migration_success"]


def test_blocks_of_64_pages_move_through_full_tiers_and_nothing_breaks(
    run: Callable[..., list[dict[str, Any]]],
) -> None:
    moved = 0
    for seed in ("1", "2", "3"):
        for one in run("pressure", FULL, "--seed", seed, "--watched", "--policy", "immediate"):
            assert one["violations"] == []
            moved += one["vmstat"]["thp_migration_success"]
            assert one["vmstat"]["thp_split_page"] == one["vmstat"]["thp_split_pmd"]
    assert moved


def test_without_them_frames_and_entries_are_what_they_were() -> None:
    workload = load_workload("pressure")
    user = workload.user_space(2, 0, None)
    machine = build_machine(workload, 2, "x86", POLICIES["immediate"], user)
    assert machine.parameters.starts == (1, 513, 2113)
    assert machine.memory().page_tables.hpage_order == 0


def test_the_fast_tier_begins_with_a_whole_block() -> None:
    workload = load_workload("huge-pages")
    machine = build_machine(workload, 2, "x86", POLICIES["immediate"], workload.user_space(2, 0, None))
    zones = machine.memory().folios.zones
    assert [zone.start_pfn for zone in zones] == [512, 512 + 8192] == list(machine.parameters.starts[:2])
    assert all(not any(zone.free_blocks()[order] for order in range(9)) for zone in zones)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("kernel.hpage_order=10",), "--set kernel.hpage_order: 10 is too large; 9 or less"),
        (("kernel.hpage_order=-1",), "--set kernel.hpage_order: -1 is too small; 0 or more"),
        (("kernel.hpage_order=true",), "--set kernel.hpage_order: True is no whole number; such as 64"),
        (
            ("kernel.hpage_order=9",),
            "--set kernel.hpage_order: huge pages of 512 pages, but the fast tier has 512, of which kswapd "
            "keeps 42 free; a smaller order, or memory.fast_pages of 554 or more",
        ),
        (
            ("kernel.hpage_order=9", "memory.fast_pages=2048", "memory.slow_pages=1000"),
            "--set kernel.hpage_order: huge pages of 512 pages, but the slow tier has 1000; a smaller order, "
            "or memory.slow_pages of 1024 or more",
        ),
    ],
)
def test_orders_that_cannot_be_had(settings: tuple[str, ...], message: str) -> None:
    extra = ("threads.heap_pages=300", "threads.table_pages=300")
    with pytest.raises(UsageProblem) as caught:
        load_workload("pressure", (*settings, *extra))
    assert caught.value.format_message() == message
