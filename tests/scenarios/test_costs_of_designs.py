"""Workloads of what a design costs: who does what in them, and the table that is made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.designs import DESIGNS, Point, change, is_none, points, read, run, table
from emulator.kernel.user import SystemCall
from scenarios.api import run as run_workload
from scenarios.runs.grid import run_point
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.workloads.file_reclaim import FILE_BASE
from scenarios.workloads.users import Users
from scenarios.workloads.workload_file import load_workload

SMALL = {
    "file-reclaim": (
        "memory.fast_pages=64",
        "memory.slow_pages=64",
        "memory.min_free_pages=16",
        "memory.slow_min_free_pages=16",
        "file_reclaim.file_pages=80",
        "file_reclaim.stretch_pages=4",
        "file_reclaim.stretches=40",
    ),
    "munmap-storm": ("munmap_storm.loops=12", "munmap_storm.pages=4", "munmap_storm.uses=20"),
    "write-syscall": (
        "memory.fast_pages=128",
        "memory.slow_pages=64",
        "memory.min_free_pages=32",
        "memory.slow_min_free_pages=16",
        "write_syscall.table_pages=160",
        "write_syscall.writes=120",
    ),
    "allocation-latency": (
        "memory.fast_pages=128",
        "memory.slow_pages=64",
        "memory.min_free_pages=32",
        "memory.slow_min_free_pages=16",
        "allocation_latency.file_pages=160",
        "allocation_latency.stretches=12",
        "allocation_latency.loops=6",
        "allocation_latency.pages=8",
    ),
}


def small(name: str, *more: str) -> Any:
    return load_workload(name, (*SMALL[name], *more))


def run_of(name: str, policy: str, mmu: str, *more: str) -> Any:
    return run_point(Subject(small(name, *more), policy, "x86", 4, 3, None, mmu=mmu), False)


def did(user: Users, thread: int) -> tuple[Counter[int], int]:
    """How often a thread accesses each page, and how many system calls it asks for; none is carried out."""
    accesses: Counter[int] = Counter()
    calls = 0
    for chunk in user.chunks(thread):
        if isinstance(chunk, SystemCall):
            calls += 1
        else:
            accesses.update(access >> 1 for access in chunk)
    return accesses, calls


def test_threads_read_the_whole_file_between_them_and_nobody_writes_it() -> None:
    workload = small("file-reclaim", "threads.processes=2", "file_reclaim.stretches=20")
    user = workload.user_space(4, 1, None)
    for mm in (1, 2):
        read_by = [number for number in range(4) for thread in user.threads(number) if thread.mm == mm]
        pages: Counter[int] = Counter()
        for thread in read_by:
            pages.update(did(user, thread)[0])
        assert set(pages) == set(range(FILE_BASE, FILE_BASE + 80))
        assert min(pages.values()) == 64, "what is more are strays"
        assert sum(pages.values()) == workload.file_reclaim.accesses() == 20 * (4 * 64 + 1)
    assert user.expected_accesses() == 2 * 20 * (4 * 64 + 1)


def test_reclaim_of_files_shoots_down_and_luf_puts_that_off_at_the_price_of_allocations() -> None:
    now, later = (run_of("file-reclaim", policy, "x86") for policy in ("immediate", "luf:v12"))
    assert now["vmstat"]["pgsteal_file"] and now["vmstat"]["nr_tlb_remote_flush"] > 4
    assert later["vmstat"]["nr_tlb_remote_flush"] < now["vmstat"]["nr_tlb_remote_flush"] / 2
    assert later["allocation_ns"]["all"]["p50"] > now["allocation_ns"]["all"]["p50"]
    assert now["pending_peak"] == 0 < later["pending_peak"]
    assert not now["violations"] and not later["violations"]


def test_a_storm_interrupts_all_with_x86_and_hardly_anybody_with_latr() -> None:
    settings = ("munmap_storm.mappers=1", "munmap_storm.reads=4000", "kernel.tick_accesses=100")
    now, later = (run_of("munmap-storm", "immediate", mmu, *settings) for mmu in ("x86", "latr"))
    assert now["vmstat"]["nr_tlb_remote_flush"] >= 12
    assert later["vmstat"]["latr_states_saved"] == 12
    # What still waits is flushed for when the thread ends, once.
    assert sum(now["interrupts"]["TLB"]) >= 12 * 3 and sum(later["interrupts"]["TLB"]) <= 2 * 3
    assert now["vmstat"].get("latr_pages_kept", 0) == 0 < later["vmstat"]["latr_pages_kept"]
    assert not now["violations"] and not later["violations"]


def test_a_storm_has_readers_beside_it_and_gives_pages_up_one_by_one() -> None:
    storm = run_of("munmap-storm", "immediate", "x86", "munmap_storm.mappers=1", "munmap_storm.madvise=true")
    assert storm["vmstat"]["nr_tlb_remote_flush"] >= 12 * 4
    assert not storm["violations"]


def test_writes_go_to_files_of_the_threads_own_or_to_what_is_mapped() -> None:
    user = small("write-syscall").user_space(4, 1, None)
    assert [did(user, thread)[1] for thread in range(4)] == [30] * 4
    apart, mapped = (
        run_of("write-syscall", "luf:v12-required", "x86", f"write_syscall.into_table={into}")
        for into in ("false", "true")
    )
    assert not apart["violations"] and not mapped["violations"]
    # What has been written to is what reclaim has unmapped: the file owes a flush, which write(2) makes.
    assert mapped["vmstat"]["luf_flushes"] > apart["vmstat"]["luf_flushes"]


def test_allocations_are_timed_for_each_process_and_in_all() -> None:
    run = run_of("allocation-latency", "immediate", "x86")
    waited = run["allocation_ns"]
    assert waited.keys() == {"all", "1", "2"} == run["allocation_hdr"].keys()
    assert waited["all"]["count"] == waited["1"]["count"] + waited["2"]["count"]
    # Each loop's pages, and two that keep the page tables.
    assert waited["2"]["count"] == 6 * 8 + 2
    assert waited["all"]["max"] == max(waited["1"]["max"], waited["2"]["max"])
    assert 0 < waited["all"]["p50"] <= waited["all"]["p99"] <= waited["all"]["max"]


def test_an_allocation_that_nothing_disturbs_takes_what_it_costs() -> None:
    """One thread, memory enough: a page off the CPU's list each, and nothing else."""
    workload = load_workload(
        "munmap-storm", ("munmap_storm.loops=1", "munmap_storm.pages=8", "costs.allocate_ns=777")
    )
    run = run_point(Subject(workload, "immediate", "x86", 1, 0, None, mmu="x86"), False)
    waited = run["allocation_ns"]["all"]
    assert waited["count"] == 9
    assert waited["p50"] == waited["max"] == 777


@pytest.mark.parametrize(
    ("name", "setting", "cpus", "message"),
    [
        (
            "file-reclaim",
            "file_reclaim.stretch_pages=81",
            4,
            "--set file_reclaim.stretch_pages: stretches of 81 pages in a file of 80; 80 or fewer, "
            "or more file_pages",
        ),
        (
            "file-reclaim",
            "threads.accesses=5",
            4,
            "--set threads.accesses: file_reclaim says itself what its threads access; remove it",
        ),
        (
            "munmap-storm",
            "munmap_storm.pages=512",
            4,
            "--set munmap_storm.pages: 512 is too large; 511 or less",
        ),
        (
            "munmap-storm",
            "munmap_storm.pages=511",
            16,
            "munmap-storm: munmap_storm.pages: 16 threads map 8256 pages, which do not fit into tiers of "
            "8256; 7224 or fewer in all, or larger tiers",
        ),
        (
            "write-syscall",
            "write_syscall.reads=0",
            4,
            "--set write_syscall.into_table: true, but no page is read to be written; false, or reads",
        ),
        (
            "allocation-latency",
            "allocation_latency.loops=1",
            1,
            "allocation-latency: threads.per_cpu: one thread is no two processes; 2, or more CPUs",
        ),
    ],
)
def test_impossible_settings_are_told(name: str, setting: str, cpus: int, message: str) -> None:
    more = ("write_syscall.into_table=true",) if name == "write-syscall" else ()
    with pytest.raises(UsageProblem) as caught:
        small(name, setting, *more).check(cpus)
    assert caught.value.format_message() == message


class Wanted:
    """The options of `benchmarks/designs.py run`."""

    workload = ("munmap-storm",)
    design = ("mainline", "latr", "luf:v12")
    cpus = (4,)
    sockets = (1,)
    seeds = 2


def test_the_table_goes_on_where_it_was_and_says_what_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {text.partition("=")[0]: text.partition("=")[2] for text in SMALL["munmap-storm"]}
    monkeypatch.setitem(run.__globals__["WORKLOADS"], "munmap-storm", lambda cpus: tiny)
    path = tmp_path / "results.jsonl"
    wanted: list[Point] = list(points(Wanted))  # type: ignore[arg-type]
    assert len(wanted) == 6
    run(path, wanted[:2])
    with path.open("a") as file:
        file.write('{"point": ')
    run(path, wanted)
    assert capsys.readouterr().err.count(" of ") == 6, "none twice"
    found = read(path)
    assert list(found) == wanted
    rows = [line for line in table(found) if line.startswith("| 4, 1 |")]
    assert rows[0].startswith("| 4, 1 | mainline | 13 |"), rows
    assert any(line.startswith("| 4, 1 | latr | ") for line in rows)


def test_a_difference_is_none_unless_the_seeds_agree_that_it_is_more_than_two_in_a_hundred() -> None:
    same = change([101, 101.1, 100.9], [100, 100, 100])
    apart = change([60, 140, 100], [100, 100, 100])
    less = change([50, 52, 51], [100, 100, 100])
    assert same is not None and is_none(same)
    assert apart is not None and is_none(apart)
    assert less is not None and not is_none(less)
    assert round(less.mean, 2) == -0.49 and -0.52 < less.low < -0.51
    assert change([5, 5], [0, 5]) is None and change([5], [5]) is None


def test_designs_are_what_can_be_named() -> None:
    assert {"mainline", "x86-invlpgb", "x86-rar", "early-ack", "latr", "arm64"} <= DESIGNS.keys()
    assert {"migrc:rfc2", "migrc:v3", "migrc:v9", "luf:v12"} <= DESIGNS.keys()
    assert DESIGNS["arm64"].arch == "arm64" and "migrc" not in DESIGNS


def test_rows_for_programs_and_the_report_have_allocations_too() -> None:
    settings = dict(text.split("=") for text in SMALL["allocation-latency"])
    result = run_workload("allocation-latency", policies=["immediate"], settings=settings)
    (row,) = result.rows()
    assert row["allocations"] > 48 and row["allocation_p50_ns"] >= 150
    text = str(result)
    assert "page allocation: from asking for a page to having it\n" in text
    assert "having it, process 2\n" in text
